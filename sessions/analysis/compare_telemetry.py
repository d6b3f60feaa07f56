"""Comparison of two telemetry sessions by flow: before and after a change of the configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from msgspec.structs import replace

from kvdeck.sessions.buckets import Quantile, added, bounded, quantile, rising
from kvdeck.sessions.model.records import Interval, Session, is_same
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
    a: float
    b: float


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
    counters = _matched(mine.counters, theirs.counters, _number_key)
    latencies = _latencies(mine, theirs)
    rates = (*_hit_rates(counters.both), *_rates_by_source(counters.both))
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
    for one in observed:
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


_BY_SOURCE = {
    "vllm:prompt_tokens_cached_by_source_total": ("vllm:prompt_tokens_total", "source"),
    "sglang:cached_tokens_total": ("sglang:prompt_tokens_total", "cache_source"),
}
"""Counters of prompt tokens by where their KV came from, the counter of all of them, and the label of the place."""


def _rates_by_source(pairs: Sequence[tuple[CounterTotals, CounterTotals]]) -> Iterable[NumberRow]:
    """Yield the share of the prompts' tokens that came from each place."""
    for name, (total, label) in _BY_SOURCE.items():
        asked = [sum(pair[side].gained for pair in pairs if pair[0].name == total) for side in (0, 1)]
        if not all(asked):
            continue
        places: dict[str, list[float]] = {}
        for a, b in pairs:
            if a.name == name:
                sums = places.setdefault(a.labels.get(label, ""), [0.0, 0.0])
                sums[0] += a.gained
                sums[1] += b.gained
        for place, (mine, theirs) in places.items():
            if mine or theirs:
                yield NumberRow(f"prompt tokens from {place or 'a cache'}", "ratio", mine / asked[0], theirs / asked[1])


MUCH = 0.05
"""Change of a hit rate, as a share of all queries, that a conclusion names."""


def _conclusion(latencies: Sequence[LatencyRow], rates: Sequence[NumberRow], flows: Sequence[FlowRow]) -> str:
    """Return what changed from A to B in a sentence: the time to first token, then the tiers, then the flows."""
    parts = [_first_token(latencies)]
    moved = sorted((row for row in rates if abs(row.b - row.a) >= MUCH), key=lambda row: -abs(row.b - row.a))
    if moved:
        shown = [f"{row.name} {quantity_text(row.a, row.unit)} → {quantity_text(row.b, row.unit)}" for row in moved[:2]]
        parts.append("hits changed: " + ", ".join(shown))
    elif rates:
        parts.append(f"no hit rate changed by {quantity_text(MUCH, 'ratio')} or more")
    for trend in ("faster", "slower"):
        names = [row.a.name for row in flows if row.trend == trend]
        if names:
            parts.append(f"{trend}: {', '.join(names[:3])}")
    return "; ".join(parts) + "."


def _first_token(latencies: Sequence[LatencyRow]) -> str:
    row = next((row for row in latencies if row.what == "ttft" and all(row.counts)), None)
    if row is None:
        return "no time to first token was observed in both"
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
    """Pair items with equal keys: first those with the same source name, then the rest in order of source name."""
    groups: dict[tuple[Any, ...], tuple[list[Item], list[Item]]] = {}
    for side, items in enumerate((a, b)):
        for item in items:
            groups.setdefault(key(item), ([], []))[side].append(item)
    found = _Matched([], [], [])
    for mine, theirs in groups.values():
        named = {item.source: item for item in theirs}
        pairs = [(item, named[item.source]) for item in mine if item.source in named]
        taken = {item.source for item, _ in pairs}
        rest = [sorted((i for i in side if i.source not in taken), key=lambda i: i.source) for side in (mine, theirs)]
        pairs += zip(*rest, strict=False)
        common = min(map(len, rest))
        found.both.extend(pairs)
        found.only_a.extend(rest[0][common:])
        found.only_b.extend(rest[1][common:])
    return found


def _flow_key(flow: FlowTotals) -> tuple[Any, ...]:
    return flow.source_kind, flow.name, flow.source_tier, flow.target_tier, flow.unit


_OWN = ("engine", "hostname", "worker_id", "instance", "pod", "dynamo_namespace", "inode")
"""Labels that identify the process; they change on restart."""


def _number_key(number: GaugeTotals | CounterTotals) -> tuple[Any, ...]:
    labels = sorted((key, value) for key, value in number.labels.items() if key not in _OWN)
    return number.source_kind, number.name, *labels


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


def _hit_rates(pairs: Sequence[tuple[CounterTotals, CounterTotals]]) -> Iterable[NumberRow]:
    """Yield hit rates from counters whose names differ only by `hits` and `queries`."""
    queries = {(a.source, a.name, *sorted(a.labels.items())): (a, b) for a, b in pairs}
    for a, b in pairs:
        if "hits" not in a.name:
            continue
        below = queries.get((a.source, a.name.replace("hits", "queries"), *sorted(a.labels.items())))
        if below is not None and below[0].gained > 0 and below[1].gained > 0:
            name = a.name.removesuffix("_total").replace("hits", "hit rate")
            yield NumberRow(name, "ratio", a.gained / below[0].gained, b.gained / below[1].gained)


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
