"""Generating a set of patterns: requests drawn and batched, each batch handed over, and the files of the set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvdeck.engine.planning.parallelism import check
from kvdeck.engine.traffic.deployment import Workers, check_workers, rail_order, worker_of
from kvdeck.engine.traffic.matrix import Matrix, matrix_text
from kvdeck.engine.traffic.serving_traffic import HandOver, batch_matrix, compute_seconds
from kvdeck.engine.traffic.upstream_generator import Batch
from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.host.documents import dump_yaml

ASSIGNMENTS = ("round-robin", "least-loaded")


@dataclass(frozen=True, slots=True)
class Pattern:
    """One batch's matrix, and the compute time before it."""

    batch: Batch
    matrix: Matrix
    workers: tuple[int, int]
    """Prefill and decode worker."""
    compute_s: float | None
    """Null if no FLOP/s is given."""


def make_patterns(
    hand_over: HandOver,
    made: Sequence[Batch],
    prefill: Workers,
    decode: Workers,
    *,
    rail: bool = False,
    assignment: str = "round-robin",
    flops: float | None = None,
) -> list[Pattern]:
    """Return a pattern of each batch.

    Args:
        hand_over: The model and how both sides divide it.
        made: The batches.
        prefill: The prefill side.
        decode: The decode side.
        rail: Place decode ranks so that each prefill rank sends along its own rail.
        assignment: How batches get a worker of each side, one of `ASSIGNMENTS`.
        flops: FLOP/s that one rank reaches, for the compute time before a pattern; none leaves it out.

    Raises:
        UsageError: The model can't be divided so, ranks are left over, or the compute time can't be known.
    """
    check(hand_over.prefill, hand_over.model)
    check(hand_over.decode, hand_over.model)
    check_workers(prefill, decode)
    order = rail_order(prefill.tp, decode.tp) if rail else tuple(range(decode.tp))
    loads: tuple[list[int], list[int]] = ([0] * prefill.count, [0] * decode.count)
    patterns = []
    for number, batch in enumerate(made):
        workers = worker_of(number, loads[0], assignment), worker_of(number, loads[1], assignment)
        matrix = batch_matrix(hand_over.sizes(batch.lengths), prefill, decode, workers, order)
        for load, worker in zip(loads, workers, strict=True):
            load[worker] += matrix.total
        patterns.append(Pattern(batch, matrix, workers, _compute(hand_over, batch, prefill, flops)))
    return patterns


def _compute(hand_over: HandOver, batch: Batch, prefill: Workers, flops: float | None) -> float | None:
    if flops is None:
        return None
    seconds = compute_seconds(hand_over.model, batch.lengths, flops, prefill.tp * prefill.cp)
    if seconds is None:
        raise UsageError(
            f"the compute time of {hand_over.model.name} isn't known without its parameters",
            "give --parameters, those active for a token, or leave --flops out",
        )
    return seconds


def write_patterns(folder: Path, patterns: Sequence[Pattern], made_from: dict[str, Any]) -> None:
    """Write `matrix_N.txt` of each pattern, in exact bytes, and `metadata.yaml`, which kvdeck and upstream read.

    Args:
        folder: Made if it isn't there.
        patterns: The set.
        made_from: All that the set can be made from again, kept under `generated`.

    Raises:
        OSError: A file can't be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for number, pattern in enumerate(patterns):
        path = folder / f"matrix_{number}.txt"
        path.write_text(matrix_text(pattern.matrix))
        entries.append({
            "matrix_file": str(path.absolute()),
            "metadata": {
                "isl": pattern.batch.tokens,
                "lengths": list(pattern.batch.lengths),
                "bytes": pattern.matrix.total,
                "prefill_worker": pattern.workers[0],
                "decode_worker": pattern.workers[1],
            },
            **({} if pattern.compute_s is None else {"sleep_before_launch_sec": pattern.compute_s}),
        })  # fmt: skip
    (folder / "metadata.yaml").write_text(dump_yaml({"traffic_patterns": entries, "generated": made_from}))
