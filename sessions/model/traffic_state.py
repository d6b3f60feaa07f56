"""State of a traffic test, folded from the events of its log; `RunState.traffic` holds it."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

import msgspec
from msgspec.structs import replace

from kvdeck.sessions.model import events
from kvdeck.sessions.model.measures import Interval
from kvdeck.sessions.model.traffic import (
    PatternPlan,
    PatternResult,
    ProcessPlace,
    RankResult,
    Straggler,
    TrafficMode,
    TrafficResult,
    VisitRecord,
)
from kvdeck.sessions.stats import independent_ratio, median_interval, summarise

MOST_SHOWN = 400
"""Newest visits that the timeline has; figures come from all of them."""
LEAST_VALUES = 6
"""Values from which on the extremes cover 95 % of a median's distribution."""


class OpenVisit(msgspec.Struct, frozen=True):
    """A visit that has begun."""

    pattern: int
    phase: str
    iteration: int
    at: int
    """Its start, ns of the writer's clock."""


class PatternState(msgspec.Struct, frozen=True):
    """What has been measured of one pattern. Latencies are in ns, of one iteration each."""

    plan: PatternPlan
    alone: tuple[float, ...] = ()
    together: tuple[float, ...] = ()
    initiator: tuple[float, ...] = ()
    """Time until the last initiator was done, together."""
    bandwidths: tuple[float, ...] = ()
    """Mean of the initiators' GB/s in each visit together."""
    last: dict[int, int] = msgspec.field(default_factory=dict)
    """How often each rank ended last, together."""
    skews: tuple[int, ...] = ()
    """Time between the first and the last process's start, together."""
    verified: bool | None = None
    wrong: tuple[str, ...] = ()

    @property
    def result(self) -> PatternResult:
        """The figures so far."""
        plan, together = self.plan, figure_interval(self.together)
        return PatternResult(
            plan.pattern,
            plan.operation,
            plan.memory,
            plan.shards,
            plan.bytes,
            sum(map(bool, plan.sent)),
            len(plan.initiators),
            _in_ms(figure_interval(self.alone)),
            _in_ms(together),
            summarise([round(one) for one in self.together]),
            _median(self.initiator, 1e6),
            congestion(self.alone, self.together),
            None if together is None or not together.median else plan.bytes / together.median,
            _median(self.bandwidths, 1.0),
            _straggler(self.last),
            _median(self.skews, 1e3),
            self.verified,
            self.wrong,
        )


class RankState(msgspec.Struct, frozen=True):
    """What one rank has moved as initiator, together with others."""

    bytes: int = 0
    busy_ns: int = 0
    last: int = 0

    @property
    def gb_per_s(self) -> float | None:
        return self.bytes / self.busy_ns if self.busy_ns else None


class TrafficState(msgspec.Struct, frozen=True):
    """Current state of a traffic test."""

    mode: TrafficMode = "sequential"
    patterns: tuple[PatternState, ...] = ()
    ranks: tuple[RankState, ...] = ()
    processes: tuple[ProcessPlace, ...] = ()
    iterations: int = 0
    warmup: int = 0
    isolation: int = 0
    verify: bool = False
    region_bytes: int = 0
    prepared: int = 0
    """Patterns whose requests are made."""
    descriptors: int = 0
    prepared_s: float | None = None
    """Seconds of the preparation, so far."""
    clocks: tuple[tuple[str, int, int], ...] = ()
    """Host, its clock minus the writer's as measured last, and the largest error of it, in ns."""
    visits: tuple[VisitRecord, ...] = ()
    """The newest `MOST_SHOWN` visits, for the timeline."""
    current: tuple[OpenVisit, ...] = ()
    """Visits that have begun and are not complete."""
    skews: tuple[int, ...] = ()
    """Start skew of every visit with several processes, in ns."""
    spans: tuple[tuple[int, int, int], ...] = ()
    """First start, last end and bytes of each iteration together, in ns."""
    upstream: dict[str, object] | None = None
    """The result in the form of NIXL's own tool, once the test has ended."""
    received: tuple[tuple[int, int, int, int, str, str], ...] = ()
    """Pattern, destination, source, bytes, first bytes in hex and CRC-32 of each message, if they were asked for."""

    @property
    def rows(self) -> tuple[PatternResult, ...]:
        """The figures of each pattern."""
        return tuple(pattern.result for pattern in self.patterns)

    @property
    def rank_rows(self) -> tuple[RankResult, ...]:
        """The figures of each rank."""
        hosts = {rank: place.host for place in self.processes for rank in range(place.first, place.last + 1)}
        return tuple(
            RankResult(rank, hosts.get(rank, ""), state.bytes, state.gb_per_s, state.last)
            for rank, state in enumerate(self.ranks)
        )

    @property
    def fraction(self) -> float:
        """Part of the visits that are complete, 0 to 1; the preparation counts as a tenth."""
        count = len(self.patterns)
        if not count:
            return 0.0
        moving = sum(bool(pattern.plan.bytes) for pattern in self.patterns)
        wanted = moving * (self.isolation + self.iterations) if self.mode == "sequential" else moving
        done = sum(len(pattern.alone) + len(pattern.together) for pattern in self.patterns)
        return 0.1 * self.prepared / count + 0.9 * (min(1.0, done / wanted) if wanted else 1.0)

    @property
    def gb_per_s(self) -> float | None:
        """All bytes together over the time of the iterations, sleeps included."""
        spent = sum(end - start for start, end, _ in self.spans)
        return sum(size for _, _, size in self.spans) / spent if spent else None

    @property
    def verified(self) -> bool | None:
        """True if every pattern was right, False if one was not; None if not all are compared."""
        told = [pattern.verified for pattern in self.patterns]
        if False in told:
            return False
        return True if told and None not in told else None

    @property
    def result(self) -> TrafficResult:
        """The whole, as `session.json` keeps it."""
        return TrafficResult(
            self.mode,
            len(self.ranks),
            len(self.processes),
            tuple(dict.fromkeys(place.host for place in self.processes if place.host)),
            self.iterations,
            self.rows,
            self.rank_rows,
            self.prepared_s,
            self.descriptors,
            self.region_bytes,
            self.gb_per_s,
            summarise(self.skews),
            max((error / 1e3 for _, _, error in self.clocks), default=None),
            self.verified,
        )


def congestion(alone: Sequence[float], together: Sequence[float]) -> Interval | None:
    """Return the congestion ratio of latencies: together over alone; None without both.

    With fewer than `LEAST_VALUES` of either, there is no interval: its bounds are the ratio.
    """
    near, far = figure_interval(alone), figure_interval(together)
    if near is None or far is None or not near.median:
        return None
    ratio = far.median / near.median
    if not near.known or not far.known:
        return Interval(ratio, ratio, ratio)
    return independent_ratio(near, far) or Interval(ratio, ratio, ratio)


def figure_interval(values: Sequence[float]) -> Interval | None:
    """Return the median and its interval; bounds equal to it with fewer than `LEAST_VALUES` values."""
    found = median_interval(values)
    if found is None or len(values) >= LEAST_VALUES:
        return found
    return Interval(found.median, found.median, found.median)


def _in_ms(found: Interval | None) -> Interval | None:
    return found and Interval(found.median / 1e6, found.low / 1e6, found.high / 1e6)


def _median(values: Sequence[float], unit: float) -> float | None:
    return statistics.median(values) / unit if values else None


def _straggler(last: dict[int, int]) -> Straggler | None:
    if not last:
        return None
    rank = max(last, key=lambda one: (last[one], -one))
    return Straggler(rank, last[rank], sum(last.values()))


def take(state: TrafficState | None, event: events.TrafficEvent) -> TrafficState:
    """Return the state after one more event."""
    if isinstance(event, events.TrafficPlanned):
        ranks = event.patterns[0].ranks if event.patterns else 0
        return TrafficState(
            event.mode,
            tuple(map(PatternState, event.patterns)),
            (RankState(),) * ranks,
            event.processes,
            event.iterations,
            event.warmup,
            event.isolation,
            event.verify,
            event.region_bytes,
        )
    state = state or TrafficState()
    if isinstance(event, events.TrafficPrepared):
        return replace(state, prepared=event.patterns, descriptors=event.descriptors, prepared_s=event.seconds)
    if isinstance(event, events.ClockCompared):
        others = tuple(one for one in state.clocks if one[0] != event.host)
        worst = max((event.error_ns, *(error for host, _, error in state.clocks if host == event.host)))
        return replace(state, clocks=(*others, (event.host, event.offset_ns, worst)))
    if isinstance(event, events.PatternBegun):
        begun = OpenVisit(event.pattern, event.phase, event.iteration, event.at)
        kept = (one for one in state.current if one.pattern != event.pattern and one.phase == event.phase)
        return replace(state, current=(*kept, begun))
    if isinstance(event, events.PatternsMoved):
        return _moved(state, event.visits)
    if isinstance(event, events.PatternVerified):
        return _pattern(state, event.pattern, verified=not event.wrong, wrong=event.wrong)
    if isinstance(event, events.MessagesReceived):
        return replace(state, received=(*state.received, *((event.pattern, *one) for one in event.messages)))
    return replace(state, upstream=event.upstream)


def _pattern(state: TrafficState, number: int, **changes: object) -> TrafficState:
    if not 0 <= number < len(state.patterns):
        return state
    changed = replace(state.patterns[number], **changes)
    return replace(state, patterns=(*state.patterns[:number], changed, *state.patterns[number + 1 :]))


def _moved(state: TrafficState, visits: Iterable[VisitRecord]) -> TrafficState:
    known = [one for one in visits if 0 <= one.pattern < len(state.patterns) and one.parts]
    by_pattern: dict[int, list[VisitRecord]] = {}
    for one in known:
        by_pattern.setdefault(one.pattern, []).append(one)
    patterns = list(state.patterns)
    for number, own in by_pattern.items():
        patterns[number] = _measured(patterns[number], own, state.processes)
    skews = (skew_ns(one, state.processes) for one in known)
    together = [one for one in known if one.phase == "together"]
    closed = {(one.pattern, one.phase) for one in together}
    # A pattern alone has begun once for all of its visits.
    counts = {number: len(patterns[number].alone) for number in by_pattern}
    closed |= {(number, "alone") for number, count in counts.items() if count >= state.isolation}
    return replace(
        state,
        patterns=tuple(patterns),
        ranks=_ranks(state.ranks, together),
        visits=(*state.visits, *known)[-MOST_SHOWN:],
        current=tuple(one for one in state.current if (one.pattern, one.phase) not in closed),
        skews=(*state.skews, *(skew for skew in skews if skew is not None)),
        spans=_spans(state.spans, together),
    )


def _measured(pattern: PatternState, visits: Sequence[VisitRecord], places: Sequence[ProcessPlace]) -> PatternState:
    together = [one for one in visits if one.phase == "together"]
    last = dict(pattern.last)
    for one in together:
        if len(one.parts) > 1:
            last[one.last] = last.get(one.last, 0) + 1
    skews = (skew_ns(one, places) for one in together)
    return replace(
        pattern,
        alone=(*pattern.alone, *(one.latency_ns for one in visits if one.phase == "alone")),
        together=(*pattern.together, *(one.latency_ns for one in together)),
        initiator=(*pattern.initiator, *((one.done - one.start) / one.count for one in together)),
        bandwidths=(*pattern.bandwidths, *map(mean_bandwidth, together)),
        last=last,
        skews=(*pattern.skews, *(skew for skew in skews if skew is not None)),
    )


def mean_bandwidth(visit: VisitRecord) -> float:
    """Return the mean over a visit's initiators of own bytes over own time, in GB/s."""
    return statistics.fmean(part.bytes / max(1, part.end - part.start) for part in visit.parts)


def skew_ns(visit: VisitRecord, places: Sequence[ProcessPlace]) -> int | None:
    """Return the time from the first process's start to the last one's; None with initiators in one process."""
    process = {rank: number for number, one in enumerate(places) for rank in range(one.first, one.last + 1)}
    first: dict[int, int] = {}
    for part in visit.parts:
        number = process.get(part.rank, 0)
        first[number] = min(part.start, first.get(number, part.start))
    return max(first.values()) - min(first.values()) if len(first) > 1 else None


def _ranks(ranks: tuple[RankState, ...], visits: Sequence[VisitRecord]) -> tuple[RankState, ...]:
    if not visits:
        return ranks
    found = list(ranks)
    for one in visits:
        last = one.last if len(one.parts) > 1 else None
        for part in one.parts:
            if 0 <= part.rank < len(found):
                old = found[part.rank]
                found[part.rank] = RankState(
                    old.bytes + part.bytes, old.busy_ns + part.end - part.start, old.last + (part.rank == last)
                )
    return tuple(found)


def _spans(spans: tuple[tuple[int, int, int], ...], visits: Sequence[VisitRecord]) -> tuple[tuple[int, int, int], ...]:
    found = list(spans)
    for one in visits:
        size = sum(part.bytes for part in one.parts)
        if one.iteration < len(found):
            start, end, moved = found[one.iteration]
            found[one.iteration] = min(start, one.start), max(end, one.end), moved + size
        else:
            found.append((one.start, one.end, size))
    return tuple(found)
