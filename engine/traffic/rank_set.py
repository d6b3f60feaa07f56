"""The ranks of a traffic test as processes, of this host or of several: prepared, and led through visits.

A visit is one pattern carried out once, or several times in succession, from a start time that all of its initiators
share.
"""

from __future__ import annotations

import functools
import os
import queue
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from kvdeck.engine.host.clock import clock_identity
from kvdeck.engine.io.loop import CancelledError
from kvdeck.engine.ranks.board import Board
from kvdeck.engine.ranks.rank_process import RankProcess
from kvdeck.engine.ranks.rendezvous import RootRendezvous
from kvdeck.engine.threads import start_thread
from kvdeck.engine.traffic.config import TrafficPattern
from kvdeck.engine.traffic.placement import RankMemory, messages, process_name
from kvdeck.sessions.errors import RunFailedError

RANK_MODULE = "kvdeck.engine.traffic.rank_host"
_HEADSTART_NS = 3_000_000
"""Least time for a visit's event to reach every process before its start."""
_MOST_HEADSTART_NS = 200_000_000
_DELAYS = 64
_CLOCK_QUESTIONS = 16
_LOOK_S = 0.2
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


class Member(Protocol):
    """Calls to a process that plays ranks; `RankProcess` and `Remote` are such."""

    @property
    def rank(self) -> str:
        """Its name at the rendezvous."""

    def start(self, method: str, **arguments: Any) -> int: ...
    def result(self, number: int) -> Any: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Seated:
    """A process of the test: its calls, the ranks that it plays, and its host."""

    member: Member
    ranks: range
    host: str = ""
    """Label; empty for this host."""
    core: int | None = None
    """Core that it is to run on; None leaves it to the kernel."""


@dataclass(slots=True)
class _Clock:
    """A process's clock: what is to be added to this process's clock to get it, and the error, in ns."""

    offset: int = 0
    error: int = 0
    shared: bool = True


def local_members(board: Board, divided: Sequence[range]) -> list[Seated]:
    """Start a process of this host for each range of ranks, each on a core of its own if there are enough."""
    cores = sorted(os.sched_getaffinity(0))
    pinned = len(divided) <= len(cores)
    return [
        Seated(RankProcess(board, RANK_MODULE, process_name(ranks)), ranks, "", cores[number] if pinned else None)
        for number, ranks in enumerate(divided)
    ]


class RankSet:
    """The processes of a test. Errors: RunFailedError if a rank is lost; it names the rank and its end."""

    def __init__(
        self,
        board: RootRendezvous,
        patterns: Sequence[TrafficPattern],
        regions: Sequence[RankMemory],
        seated: Sequence[Seated],
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        self.patterns = patterns
        self._seated, self._board, self._cancelled = seated, board, cancelled
        self._process_of = {rank: number for number, one in enumerate(seated) for rank in one.ranks}
        self._regions = regions
        self._series, self._visits = 0, 0
        self._events: list[int] = []
        self._running: list[int] = []
        self._reports: queue.SimpleQueue[tuple[int, list[Any]] | Exception] = queue.SimpleQueue()
        self._open: dict[int, PatternVisit] = {}
        self._sent_at: dict[int, int] = {}
        """When each open visit was sent to the processes."""
        self._delays: deque[int] = deque(maxlen=_DELAYS)
        """Times that the newest events took to reach a process, in ns."""
        self._clocks = [_Clock() for _ in seated]
        self._receiving = [self._receivers(pattern) for pattern in patterns]
        self._members = [one.member for one in seated]

    def _receivers(self, pattern: TrafficPattern) -> dict[int, set[int]]:
        """Return the processes in which each sender's messages of a pattern arrive."""
        found: dict[int, set[int]] = {}
        for source in pattern.matrix.senders:
            row = pattern.matrix.rows[source]
            found[source] = {self._process_of[rank] for rank, size in enumerate(row) if size}
        return found

    def _everywhere(self, method: str, **arguments: Any) -> list[Any]:
        calls = [member.start(method, **arguments) for member in self._members]
        return [member.result(call) for member, call in zip(self._members, calls, strict=True)]

    def open(self) -> None:
        """Register every rank's region, exchange one record per rank, and compare the clocks of other hosts."""
        calls = []
        for one in self._seated:
            own = [(rank, self._regions[rank].size, self._regions[rank].receive_offset) for rank in one.ranks]
            calls.append(one.member.start("open", ranks=own, core=one.core))
        opened = [member.result(call) for member, call in zip(self._members, calls, strict=True)]
        self._everywhere("connect", opened=opened)
        own_clock = clock_identity()
        for clock, told in zip(self._clocks, opened, strict=True):
            clock.shared = bool(own_clock) and told["clock"] == own_clock

    @property
    def clocks(self) -> list[tuple[str, int, int]]:
        """Host, offset and error in ns of each process whose clock isn't this one's."""
        return [
            (one.host or one.member.rank, clock.offset, clock.error)
            for one, clock in zip(self._seated, self._clocks, strict=True)
            if not clock.shared
        ]

    def compare_clocks(self) -> None:
        """Measure the clocks of the processes on other hosts, from the quickest of several questions, in a series."""
        for number, clock in enumerate(self._clocks):
            if clock.shared:
                continue
            best: tuple[int, int] | None = None
            for _ in range(_CLOCK_QUESTIONS):
                asked = time.perf_counter_ns()
                self._send_to(number, ("clock",))
                told = self._report()
                while told[1][0] != "clock":  # a late report of another visit
                    told = self._report()
                answered, there = time.perf_counter_ns(), told[1][1]
                error = (answered - asked) // 2
                if best is None or error < best[1]:
                    best = there - (asked + answered) // 2, error
            assert best is not None
            clock.offset, clock.error = best

    def prepare(self, progress: Callable[[int, int], object]) -> int:
        """Create the requests of every pattern; return the descriptors of one side, over all patterns.

        Args:
            progress: Called with the number of patterns that are ready, and the descriptors so far.
        """
        descriptors = 0
        for number, pattern in enumerate(self.patterns):
            parts: list[list[tuple[int, ...]]] = [[] for _ in self._members]
            for one in messages(pattern, self._regions):
                row = one.source, one.destination, one.size, one.source_offset, one.destination_offset
                for process in {self._process_of[one.source], self._process_of[one.destination]}:
                    parts[process].append(row)
            calls = [
                member.start(
                    "prepare", number=number, operation=pattern.operation, shards=pattern.shards, messages=part
                )
                for member, part in zip(self._members, parts, strict=True)
            ]
            descriptors += sum(member.result(call) for member, call in zip(self._members, calls, strict=True))
            progress(number + 1, descriptors)
        return descriptors

    def start_series(self) -> None:
        """Begin a series of visits."""
        self._series += 1
        self._events = [0] * len(self._members)
        series = f"series{self._series}"
        self._running = [member.start("run", series=series) for member in self._members]
        for number, member in enumerate(self._members):
            start_thread(f"reports-{member.rank}", functools.partial(self._read, series, number, member.rank))

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
        for member, call in zip(self._members, self._running, strict=True):
            member.result(call)

    def _send(self, event: Any) -> None:
        for number in range(len(self._members)):
            self._send_to(number, event)

    def _send_to(self, number: int, event: Any) -> None:
        name = self._members[number].rank
        self._board.put(f"series{self._series}/{name}/{self._events[number]}", event)
        self._events[number] += 1

    def _headstart_ns(self) -> int:
        """Return the time that an event is given to reach every process before its start."""
        slowest = max(self._delays, default=_HEADSTART_NS)
        return min(max(_HEADSTART_NS, 2 * slowest), _MOST_HEADSTART_NS) + max(one.error for one in self._clocks)

    def begin(self, pattern: int, count: int = 1, earliest_ns: int = 0) -> int:
        """Begin a visit at `earliest_ns`, or as soon as every process can know of it; return the time of its start."""
        self._visits += 1
        visit = PatternVisit(pattern, count)
        traffic = self.patterns[pattern]
        for rank in traffic.initiators:
            arrivals = len(self._receiving[pattern][rank]) if traffic.operation == "WRITE" else 0
            visit.ranks[rank] = RankTimes(missing=1 + arrivals)
        self._open[self._visits] = visit
        now = time.perf_counter_ns()
        self._sent_at[self._visits] = now
        at = max(earliest_ns, now + self._headstart_ns())
        for number, clock in enumerate(self._clocks):
            self._send_to(number, ("visit", pattern, self._visits, at + clock.offset, count))
        return at

    def _report(self) -> tuple[int, list[Any]]:
        """Wait for the next report of a process."""
        while True:
            if self._cancelled():
                raise CancelledError("cancelled")
            try:
                report = self._reports.get(timeout=_LOOK_S)
            except queue.Empty:
                continue
            if isinstance(report, Exception):
                if self._board.lost is not None:
                    raise RunFailedError(f"{self._board.lost} during the test", "start it again") from report
                raise report
            return report

    def next_done(self) -> tuple[int, PatternVisit, int]:
        """Wait until an initiator has ended its part in a visit; return the visit's number, the visit and the rank."""
        while True:
            process, (kind, number, rank, *times) = self._report()
            offset = self._clocks[process].offset
            visit = self._open[number]
            part = visit.ranks[rank]
            if kind == "sent":
                heard, part.start, part.posted, part.done = (one - offset for one in times)
                self._delays.append(heard - self._sent_at[number])
            else:
                part.arrived = max(part.arrived, *(one - offset for one in times))
            part.missing -= 1
            if visit.complete:
                del self._open[number], self._sent_at[number]
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
        for member in self._members:
            member.close()
