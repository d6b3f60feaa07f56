"""All the lanes of a run, driven as one: they begin each visit together, and their times come back as one."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kvdeck.engine.transfer.calls import Remote
from kvdeck.engine.transfer.lane import Lane, LaneSetup
from kvdeck.engine.transfer.loop import Visit
from kvdeck.engine.transfer.rendezvous import Board

_HEADSTART_NS = 3_000_000  # for a call to reach the other processes


@dataclass(frozen=True, slots=True)
class Prepared:
    """What preparing a step cost and gave."""

    prep_ns: tuple[int, ...]
    list_ns: int
    descriptors: int
    """Descriptors in one request, as they reach the backend."""


class Crew:
    """Rank 0's lane, and one process for each further thread."""

    def __init__(self, setups: list[LaneSetup], cancelled: Callable[[], bool]) -> None:
        self._board: Board | None = None
        self._others: list[Remote] = []
        own = f"kvdeck-lane0-{os.getpid()}"
        if len(setups) > 1:
            self._board = Board()
            board = self._board
            self._others = [
                Remote(board, "kvdeck.engine.transfer.rank", f"kvdeck-lane{index}") for index in range(1, len(setups))
            ]
        opening = [
            remote.start("open", setup=dataclasses.asdict(setup))
            for remote, setup in zip(self._others, setups[1:], strict=True)
        ]
        self._lane = Lane(setups[0], own, cancelled)
        for remote, number in zip(self._others, opening, strict=True):
            remote.result(number)

    def _everywhere(self, method: str, *, begin_together: bool = False, **arguments: Any) -> list[Any]:
        """Call a method on every lane at once; rank 0's result comes first, unconverted."""
        if begin_together and self._others:
            arguments["begin_ns"] = time.perf_counter_ns() + _HEADSTART_NS
        calls = [remote.start(method, **arguments) for remote in self._others]
        first = getattr(self._lane, method)(**arguments)
        return [first, *(remote.result(call) for remote, call in zip(self._others, calls, strict=True))]

    def prepare(self, step: int, layout: str, batch: int, depth: int, merge: bool) -> Prepared:
        found = self._everywhere("prepare", step=step, layout=layout, batch=batch, depth=depth, merge=merge)
        times = tuple(time_ns for one in found for time_ns in one["prep_ns"])
        return Prepared(times, max(one["list_ns"] for one in found), found[0]["descriptors"])

    def visit(self, step: int, count: int) -> Visit:
        """`count` requests on every lane, timed from the first start to the last end."""
        visits = [
            found if isinstance(found, Visit) else Visit(**found)
            for found in self._everywhere("visit", begin_together=True, step=step, count=count)
        ]
        return Visit(
            min(visit.start_ns for visit in visits),
            max(visit.end_ns for visit in visits),
            tuple(time_ns for visit in visits for time_ns in visit.post_ns),
            tuple(time_ns for visit in visits for time_ns in visit.transfer_ns),
        )

    def reference(self, batch: int, count: int, at: int) -> int:
        """Wall time in ns of the same bytes on every lane by plain means."""
        spans = self._everywhere("reference", begin_together=True, batch=batch, count=count, at=at)
        return int(max(end for _, end in spans) - min(start for start, _ in spans))

    def verify(self, step: int, seed: int) -> str | None:
        """What is wrong with the bytes on the first lane that has something wrong."""
        return next((found for found in self._everywhere("verify", step=step, seed=seed) if found), None)

    def attend(self, busy: bool) -> None:
        self._everywhere("attend", busy=busy)

    def release(self, step: int) -> None:
        self._everywhere("release", step=step)

    def close(self) -> None:
        """End every lane and its processes."""
        for remote in self._others:
            remote.close()
        self._lane.close()
        if self._board is not None:
            self._board.close()
