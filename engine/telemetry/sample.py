"""One sample of all sources: states, flows between tiers, counters, gauges and cross-checks."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from kvdeck.engine.telemetry.block_size import BlockSize, learned
from kvdeck.engine.telemetry.histogram import Histogram
from kvdeck.engine.telemetry.metrics.definitions import Group, Meaning, Measure
from kvdeck.engine.telemetry.service import Latency, Service, TierHits
from kvdeck.engine.telemetry.source import Series
from kvdeck.engine.telemetry.tracker import Buckets, SeriesState, SourceStatus, Track
from kvdeck.sessions.errors import EngineError
from kvdeck.sessions.model.encoding import convert
from kvdeck.sessions.model.tier_words import Tier

EVERY = "*"
"""Pin that selects every series."""


@dataclass(frozen=True, slots=True)
class Flow:
    """Bytes or blocks that one source counted between two tiers; a value that it doesn't report is None, not 0."""

    source: str
    name: str
    source_tier: Tier | None
    target_tier: Tier | None
    metric: str
    """Metric that counts the bytes, or the blocks if no metric counts bytes."""
    claim: str
    """Provenance of the metric's definition."""
    bytes_total: float | None = None
    blocks_total: float | None = None
    bytes_per_s: float | None = None
    blocks_per_s: float | None = None
    seconds_total: float | None = None
    seconds_per_s: float | None = None
    transfers_total: float | None = None
    transfers_per_s: float | None = None
    descriptors_total: float | None = None
    failures_total: float | None = None
    bytes_gained: float | None = None
    """Growth since sampling began, summed over resets; None after a single reading."""
    blocks_gained: float | None = None
    failures_gained: float | None = None
    bytes_before: float | None = None
    """What the source had counted when it was first read, before watching began."""
    blocks_before: float | None = None
    failures_before: float | None = None
    bytes_from_blocks: bool = False
    """True if the bytes are computed as blocks × block size."""
    moved_s: float | None = None
    """Seconds since a counter of the flow last grew; None if none has."""
    bytes_claim: str = ""
    """Provenance of the block size, if `bytes_from_blocks`."""
    stale: bool = False
    """True if the source doesn't answer, so the values are those of its last answer."""


@dataclass(frozen=True, slots=True)
class Number:
    """A counter or gauge that belongs to no flow; a gauge has no `per_s` and no `gained`."""

    source: str
    name: str
    labels: dict[str, str]
    unit: str
    group: Group | None
    value: float
    per_s: float | None = None
    gained: float | None = None
    """Growth since sampling began; None after a single reading."""
    before: float | None = None
    """A counter's value when it was first read, before watching began."""
    moved_s: float | None = None
    """Seconds since the counter last grew; None if it hasn't."""
    limit_per_s: float | None = None
    """Physical limit in units per second, such as a NIC's line rate."""
    claim: str = ""
    """Provenance of the metric's definition."""
    above_0_s: float | None = None
    """Seconds for which a gauge has been above 0; None if it isn't, or for a counter."""
    stale: bool = False
    """True if the source doesn't answer, so the value is that of its last answer."""


@dataclass(frozen=True, slots=True)
class Check:
    """Result of one cross-check."""

    id: str
    verdict: Literal["ok", "info", "warning"]
    """`warning`: the evidence contradicts expectations."""
    evidence: str
    advice: str = ""

    @property
    def advice_text(self) -> str:
        """The advice as displayed: what to do (`fix: …`) for a warning, else what to know."""
        return f"fix: {self.advice}" if self.verdict == "warning" and self.advice else self.advice


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One sample of all sources."""

    t: float
    """Unix time in seconds."""
    sources: tuple[SourceStatus, ...] = ()
    flows: tuple[Flow, ...] = ()
    counters: tuple[Number, ...] = ()
    gauges: tuple[Number, ...] = ()
    checks: tuple[Check, ...] = ()
    pinned: tuple[Number, ...] = field(default=())
    histograms: tuple[Histogram, ...] = ()
    latencies: tuple[Latency, ...] = ()
    """Latencies in the sampler's window, from the histograms; see `service_rows.Window`."""
    services: tuple[Service, ...] = ()
    tiers: tuple[TierHits, ...] = ()
    at_ns: int = field(default=0, compare=False)
    """Monotonic time of this host, which no change of the clock moves; 0 if unknown."""
    since_ns: int = field(default=0, compare=False)
    """Monotonic time at which its sampler began, which tells samplers apart; 0 if unknown."""


def take(
    tracks: Iterable[tuple[Track, float]],
    now_ns: int,
    *,
    block_bytes: float | None = None,
    block_claim: str = "",
    pins: frozenset[str] = frozenset(),
    wall: float | None = None,
    advance: bool = True,
) -> Snapshot:
    """Return a sample of the tracks' current state, without checks.

    Args:
        tracks: Tracks with their sampling periods in seconds.
        now_ns: Monotonic time of the sample, for ages.
        block_bytes: Bytes of one KVBM block, used to convert blocks to bytes; None uses the size derived from the
            source's own counters, if any.
        block_claim: Provenance of `block_bytes`.
        pins: Names of metrics to include in `pinned`, also metrics without a definition; `*` selects all.
        wall: Unix time of the sample in seconds; None is the current time.
        advance: Whether the sample is a moment: its rates cover the time since the moment before. Otherwise its rates
            are those of the last moment.
    """
    sources: list[SourceStatus] = []
    flows: list[Flow] = []
    counters: list[Number] = []
    gauges: list[Number] = []
    pinned: list[Number] = []
    histograms: list[Histogram] = []
    for track, period in tracks:
        if advance:
            track.moment(now_ns)
        status = track.status(now_ns, period)
        sources.append(status)
        moving = [_flow(track, name, found, now_ns, status.stale) for name, found in track.shape.flows.items()]
        track.block_size = learned(moving) or track.block_size
        size = track.block_size if block_bytes is None else BlockSize(block_bytes, block_claim)
        flows += moving if size is None else [_sized(flow, size) for flow in moving]
        for series, point, labels in track.shape.numbers:
            number = _number(track, series, point, labels, now_ns, status.stale)
            (counters if series.counter else gauges).append(number)
        histograms += [_histogram(track, buckets, status.stale) for buckets in track.shape.histograms]
        if pins:
            pinned += [
                _number(track, series, point, dict(series.labels), now_ns, status.stale)
                for series, point in track.points.items()
                if (series.name in pins or (EVERY in pins and not series.is_bucket)) and not point.gone
            ]
    wall = time.time() if wall is None else wall
    return Snapshot(
        wall, tuple(sources), tuple(flows), tuple(counters), tuple(gauges), (), tuple(pinned), tuple(histograms)
    )


def _histogram(track: Track, buckets: Buckets, stale: bool) -> Histogram:
    scale, total = buckets.meaning.scale, buckets.sum
    again = track.readings > 1
    return Histogram(
        track.name,
        buckets.name,
        buckets.labels,
        buckets.meaning.histogram,
        buckets.meaning.unit,
        buckets.edges,
        buckets.before,
        tuple([int(point.gained) for point in buckets.counts]) if again else None,
        None if total is None else total.before * scale,
        None if total is None or not again else total.gained * scale,
        buckets.meaning.claim,
        stale,
    )


def _number(
    track: Track, series: Series, point: SeriesState, labels: dict[str, str], now_ns: int, stale: bool
) -> Number:
    meaning = point.meaning
    scale = meaning.scale if meaning else 1.0
    moves = series.counter
    rate = track.rate(point) if moves else None
    return Number(
        source=track.name,
        name=series.name,
        labels=labels,
        unit=meaning.unit if meaning else "",
        group=meaning.group if meaning else None,
        value=point.value * scale,
        per_s=None if rate is None else rate * scale,
        gained=point.gained * scale if moves and track.readings > 1 else None,
        before=point.before * scale if moves else None,
        moved_s=_since(point.moved_ns, now_ns),
        limit_per_s=track.limits.get(series),
        claim=meaning.claim if meaning else "",
        above_0_s=_since(point.since_ns, now_ns),
        stale=stale,
    )


def _since(moved_ns: int | None, now_ns: int) -> float | None:
    return None if moved_ns is None else (now_ns - moved_ns) / 1e9


_FIELDS: Mapping[Measure, tuple[str, str | None, str | None]] = {
    "bytes": ("bytes_total", "bytes_per_s", "bytes_gained"),
    "blocks": ("blocks_total", "blocks_per_s", "blocks_gained"),
    "seconds": ("seconds_total", "seconds_per_s", None),
    "transfers": ("transfers_total", "transfers_per_s", None),
    "descriptors": ("descriptors_total", None, None),
    "failures": ("failures_total", None, "failures_gained"),
}


def _flow(
    track: Track,
    name: str,
    members: list[tuple[Series, SeriesState, Meaning]],
    now_ns: int,
    stale: bool,
) -> Flow:
    present = {series.name for series, _, _ in members}
    sums: dict[str, float] = {}
    unrated: set[str] = set()
    metric, moved = "", None
    first = members[0][2]
    for series, point, meaning in members:
        if meaning.twin_of is not None and meaning.twin_of in present:
            continue  # the same number under an older name
        total, rate, gained = _FIELDS[meaning.measure]
        sums[total] = sums.get(total, 0.0) + point.value * meaning.scale
        if gained is not None:
            before = gained.replace("gained", "before")
            sums[before] = sums.get(before, 0.0) + point.before * meaning.scale
        if gained is not None and track.readings > 1:
            sums[gained] = sums.get(gained, 0.0) + point.gained * meaning.scale
        if rate is not None:
            per_s = track.rate(point)
            if per_s is None:
                unrated.add(rate)
            else:
                sums[rate] = sums.get(rate, 0.0) + per_s * meaning.scale
        if meaning.measure in ("bytes", "blocks") and (not metric or meaning.measure == "bytes"):
            metric = series.name
        if point.moved_ns is not None:
            moved = max(moved or 0, point.moved_ns)
    for point, meaning in track.shape.vanished.get(name, ()):
        gained = _FIELDS[meaning.measure][2]
        if gained in sums and not (meaning.twin_of is not None and meaning.twin_of in present):
            sums[gained] += point.gained * meaning.scale
    # A sum that lacks the rate of one series would be too low.
    for rate in unrated:
        sums.pop(rate, None)
    return Flow(
        source=track.name,
        name=name,
        source_tier=first.source,
        target_tier=first.target,
        metric=metric or members[0][0].name,
        claim=first.claim,
        moved_s=_since(moved, now_ns),
        stale=stale,
        **sums,  # type: ignore[arg-type]
    )


def _sized(flow: Flow, size: BlockSize) -> Flow:
    if flow.blocks_total is None or flow.bytes_total is not None:
        return flow

    def times(blocks: float | None) -> float | None:
        return None if blocks is None else blocks * size.bytes

    return replace(
        flow,
        bytes_total=times(flow.blocks_total),
        bytes_per_s=times(flow.blocks_per_s),
        bytes_gained=times(flow.blocks_gained),
        bytes_before=times(flow.blocks_before),
        bytes_from_blocks=True,
        bytes_claim=size.claim,
    )


VERDICTS_V1 = {"ok": "ok", "info": "note", "warning": "look"}
"""The verdicts' words in kvdeck 0.1, which are printed beside the current ones and occur in its recordings."""
_CURRENT = {old: verdict for verdict, old in VERDICTS_V1.items()}


def to_mapping(snapshot: Snapshot) -> dict[str, object]:
    """Return the sample as `kvdeck monitor --json` prints it; orjson serialises the records inside.

    Flows use the keys `from` and `to` for `source_tier` and `target_tier`.
    """
    return {
        "t": snapshot.t,
        "sources": snapshot.sources,
        "flows": [_flow_mapping(flow) for flow in snapshot.flows],
        "counters": snapshot.counters,
        "gauges": snapshot.gauges,
        "pinned": snapshot.pinned,
        "histograms": snapshot.histograms,
        "latencies": snapshot.latencies,
        "services": snapshot.services,
        "tiers": snapshot.tiers,
        "checks": [_check_mapping(check) for check in snapshot.checks],
    }


def _check_mapping(check: Check) -> dict[str, object]:
    return {
        "id": check.id,
        "verdict": check.verdict,
        "verdict_v1": VERDICTS_V1[check.verdict],
        "evidence": check.evidence,
        "advice": check.advice,
    }


def check_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a check's row with the current word for its verdict."""
    return {**row, "verdict": _CURRENT.get(row["verdict"], row["verdict"])}


def _flow_mapping(flow: Flow) -> dict[str, object]:
    mapping: dict[str, object] = {"from": flow.source_tier, "to": flow.target_tier}
    for name in Flow.__slots__:
        if name not in ("source_tier", "target_tier"):
            mapping[name] = getattr(flow, name)
    return mapping


def from_mapping(data: Mapping[str, Any]) -> Snapshot:
    """Return the sample from the parsed JSON of a `to_mapping` result.

    Raises:
        EngineError: The data isn't a valid sample.
    """
    try:
        flows = [{**flow, "source_tier": flow.get("from"), "target_tier": flow.get("to")} for flow in data["flows"]]
        return convert(Snapshot, {**data, "flows": flows, "checks": [check_row(row) for row in data["checks"]]})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise EngineError(f"a sample can't be read: {error}", "restart the engine: `kvdeck engine stop`") from error
