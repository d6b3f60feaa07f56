"""The ranks of a traffic test as processes of this host: started, prepared, and led through visits.

A visit is one pattern carried out once, or several times in succession, from a start time that all of its initiators
share.
"""

from __future__ import annotations

import functools
import os
import queue
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from kvdeck.engine.ranks.board import Board
from kvdeck.engine.ranks.rank_process import RankProcess
from kvdeck.engine.threads import start_thread
from kvdeck.engine.traffic.config import TrafficPattern
from kvdeck.engine.traffic.placement import RankMemory, divide, messages, process_name
from kvdeck.sessions.errors import RunFailedError

_HEADSTART_NS = 3_000_000
"""Time for a visit's event to reach every process before its start."""
_WAIT_SECONDS = 1e6
"""A rank limits its own waits, and a pattern may begin after a long sleep."""


@dataclass(slots=True)
class RankTimes:
    """One initiator's times in a visit, in ns of `CLOCK_MONOTONIC`."""

    start: int = 0
    posted: int = 0
    done: int = 0
    """All its requests are done, as NIXL tells the initiator."""
    arrived: int = 0
    """Its last notification has arrived at the target; 0 for READ."""
    missing: int = 1
    """Reports that haven't come."""

    @property
    def end(self) -> int:
        """A WRITE ends at the arrival: DONE alone does not mean that the target has the bytes."""
        return self.arrived or self.done

    @property
    def free(self) -> int:
        """Time from which the rank can begin another pattern."""
        return max(self.done, self.arrived)


@dataclass(slots=True)
class PatternVisit:
    """A visit, complete once no rank misses a report."""

    pattern: int
    count: int
    ranks: dict[int, RankTimes] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        return not any(times.missing for times in self.ranks.values())


class RanksHere:
    """Rank processes of this host. Errors: RunFailedError if a rank is lost; it names the rank and its end."""

    def __init__(self, patterns: Sequence[TrafficPattern], regions: Sequence[RankMemory], processes: int) -> None:
        self.patterns = patterns
        self.divided = divide(len(regions), processes)
        self._process_of = {rank: number for number, ranks in enumerate(self.divided) for rank in ranks}
        self._regions = regions
        self._board = Board()
        self._series, self._visits = 0, 0
        self._events: list[int] = []
        self._running: list[int] = []
        self._reports: queue.SimpleQueue[tuple[int, list[Any]] | Exception] = queue.SimpleQueue()
        self._open: dict[int, PatternVisit] = {}
        self._receiving = [self._receivers(pattern) for pattern in patterns]
        self._remotes = [
            RankProcess(self._board, "kvdeck.engine.traffic.rank_host", process_name(ranks)) for ranks in self.divided
        ]

    def _receivers(self, pattern: TrafficPattern) -> dict[int, set[int]]:
        """Return the processes in which each sender's messages of a pattern arrive."""
        found: dict[int, set[int]] = {}
        for source in pattern.matrix.senders:
            row = pattern.matrix.rows[source]
            found[source] = {self._process_of[rank] for rank, size in enumerate(row) if size}
        return found

    def process_of(self, rank: int) -> int:
        """Return the number of the process that plays a rank."""
        return self._process_of[rank]

    def _everywhere(self, method: str, **arguments: Any) -> list[Any]:
        calls = [remote.start(method, **arguments) for remote in self._remotes]
        return [remote.result(call) for remote, call in zip(self._remotes, calls, strict=True)]

    def open(self) -> None:
        """Register every rank's region, and exchange one record per rank."""
        cores = sorted(os.sched_getaffinity(0))
        pinned = len(self._remotes) <= len(cores)
        calls = []
        for number, (remote, ranks) in enumerate(zip(self._remotes, self.divided, strict=True)):
            own = [(rank, self._regions[rank].size, self._regions[rank].receive_offset) for rank in ranks]
            calls.append(remote.start("open", ranks=own, core=cores[number] if pinned else None))
        opened = [remote.result(call) for remote, call in zip(self._remotes, calls, strict=True)]
        self._everywhere("connect", opened=opened)

    def prepare(self, progress: Callable[[int], object]) -> int:
        """Create the requests of every pattern; return the descriptors of one side, over all patterns.

        Args:
            progress: Called with the number of patterns that are ready.
        """
        descriptors = 0
        for number, pattern in enumerate(self.patterns):
            parts: list[list[tuple[int, ...]]] = [[] for _ in self.divided]
            for one in messages(pattern, self._regions):
                row = one.source, one.destination, one.size, one.source_offset, one.destination_offset
                for process in {self._process_of[one.source], self._process_of[one.destination]}:
                    parts[process].append(row)
            calls = [
                remote.start(
                    "prepare", number=number, operation=pattern.operation, shards=pattern.shards, messages=part
                )
                for remote, part in zip(self._remotes, parts, strict=True)
            ]
            descriptors += sum(remote.result(call) for remote, call in zip(self._remotes, calls, strict=True))
            progress(number + 1)
        return descriptors

    def start_series(self) -> None:
        """Begin a series of visits."""
        self._series += 1
        self._events = [0] * len(self._remotes)
        series = f"series{self._series}"
        self._running = [remote.start("run", series=series) for remote in self._remotes]
        for number, remote in enumerate(self._remotes):
            start_thread(f"reports-{remote.rank}", functools.partial(self._read, series, number, remote.rank))

    def _read(self, series: str, number: int, name: str) -> None:
        count = 0
        try:
            while True:
                report = self._board.get(f"report/{series}/{name}/{count}", _WAIT_SECONDS)
                if report is None:
                    return
                self._reports.put((number, report))
                count += 1
        except Exception as error:  # raised again where the reports are awaited
            self._reports.put(error)

    def end_series(self) -> None:
        """Wait until every process has left the series; all visits must be complete."""
        self._send(None)
        for remote, call in zip(self._remotes, self._running, strict=True):
            remote.result(call)

    def _send(self, event: Any) -> None:
        for number, remote in enumerate(self._remotes):
            self._board.put(f"series{self._series}/{remote.rank}/{self._events[number]}", event)
            self._events[number] += 1

    def begin(self, pattern: int, count: int = 1, earliest_ns: int = 0) -> int:
        """Begin a visit at `earliest_ns`, or as soon as every process can know of it; return its number."""
        self._visits += 1
        visit = PatternVisit(pattern, count)
        traffic = self.patterns[pattern]
        for rank in traffic.initiators:
            arrivals = len(self._receiving[pattern][rank]) if traffic.operation == "WRITE" else 0
            visit.ranks[rank] = RankTimes(missing=1 + arrivals)
        self._open[self._visits] = visit
        at = max(earliest_ns, time.perf_counter_ns() + _HEADSTART_NS)
        self._send((pattern, self._visits, at, count))
        return self._visits

    def next_done(self) -> tuple[int, PatternVisit, int]:
        """Wait until an initiator has ended its part in a visit; return the visit's number, the visit and the rank."""
        while True:
            report = self._reports.get()
            if isinstance(report, Exception):
                if self._board.lost is not None:
                    raise RunFailedError(f"{self._board.lost} during the test", "start it again") from report
                raise report
            kind, number, rank, *times = report[1]
            visit = self._open[number]
            part = visit.ranks[rank]
            if kind == "sent":
                part.start, part.posted, part.done = times
            else:
                part.arrived = max(part.arrived, *times)
            part.missing -= 1
            if visit.complete:
                del self._open[number]
            if not part.missing:
                return number, visit, rank

    def visit(self, pattern: int, count: int = 1) -> PatternVisit:
        """Carry out one visit alone; the pattern must have initiators."""
        self.begin(pattern, count)
        while True:
            _, visit, _ = self.next_done()
            if visit.complete:
                return visit

    def verify(self, pattern: int) -> list[str]:
        """Carry out a pattern alone between poisoned receivers, and compare every byte; return what differs."""
        self._everywhere("fill", number=pattern)
        self._everywhere("poison")
        if self.patterns[pattern].initiators:
            self.start_series()
            self.visit(pattern)
            self.end_series()
        return [text for found in self._everywhere("check", number=pattern) for text in found]

    def heads(self, pattern: int) -> list[list[Any]]:
        """Return destination, source, bytes, first bytes and CRC-32 of each message of the pattern received last."""
        return sorted(row for found in self._everywhere("heads", number=pattern) for row in found)

    def close(self) -> None:
        """End the rank processes."""
        for remote in self._remotes:
            remote.close()
        self._board.leave()
