"""A traffic test, measured: its ranks opened and prepared, each pattern alone, all in sequence, and verified."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from kvdeck.engine.io.loop import CancelledError
from kvdeck.engine.traffic.config import TrafficPattern
from kvdeck.engine.traffic.rank_set import PatternVisit, RankSet
from kvdeck.engine.traffic.spec import TrafficSpec
from kvdeck.engine.traffic.upstream_result import sequential_result, single_result
from kvdeck.engine.traffic.workload import WorkloadOrder
from kvdeck.sessions.model import events
from kvdeck.sessions.model.traffic import MOST_CELLS, PatternPlan, RankPart, VisitPhase, VisitRecord

Emit = Callable[[events.Event], object]
_TOLD_S = 0.25
"""Time between two events of the same kind that only tell progress."""


def plan_of(number: int, pattern: TrafficPattern) -> PatternPlan:
    """Return the record of a pattern."""
    matrix = pattern.matrix
    cells = tuple((source, to, size) for source, row in enumerate(matrix.rows) for to, size in enumerate(row) if size)
    return PatternPlan(
        number,
        matrix.ranks,
        "READ" if pattern.operation == "READ" else "WRITE",
        pattern.memory or "DRAM",
        pattern.shards,
        matrix.total,
        matrix.sent,
        matrix.received,
        cells if len(cells) <= MOST_CELLS else None,
        pattern.sleep_before_s,
        pattern.sleep_after_s,
        dict(pattern.metadata or {}),
    )


class VisitLog:
    """Passes visits on to the session's log, several in one event."""

    def __init__(self, emit: Emit) -> None:
        self._emit, self._told = emit, time.monotonic()
        self._kept: list[VisitRecord] = []

    def add(self, visit: VisitRecord) -> None:
        """Keep a visit, and write those kept if it is time."""
        self._kept.append(visit)
        if time.monotonic() - self._told >= _TOLD_S:
            self.flush()

    def flush(self) -> None:
        """Write the visits kept."""
        if self._kept:
            self._emit(events.PatternsMoved(time.monotonic_ns(), tuple(self._kept)))
        self._kept, self._told = [], time.monotonic()


class TrafficTest:
    """One test on ranks that are started: `prepare`, `measure` and `verify`, in this order.

    Raises RunFailedError if a rank is lost, CancelledError if the test is cancelled, KvdeckError if a transfer failed.
    """

    def __init__(self, spec: TrafficSpec, ranks: RankSet, emit: Emit, cancelled: Callable[[], bool]) -> None:
        self._spec, self._ranks, self._emit, self._cancelled = spec, ranks, emit, cancelled
        self._visits = VisitLog(emit)
        self._prepared_s = 0.0
        self._began = time.time()

    def _check(self) -> None:
        if self._cancelled():
            raise CancelledError("cancelled")

    def prepare(self) -> None:
        """Make the requests of all patterns."""
        patterns, began, told = self._spec.patterns, time.perf_counter(), time.monotonic()

        def progress(count: int, descriptors: int) -> None:
            nonlocal told
            self._check()
            now = time.monotonic()
            if count == len(patterns) or now - told >= _TOLD_S:
                told = now
                self._prepared_s = time.perf_counter() - began
                self._emit(events.TrafficPrepared(time.monotonic_ns(), count, descriptors, self._prepared_s))

        self._ranks.prepare(progress)

    def measure(self) -> None:
        """Carry out all visits, and emit the result in upstream's form."""
        self._ranks.start_series()
        try:
            result = self._single() if self._spec.mode == "single" else self._sequential()
        finally:
            self._visits.flush()
        self._ranks.end_series()
        self._emit(events.TrafficEnded(time.monotonic_ns(), result))

    def _visit(self, number: int, phase: VisitPhase, iteration: int, count: int = 1) -> VisitRecord:
        self._check()
        record = self._record(self._ranks.visit(number, count), phase, iteration)
        self._visits.add(record)
        return record

    def _record(self, visit: PatternVisit, phase: VisitPhase, iteration: int) -> VisitRecord:
        pattern = self._spec.patterns[visit.pattern]
        parts = tuple(
            RankPart(rank, pattern.initiated(rank) * visit.count, part.start, part.posted, part.done, part.arrived)
            for rank, part in sorted(visit.ranks.items())
        )
        return VisitRecord(visit.pattern, phase, iteration, visit.count, parts)

    def _begun(self, number: int, phase: VisitPhase, iteration: int, at: int) -> None:
        self._emit(events.PatternBegun(time.monotonic_ns(), number, phase, iteration, at))

    def _compare_clocks(self) -> None:
        """Measure other hosts' clocks again, since they drift, and emit how they stand."""
        self._ranks.compare_clocks()
        for host, offset, error in self._ranks.clocks:
            self._emit(events.ClockCompared(time.monotonic_ns(), host, offset, error))

    def _single(self) -> dict[str, object]:
        """Measure one pattern in successive iterations, without a barrier between them."""
        (pattern,), (iterations, warmup, _) = self._spec.patterns, self._spec.counts
        visit = None
        if pattern.initiators:
            self._compare_clocks()
            if warmup:
                self._ranks.visit(0, warmup)
            self._begun(0, "together", 0, time.monotonic_ns())
            visit = self._visit(0, "together", 0, iterations)
        return single_result(pattern, visit, iterations, self._began, self._prepared_s)

    def _sequential(self) -> dict[str, object]:
        """Measure each pattern alone, and then all in sequence, several times."""
        patterns, (iterations, warmup, isolation) = self._spec.patterns, self._spec.counts
        alone: list[list[VisitRecord]] = [[] for _ in patterns]
        for number, pattern in enumerate(patterns):
            if not pattern.initiators:
                continue
            self._compare_clocks()
            for _ in range(warmup):
                self._check()
                self._ranks.visit(number)
            if isolation:
                self._begun(number, "alone", 0, time.monotonic_ns())
            alone[number] = [self._visit(number, "alone", turn) for turn in range(isolation)]
        self._visits.flush()
        isolated_at = time.time()
        epoch_ns = time.time_ns() - time.perf_counter_ns()
        starts: list[float] = []
        passes: list[dict[int, VisitRecord]] = []
        for iteration in range(iterations):
            self._compare_clocks()
            starts.append(time.time())
            passes.append(self._workload(iteration))
        metadata = {
            "ts": self._began,
            "prepare_tp_time": self._prepared_s,
            "sol_calculation_ts": isolated_at,
            "finished_ts": time.time(),
        }
        return sequential_result(patterns, alone, passes, epoch_ns, metadata, starts)

    def _workload(self, iteration: int) -> dict[int, VisitRecord]:
        found = {}
        for visit in workload_pass(
            self._spec.patterns, self._ranks, lambda number, at: self._begun(number, "together", iteration, at)
        ):
            record = found[visit.pattern] = self._record(visit, "together", iteration)
            self._visits.add(record)
        return found

    def verify(self) -> None:
        """Move each pattern once more between poisoned receivers, compare every byte, keep how messages begin."""
        for number, pattern in enumerate(self._spec.patterns):
            self._check()
            wrong = self._ranks.verify(number)
            self._emit(
                events.PatternVerified(time.monotonic_ns(), number, pattern.matrix.total, tuple(wrong[:MOST_WRONG]))
            )
            if self._spec.print_received:
                heads = tuple(tuple(one) for one in self._ranks.heads(number)[:MOST_RECEIVED])
                self._emit(events.MessagesReceived(time.monotonic_ns(), number, heads))


MOST_WRONG = 20
"""Most wrong cells of a pattern that are named."""
MOST_RECEIVED = 4096
"""Most messages of a pattern whose beginnings are kept."""


def workload_pass(
    patterns: Sequence[TrafficPattern],
    ranks: RankSet,
    begun: Callable[[int, int], object] = lambda _, __: None,
) -> list[PatternVisit]:
    """Carry out all patterns once, in sequence for each rank; return the visits as they were completed.

    Args:
        patterns: The patterns.
        ranks: Their ranks, in a series.
        begun: Called with each pattern's number and the time of its start.
    """
    order = WorkloadOrder(patterns, time.perf_counter_ns())
    found: list[PatternVisit] = []
    while not order.finished:
        for number, earliest in order.ready():
            begun(number, ranks.begin(number, earliest_ns=earliest))
        _, visit, rank = ranks.next_done()
        if visit.complete:
            found.append(visit)
        order.end(visit.pattern, rank, visit.ranks[rank].free)
    return found
