"""Replicas: ranks of one engine that each count the same requests and tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

RANKS = ("tp_rank", "pp_rank", "moe_ep_rank")
"""Labels of ranks that share each request, as SGLang writes them. A `dp_rank` has requests of its own."""


class Labelled(Protocol):
    """A series of a source."""

    @property
    def source(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def labels(self) -> dict[str, str]: ...


Row = TypeVar("Row")


def one_replica(rows: Iterable[Row], series: Callable[[Row], Labelled]) -> list[Row]:
    """Return the rows without those of further ranks: of series that differ by their rank only, the lowest rank's.

    Args:
        series: Returns the series of a row.
    """
    every = list(rows)
    lowest: dict[tuple[object, ...], tuple[tuple[int, ...], int]] = {}
    further: set[int] = set()
    for place, row in enumerate(every):
        one = series(row)
        if not any(rank in one.labels for rank in RANKS):
            continue
        ranks = tuple(_number(one.labels.get(rank, "")) for rank in RANKS)
        others = sorted((label, value) for label, value in one.labels.items() if label not in RANKS)
        key = one.source, one.name, *others
        if key not in lowest:
            lowest[key] = ranks, place
        elif ranks < lowest[key][0]:
            further.add(lowest[key][1])
            lowest[key] = ranks, place
        else:
            further.add(place)
    return [row for place, row in enumerate(every) if place not in further]


def _number(rank: str) -> int:
    return int(rank) if rank.isdecimal() else 0
