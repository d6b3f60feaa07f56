"""Where prefill and decode workers sit: their ranks, and who hands over to whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.units import many


@dataclass(frozen=True, slots=True)
class Workers:
    """All workers of one side: each has `tp × pp × cp` consecutive ranks, tensor-parallel ranks innermost."""

    tp: int
    pp: int
    cp: int
    nodes: int
    gpus_per_node: int
    first_rank: int = 0

    @property
    def ranks(self) -> int:
        """Ranks of the side."""
        return self.nodes * self.gpus_per_node

    @property
    def size(self) -> int:
        """Ranks of one worker."""
        return self.tp * self.pp * self.cp

    @property
    def count(self) -> int:
        return self.ranks // self.size

    def rank(self, worker: int, tp: int, pp: int = 0, cp: int = 0) -> int:
        """Return the rank of a worker's part."""
        return self.first_rank + worker * self.size + (pp * self.cp + cp) * self.tp + tp


def check_workers(prefill: Workers, decode: Workers) -> None:
    """Check that whole workers fill each side.

    Raises:
        UsageError: A worker doesn't fit, or ranks are left over, whose KV upstream's generator drops.
    """
    for name, side in (("prefill", prefill), ("decode", decode)):
        shape = f"TP {side.tp} × PP {side.pp} × CP {side.cp}"
        if side.ranks % side.size:
            left = side.ranks % side.size
            raise UsageError(
                f"{name}: workers of {many(side.size, 'rank')} ({shape}) don't fill {many(side.ranks, 'rank')}: "
                f"{left} are left over",
                f"give nodes and ranks per node whose product is a multiple of {side.size}",
            )


def worker_of(batch: int, loads: Sequence[int], assignment: str) -> int:
    """Return the worker that gets a batch.

    Args:
        batch: Its number.
        loads: Bytes that each worker got so far.
        assignment: `round-robin`, or `least-loaded`: the one with the fewest bytes so far.
    """
    return batch % len(loads) if assignment == "round-robin" else loads.index(min(loads))


def rail_order(prefill_tp: int, decode_tp: int) -> tuple[int, ...]:
    """Return the place within its worker of each decode rank, so that prefill rank k sends to places k + n × TP: its
    own rail where a node has as many ranks.

    Raises:
        UsageError: The decode TP is no multiple of the prefill TP.
    """
    if decode_tp % prefill_tp:
        raise UsageError(
            f"a rail order needs a decode TP ({decode_tp}) that is a multiple of the prefill TP ({prefill_tp})",
            "change one of them, or leave --rail-optimized out",
        )
    fan = decode_tp // prefill_tp
    return tuple(index // fan + index % fan * prefill_tp for index in range(decode_tp))
