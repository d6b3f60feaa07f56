"""Comparison of two telemetry sessions by flow: before and after a change of the configuration."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from msgspec.structs import replace

from kvdeck.sessions.buckets import Quantile, added, bounded, quantile, rising
from kvdeck.sessions.model.cache_hits import ANY_PART, HIT_COUNTERS, PROMPT, HitCounter
from kvdeck.sessions.model.metric_names import canonical
from kvdeck.sessions.model.records import Interval, Session, is_same
from kvdeck.sessions.model.replicas import one_replica
from kvdeck.sessions.model.telemetry import CounterTotals, FlowTotals, GaugeTotals, HistogramTotals, TelemetryTotals
from kvdeck.sessions.stats import independent_ratio
from kvdeck.sessions.text.run_report import is_telemetry
from kvdeck.sessions.units import UNKNOWN, duration_text, exact_size_text, number_text, quantity_text

Trend = Literal["faster", "slower", "no difference", "undecided"]
DURATIONS_DIFFER = 1.25
"""Totals of telemetry sessions are not comparable if their lengths differ by more than this factor."""


@dataclass(frozen=True, slots=True)
class FlowRow:
    """One flow in both telemetry sessions."""

    a: FlowTotals
    b: FlowTotals
    ratio: float | None
    """B's median rate while moving over A's: above 1, B is faster."""
    low: float | None
    """95 % interval of the ratio; null if one side has too few samples."""
    high: float | None
    trend: Trend | None
    """Null if the flow moved nothing on one side."""
    same_source: bool
    """True if the source has the same name on both sides; otherwise matched by source kind."""


@dataclass(frozen=True, slots=True)
class NumberRow:
    """A gauge's medians, a counter's growth, or a hit rate, in both telemetry sessions."""

    name: str
    unit: str
    a: float | None
    """Null of a hit rate that this side doesn't have: no such tier, or no queries."""
    b: float | None


@dataclass(frozen=True, slots=True)
class LatencyRow:
    """One latency in both telemetry sessions, with its percentiles by interpolation in a histogram's bucket."""

    what: str
    unit: str
    source: str
    """The source in A, and that in B if its name differs."""
    counts: tuple[float, float]
    means: tuple[float | None, float | None]
    p50: tuple[Quantile | None, Quantile | None]
    p95: tuple[Quantile | None, Quantile | None]
    p99: tuple[Quantile | None, Quantile | None]
    trend: Trend | None
    """By the medians: certain if their buckets don't overlap. Null without observations on one side."""


@dataclass(frozen=True, slots=True)
class TelemetryDiff:
    """Comparison of two telemetry sessions."""

    a: str
    b: str
    differences: tuple[str, ...]
    """Why the two can't be compared directly."""
    durations_s: tuple[float, float]
    flows: tuple[FlowRow, ...]
    gauges: tuple[NumberRow, ...]
    hit_rates: tuple[NumberRow, ...]
    """Hits over queries, from their growth over the session."""
    counters: tuple[NumberRow, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    latencies: tuple[LatencyRow, ...] = ()
    """Time to first token first."""
    conclusion: str = ""
    """What changed, in a sentence."""


def mismatch(a: Session, b: Session) -> str | None:
    """Return why two sessions of different kinds can't be compared; None if both or neither are telemetry."""
    mine, theirs = is_telemetry(a), is_telemetry(b)
    if mine == theirs:
        return None
    telemetry, other = (a.name, b.name) if mine else (b.name, a.name)
    return f"{telemetry} is a telemetry session, {other} is not: they can't be compared"


def slower(diff: TelemetryDiff, percent: float) -> list[FlowRow]:
    """Return flows that take over `percent` longer for the same bytes, with the whole interval on that side of 1."""
    rows = [row for row in diff.flows if row.ratio and row.high is not None]
    return [row for row in rows if 1 / (row.ratio or 1) > 1 + percent / 100 and (row.high or 0.0) < 1]


def compare_flows(a: Session, b: Session) -> TelemetryDiff:
    """Compare two telemetry sessions."""
    mine, theirs = a.telemetry or TelemetryTotals(), b.telemetry or TelemetryTotals()
    flows = _matched(mine.flows, theirs.flows, _flow_key)
    gauges = _matched(mine.gauges, theirs.gauges, _number_key)
    counters = _matched(_summed(mine.counters), _summed(theirs.counters), _number_key)
    latencies = _latencies(mine, theirs)
    rates = tuple(_hit_rates(mine.counters, theirs.counters))
    compared = [_flow_row(left, right) for left, right in flows.both]
    return TelemetryDiff(
        a=a.name,
        b=b.name,
        differences=tuple(_differences(a, b, mine, theirs)),
        durations_s=(mine.duration_s, theirs.duration_s),
        flows=tuple(compared),
        gauges=tuple(NumberRow(_name(x), x.unit, x.value.median, y.value.median) for x, y in gauges.both),
        hit_rates=rates,
        counters=tuple(_gained(x, y) for x, y in counters.both if x.gained or y.gained),
        only_a=tuple(map(_flow_text, flows.only_a)),
        only_b=tuple(map(_flow_text, flows.only_b)),
        latencies=latencies,
        conclusion=_conclusion(latencies, rates, compared),
    )


FIRST = ("ttft", "itl", "e2e", "queue", "prefill", "decode", "tpot", "inference")
"""Latencies in the order in which a comparison shows them; others follow."""


def _latencies(mine: TelemetryTotals, theirs: TelemetryTotals) -> tuple[LatencyRow, ...]:
    """Return the times that both sessions observed: of the same source, else of sources of one kind, in order."""
    pairs = _matched(_added(mine.observed), _added(theirs.observed), lambda one: (one.source_kind, one.name))
    places = {what: place for place, what in enumerate(FIRST)}
    rows = (_latency_row(a, b) for a, b in pairs.both)
    return tuple(sorted(rows, key=lambda row: (places.get(row.what, len(places)), row.source)))


def _added(observed: Iterable[HistogramTotals]) -> list[HistogramTotals]:
    """Return each source's times, added over labels; those that can't be added are left out."""
    groups: dict[tuple[str, str], list[HistogramTotals]] = {}
    for one in one_replica(observed, lambda one: one):
        if one.unit == "s":
            groups.setdefault((one.source, one.name), []).append(one)
    found = []
    for ones in groups.values():
        together = added([(one.edges, one.counts) for one in ones])
        if together is not None and rising(together[1]):
            sums = [one.total for one in ones if one.total is not None]
            total = sum(sums) if len(sums) == len(ones) else None
            found.append(replace(ones[0], labels={}, counts=tuple(map(int, together[1])), total=total))
    return found


def _latency_row(here: HistogramTotals, there: HistogramTotals) -> LatencyRow:
    sides = here, there
    mean_a, mean_b = (None if one.total is None or not one.counts[-1] else one.total / one.counts[-1] for one in sides)

    def both(q: float) -> tuple[Quantile | None, Quantile | None]:
        a, b = (quantile(side.edges, side.counts, q) for side in sides)
        return a and bounded(a, q, mean_a), b and bounded(b, q, mean_b)

    a, b = both(0.5)
    trend: Trend | None = None
    if a is not None and b is not None:
        faster = b.high is not None and b.high <= a.low
        slower = a.high is not None and a.high <= b.low
        trend = "faster" if faster else "slower" if slower else "undecided"
    source = here.source if here.source == there.source else f"{here.source} and {there.source}"
    return LatencyRow(
        what=here.what,
        unit=here.unit,
        source=source,
        counts=(here.counts[-1], there.counts[-1]),
        means=(mean_a, mean_b),
        p50=(a, b),
        p95=both(0.95),
        p99=both(0.99),
        trend=trend,
    )


MUCH = 0.05
"""Change of a hit rate, as a share of all queries, that a conclusion names."""


def _conclusion(latencies: Sequence[LatencyRow], rates: Sequence[NumberRow], flows: Sequence[FlowRow]) -> str:
    """Return what changed from A to B in a sentence: the time to first token, then the tiers, then the flows."""
    parts = [_first_token(latencies)]
    both = [(row, row.b - row.a) for row in rates if row.a is not None and row.b is not None]
    moved = sorted((pair for pair in both if abs(pair[1]) >= MUCH), key=lambda pair: -abs(pair[1]))
    alone = [row for row in rates if row.a is None or row.b is None]
    if moved:
        shown = [
            f"{row.name} {quantity_text(row.a, row.unit)} → {quantity_text(row.b, row.unit)}" for row, _ in moved[:2]
        ]
        parts.append("hits changed: " + ", ".join(shown))
    elif both and not alone:
        parts.append(f"no hit rate changed by {quantity_text(MUCH, 'ratio')} or more")
    for side, shares in (("A", [(row, row.a) for row in alone]), ("B", [(row, row.b) for row in alone])):
        texts = [f"{row.name} {quantity_text(share, row.unit)}" for row, share in shares if share is not None]
        if texts:
            parts.append(f"known in {side} only: {', '.join(texts[:2])}")
    for trend in ("faster", "slower"):
        names = [row.a.name for row in flows if row.trend == trend]
        if names:
            parts.append(f"{trend}: {', '.join(names[:3])}")
    return "; ".join(parts) + "."


def _first_token(latencies: Sequence[LatencyRow]) -> str:
    row = next((row for row in latencies if row.what == "ttft" and all(row.counts)), None)
    if row is None:
        return "no time to first token was observed in both"
    if row.trend is None:  # a histogram without buckets
        means = " → ".join(quantity_text(mean, row.unit) for mean in row.means)
        return f"the median time to first token isn't known in both; its mean is {means}"
    texts = [UNKNOWN if one is None or one.value is None else quantity_text(one.value, row.unit) for one in row.p50]
    if row.trend == "undecided":
        return f"the median time to first token is {texts[0]} → {texts[1]}, in buckets that overlap: undecided"
    return f"B's median time to first token is {row.trend}: {texts[0]} → {texts[1]}"


Item = TypeVar("Item", FlowTotals, GaugeTotals, CounterTotals, HistogramTotals)


@dataclass(frozen=True, slots=True)
class _Matched:
    both: list[tuple[Any, Any]]
    only_a: list[Any]
    only_b: list[Any]


def _matched(a: Iterable[Item], b: Iterable[Item], key: Callable[[Item], tuple[Any, ...]]) -> _Matched:
    """Pair items with equal keys, each once: of the same source and engine, of the same source, then in their order."""
    groups: dict[tuple[Any, ...], tuple[list[Item], list[Item]]] = {}
    for side, items in enumerate((a, b)):
        for item in items:
            groups.setdefault(key(item), ([], []))[side].append(item)
    found = _Matched([], [], [])
    for sides in groups.values():
        mine, theirs = (sorted(side, key=_engine) for side in sides)
        for same in (_engine, lambda item: item.source, lambda _: None):
            pairs = _pairs(mine, theirs, same)
            found.both.extend(pairs)
            taken = {id(item) for pair in pairs for item in pair}
            mine, theirs = ([item for item in side if id(item) not in taken] for side in (mine, theirs))
        found.only_a.extend(mine)
        found.only_b.extend(theirs)
    return found


def _pairs(mine: Iterable[Item], theirs: Iterable[Item], same: Callable[[Item], object]) -> list[tuple[Item, Item]]:
    """Pair items of equal `same` in their order."""
    left: dict[object, deque[Item]] = {}
    for item in theirs:
        left.setdefault(same(item), deque()).append(item)
    return [(item, left[same(item)].popleft()) for item in mine if left.get(same(item))]


def _engine(item: FlowTotals | GaugeTotals | CounterTotals | HistogramTotals) -> tuple[Any, ...]:
    """Return the source, and the labels that identify the process behind it."""
    labels = {} if isinstance(item, FlowTotals) else item.labels
    return item.source, *sorted(pair for pair in labels.items() if pair[0] in _OWN)


def _flow_key(flow: FlowTotals) -> tuple[Any, ...]:
    return flow.source_kind, flow.name, flow.source_tier, flow.target_tier, flow.unit


_OWN = ("engine", "hostname", "worker_id", "instance", "pod", "dynamo_namespace", "inode")
"""Labels that identify the process; they change on restart."""


def _number_key(number: GaugeTotals | CounterTotals) -> tuple[Any, ...]:
    labels = sorted((key, value) for key, value in number.labels.items() if key not in _OWN)
    return number.source_kind, number.name, *labels


def _summed(counters: Iterable[CounterTotals]) -> list[CounterTotals]:
    """Return each source's counters, added over its engines."""
    groups: dict[tuple[Any, ...], list[CounterTotals]] = {}
    for one in one_replica(counters, lambda one: one):
        groups.setdefault((one.source, *_number_key(one)), []).append(one)
    return [
        ones[0]
        if len(ones) == 1
        else replace(
            ones[0],
            labels={label: value for label, value in ones[0].labels.items() if label not in _OWN},
            gained=sum(one.gained for one in ones),
        )
        for ones in groups.values()
    ]


def _flow_row(a: FlowTotals, b: FlowTotals) -> FlowRow:
    same = a.source == b.source
    if a.rate is None or b.rate is None or a.rate.median <= 0:
        return FlowRow(a, b, None, None, None, None, same)
    ratio = b.rate.median / a.rate.median
    intervals = [
        None if rate.low is None or rate.high is None else Interval(rate.median, rate.low, rate.high)
        for rate in (a.rate, b.rate)
    ]
    if intervals[0] is None or intervals[1] is None:
        return FlowRow(a, b, ratio, None, None, "undecided", same)
    sure = independent_ratio(intervals[0], intervals[1])
    if sure is None:
        return FlowRow(a, b, ratio, None, None, "undecided", same)
    same_rate: Trend = "no difference" if is_same(sure.low, sure.high) else "undecided"
    trend: Trend = "faster" if sure.low > 1 else "slower" if sure.high < 1 else same_rate
    return FlowRow(a, b, ratio, sure.low, sure.high, trend, same)


def _hit_rates(mine: Iterable[CounterTotals], theirs: Iterable[CounterTotals]) -> Iterator[NumberRow]:
    """Yield the hit rates that a side has, each over all engines of a side; null on a side that lacks it."""
    a, b = (_shares(counters) for counters in (mine, theirs))
    order = [one.metric for counters in HIT_COUNTERS.values() for one in counters]
    for metric, value in sorted({*a, *b}, key=lambda key: (order.index(key[0]), key[1])):
        here, there = a.get((metric, value)), b.get((metric, value))
        if here is not None or there is not None:
            yield NumberRow(_rate_name(metric, value), "ratio", here, there)


def _shares(counters: Iterable[CounterTotals]) -> dict[tuple[str, str], float | None]:
    """Return hits over queries by canonical name of the hits and the value of the label that names their tier."""
    gained: dict[str, list[CounterTotals]] = {}
    for one in one_replica(counters, lambda one: one):
        gained.setdefault(canonical(one.name), []).append(one)

    def sums(found: Iterable[HitCounter]) -> dict[str, float]:
        of: dict[str, float] = {}
        for counter in found:
            for one in gained.get(counter.metric, ()):
                value = one.labels.get(counter.by, "") if counter.by else ""
                of[value] = of.get(value, 0.0) + one.gained
        return of

    shares: dict[tuple[str, str], float | None] = {}
    for table in HIT_COUNTERS.values():
        for hits in table:
            if hits.role != "hits":
                continue
            asked = sums(one for one in table if one.role == "asked" and one.part == hits.part)
            if hits.part == PROMPT:
                asked = sums(one for one in table if one.role == "tokens_in")
            asked = asked or sums(one for one in table if one.role == "asked" and one.part == ANY_PART)
            missed = sums(one for one in table if one.role == "missed" and one.part == hits.part)
            for value, found in sums((hits,)).items():
                of = found + missed[value] if value in missed else asked.get(value, asked.get(""))
                shares[hits.metric, value] = found / of if of and found <= of else None
    return shares


def _rate_name(metric: str, value: str) -> str:
    """Return the name of a hit rate: `vllm:prefix_cache_hit rate`, `prompt tokens from host`."""
    if any(one.metric == metric and one.part == PROMPT for table in HIT_COUNTERS.values() for one in table):
        return f"prompt tokens from {value or 'a cache'}"
    stem = metric.removesuffix("_total")
    name = stem.replace("hits", "hit rate") if "hits" in stem else f"{stem} share"
    return f"{name} ({value})" if value else name


def _gained(a: CounterTotals, b: CounterTotals) -> NumberRow:
    return NumberRow(_name(a), a.unit, a.gained, b.gained)


def _name(number: GaugeTotals | CounterTotals) -> str:
    from kvdeck.sessions.text.telemetry_report import named

    return named(number)


def _flow_text(flow: FlowTotals) -> str:
    from kvdeck.sessions.text.telemetry_report import arrow, moved_text

    return f"{arrow(flow)} {flow.name} of {flow.source}: {moved_text(flow)}"


def _differences(a: Session, b: Session, mine: TelemetryTotals, theirs: TelemetryTotals) -> Iterable[str]:
    for session, totals in ((a, mine), (b, theirs)):
        if not totals.moments:
            yield f"{session.name} has no samples"
        elif session.state not in ("done", "running"):
            yield f"{session.name} is {session.state}: {session.reason or 'no reason given'}"
        elif session.state == "running":
            yield f"{session.name} is still being recorded"
    short, long = sorted((mine.duration_s, theirs.duration_s))
    if short > 0 and long / short > DURATIONS_DIFFER:
        yield (
            f"they are {duration_text(mine.duration_s)} and {duration_text(theirs.duration_s)} long: "
            "compare rates, not totals"
        )
    names = [session.host.get("hostname") for session in (a, b)]
    if names[0] != names[1]:
        yield f"host: {names[0] or 'unknown'} and {names[1] or 'unknown'}"
    for key, words in (("hz", "samples per second"), ("block_bytes", "bytes per KVBM block")):
        values = [session.spec.get(key) for session in (a, b)]
        if values[0] != values[1]:
            yield f"{words}: {_value(key, values[0])} and {_value(key, values[1])}"
    yield from _other_sources(mine, theirs)


def _value(key: str, value: object) -> str:
    if not isinstance(value, (int, float)):
        return "not given" if value is None else str(value)
    return exact_size_text(value) if key == "block_bytes" else number_text(value)


def _other_sources(mine: TelemetryTotals, theirs: TelemetryTotals) -> Iterable[str]:
    kinds = [sorted(source.kind for source in totals.sources) for totals in (mine, theirs)]
    if kinds[0] != kinds[1]:
        yield f"sources: {', '.join(kinds[0]) or 'none'} and {', '.join(kinds[1]) or 'none'}"
