"""The matrices and metadata of NIXL's own generator (`inference_workload_matgen.py`), to the byte.

Its rules, read at nixl 8770b655a: KV of a batch is divided evenly over the prefill worker's ranks, and each share over
the next `decode TP / (prefill TP × CP)` decode ranks. What serving sends is another matter: see `serving_traffic`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kvdeck.engine.traffic.deployment import Workers, rail_order
from kvdeck.sessions.errors import UsageError

FLOPS = 36e12
"""FLOP/s of one GPU in upstream's formula; an H100 has ten to twenty-five times as much."""


@dataclass(frozen=True, slots=True)
class ModelSizes:
    """A model as upstream's generator knows it."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    dtype_bytes: int

    @property
    def token_bytes(self) -> int:
        return 2 * (self.hidden // self.heads) * self.kv_heads * self.layers * self.dtype_bytes


SHAPES = {
    "llama-405b": ModelSizes(16384, 126, 128, 8, 2),
    "qwen3-30B": ModelSizes(32768, 48, 32, 4, 2),
    "deepseek-r1-distill-llama-70b": ModelSizes(8192, 80, 64, 8, 2),
    "deepseek-r1": ModelSizes(12288, 100, 96, 12, 2),
}
"""Upstream's models. `qwen3-30B` has eight times the true KV, and `deepseek-r1` is no model that exists."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Requests that a worker prefills together."""

    lengths: tuple[int, ...]
    """Input tokens of each."""

    @property
    def tokens(self) -> int:
        return sum(self.lengths)


def batches(lengths: Sequence[int], size: int, token_bytes: float, most_bytes: float) -> list[Batch]:
    """Return the requests in batches: one is full with `size` requests, or once its KV exceeds `most_bytes`."""
    made: list[Batch] = []
    current: list[int] = []
    for length in lengths:
        current.append(length)
        if sum(current) * token_bytes > most_bytes or len(current) >= size:
            made.append(Batch(tuple(current)))
            current = []
    return [*made, Batch(tuple(current))] if current else made


def check_upstream(prefill: Workers, decode: Workers, rail: bool) -> None:
    """Refuse what upstream's generator refuses.

    Raises:
        UsageError: It makes no matrices of such workers.
    """
    rules = (
        (prefill.pp == decode.pp == 1, "PP is 1 on both sides"),
        (decode.cp == 1, "the decode side's CP is 1"),
        (prefill.tp <= decode.tp, "the prefill TP is at most the decode TP"),
        (decode.tp % (prefill.tp * prefill.cp) == 0, "the decode TP is a multiple of the prefill TP × CP"),
        (prefill.count == decode.count, "both sides have as many workers"),
        (not rail or (prefill.tp, decode.tp) == (4, 8), "--rail-optimized has prefill TP 4 and decode TP 8"),
    )
    for holds, rule in rules:
        if not holds:
            raise UsageError(
                f"upstream's generator needs that {rule}", "leave --compat out: kvdeck's own has no such limit"
            )


def cells(
    batch: Batch, number: int, shape: ModelSizes, prefill: Workers, decode: Workers, rail: bool
) -> list[list[float]]:
    """Return the bytes between all ranks for one batch, not rounded; divided in upstream's order."""
    ranks = prefill.ranks + decode.ranks
    rows = [[0.0] * ranks for _ in range(ranks)]
    share = float(batch.tokens * shape.token_bytes) / prefill.tp / prefill.pp / prefill.cp
    fan = decode.tp / prefill.tp / prefill.cp
    worker = number % prefill.count
    order = rail_order(prefill.tp, decode.tp) if rail else tuple(range(decode.tp))
    for index in range(prefill.size):
        for step in range(int(fan)):
            to = decode.first_rank + worker * decode.size + order[index * int(fan) + step]
            rows[prefill.first_rank + worker * prefill.size + index][to] = share / fan
    return rows


def cell_text(size: float) -> str:
    """Return a cell as upstream writes it: two decimals of the largest unit up to G."""
    if not size:
        return "0"
    for unit in "BKM":
        if size < 1024:
            return f"{round(size, 2):g}{unit}"
        size /= 1024
    return f"{round(size, 2):g}G"


def compute_seconds(batch: Batch, shape: ModelSizes, prefill: Workers) -> float:
    """Return upstream's compute time of a batch, which doesn't count CP and squares the sum of the lengths."""
    requests, tokens, hidden, layers = len(batch.lengths), batch.tokens, shape.hidden, shape.layers
    operations = 4 * requests * tokens**2 * hidden * layers + 16 * requests * tokens * hidden**2 * layers
    return operations / (FLOPS * prefill.tp)


def write_upstream(
    folder: Path, made: Sequence[Batch], shape: ModelSizes, prefill: Workers, decode: Workers, rail: bool
) -> None:
    """Write `matrix_N.txt` of each batch and `metadata.yaml` into a folder.

    Raises:
        OSError: A file can't be written.
        UsageError: Upstream makes none of such workers.
    """
    import yaml

    check_upstream(prefill, decode, rail)
    folder.mkdir(parents=True, exist_ok=True)
    patterns = []
    for number, batch in enumerate(made):
        path = folder / f"matrix_{number}.txt"
        rows = cells(batch, number, shape, prefill, decode, rail)
        path.write_text("".join(" ".join(map(cell_text, row)) + "\n" for row in rows))
        patterns.append({
            "matrix_file": str(path.absolute()),
            "metadata": {"isl": batch.tokens},
            "sleep_before_launch_sec": compute_seconds(batch, shape, prefill),
        })  # fmt: skip
    (folder / "metadata.yaml").write_text(yaml.safe_dump({"traffic_patterns": patterns}))
