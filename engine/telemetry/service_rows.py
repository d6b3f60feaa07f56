"""Is anybody served: latencies, requests, tokens and the tiers' hit rates in a window between two samples.

Pure: the screen, `kvdeck monitor`, its JSON and the cross-checks read what this module computes. What each metric is in
that question stands in the table of definitions (`Meaning.role`, `Meaning.histogram`); of several metrics with the same
role the first of the table that the source has counts.
"""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from kvdeck.engine.telemetry.histogram import Histogram
from kvdeck.engine.telemetry.metrics.definitions import Meaning, Role, place_of, with_roles
from kvdeck.engine.telemetry.sample import Number, Snapshot
from kvdeck.engine.telemetry.service import Latency, Service, ServiceState, TierHits
from kvdeck.engine.telemetry.source import Kind
from kvdeck.engine.telemetry.tracker import SourceStatus
from kvdeck.sessions.buckets import added, bounded, quantile, rising
from kvdeck.sessions.units import UNKNOWN, quantity_text

WINDOW_S = 60.0
"""Seconds that the sampler's rows cover."""
STEP_S = 5.0
"""Time between two marks, so the window is up to this much longer than WINDOW_S."""
_MEMBERS = ("server", "instance", "engine", "dp_rank", "pod", "WorkerId")
"""Labels that tell the engines of one source apart."""
_FAILED = ("error", "internal", "failure", "failed")
_ABORTED = ("abort", "cancelled", "canceled", "aborted")
SERVING: tuple[Kind, ...] = ("vllm", "dynamo", "sglang", "trtllm", "triton", "router")
"""Kinds that serve requests."""
_CACHED_TIERS = {
    "gpu": "G1",
    "device": "G1",
    "host": "G2",
    "disk": "G3",
    "storage": "G3",
    "object": "G4",
    "p2p": "remote",
}
"""Tier by the start of the word with which an exporter names where cached tokens came from."""

PROMPT = "prompt"
"""Part of hits that are counted in the tokens of all prompts."""

Member = tuple[str, str]
"""Source and engine."""
Growth = float | None


@dataclass(frozen=True, slots=True)
class ServiceRows:
    """The three kinds of rows, for one window."""

    latencies: tuple[Latency, ...] = ()
    services: tuple[Service, ...] = ()
    tiers: tuple[TierHits, ...] = ()


@dataclass(frozen=True, slots=True)
class GrowthMark:
    """What had grown up to one moment: counters, and histograms' counts and sums."""

    t_ns: int
    numbers: Mapping[object, float | None]
    histograms: Mapping[object, tuple[tuple[int, ...] | None, float | None]]


def between(earlier: Snapshot | None, later: Snapshot) -> ServiceRows:
    """Return the rows for the window between two samples of one sampler; without `earlier`, since the engines started.

    What has no two readings in the window is since its engine started too, and says so (`over_s` is None).
    """
    return _rows(None if earlier is None else _mark(earlier), later, _time_ns(later))


class Window:
    """The last WINDOW_S seconds of a sampler, in at most WINDOW_S / STEP_S + 2 marks."""

    def __init__(self) -> None:
        self._marks: deque[GrowthMark] = deque()

    def take(self, snapshot: Snapshot, now_ns: int) -> ServiceRows:
        """Return the rows up to a sample of monotonic time `now_ns`, from the oldest mark in the window."""
        marks = self._marks
        while len(marks) > 1 and now_ns - marks[1].t_ns >= WINDOW_S * 1e9:
            marks.popleft()
        rows = _rows(marks[0] if marks else None, snapshot, now_ns)
        if not marks or now_ns - marks[-1].t_ns >= (STEP_S - 0.1) * 1e9:
            marks.append(_mark(snapshot, now_ns))
        return rows


def latency_text(row: Latency, percent: int) -> str:
    """Return a percentile and the bucket in which it lies: `340 ms (250 ms to 500 ms)`; `–` if it isn't known."""
    value, low, high = (getattr(row, f"p{percent}{part}") for part in ("", "_low", "_high"))
    if low is None:
        return UNKNOWN
    if value is None:
        return f"above {quantity_text(low, row.unit)}"
    if low == high:
        return quantity_text(value, row.unit)
    return f"{quantity_text(value, row.unit)} ({quantity_text(low, row.unit)} to {quantity_text(high, row.unit)})"


def _time_ns(snapshot: Snapshot) -> int:
    return snapshot.at_ns or int(snapshot.t * 1e9)


def _mark(snapshot: Snapshot, now_ns: int | None = None) -> GrowthMark:
    return GrowthMark(
        _time_ns(snapshot) if now_ns is None else now_ns,
        {_key(number): number.gained for number, meaning in _with_roles(snapshot.counters) if meaning.role},
        {_key(one): (one.gained, one.sum_gained) for one in snapshot.histograms},
    )


def _key(row: Number | Histogram) -> object:
    return row.source, row.name, *row.labels.items()


def _with_roles(numbers: Iterable[Number]) -> Iterator[tuple[Number, Meaning]]:
    for number in numbers:
        for meaning in with_roles(number.name):
            if meaning.where is None or number.labels.get(meaning.where[0], "") == meaning.where[1]:
                if meaning.role is not None:
                    yield number, meaning
                break


def _grown(now: float | None, before: float | None, known: bool) -> float | None:
    """Return the growth of a `gained`; None if it isn't known, as after a new beginning of the sampler.

    Args:
        known: Whether the mark has the series. One that it lacks began to be counted in the window.
    """
    if now is None:
        return None
    base = (before or 0.0) if known else 0.0
    return now - base if now >= base else None


def _rows(mark: GrowthMark | None, later: Snapshot, now_ns: int) -> ServiceRows:
    roled = list(_with_roles((*later.counters, *later.gauges)))
    members = _member_names(roled, later.histograms)
    over = None if mark is None or now_ns <= mark.t_ns else (now_ns - mark.t_ns) / 1e9
    window = _Growths(mark, over)
    numbers = _by_member(roled, members)
    sources = {source.name: source for source in later.sources}
    return ServiceRows(
        tuple(_latencies(window, later.histograms, members)),
        tuple(_services(window, sources, numbers)),
        tuple(_tiers(window, numbers)),
    )


class _Growths:
    """Growth of numbers and histograms since a mark, over `over_s` seconds; without one, their totals."""

    def __init__(self, mark: GrowthMark | None, over_s: float | None) -> None:
        self._mark = mark
        self.over_s = over_s

    def covers(self, gained: object) -> float | None:
        """Return the seconds that a growth covers: None, for all since its engine started, after one reading."""
        return None if gained is None else self.over_s

    def of(self, number: Number) -> Growth:
        if self.over_s is None or number.gained is None or self._mark is None:
            return number.value
        key = _key(number)
        return _grown(number.gained, self._mark.numbers.get(key), key in self._mark.numbers)

    def counts(self, one: Histogram) -> tuple[tuple[float, ...], Growth] | None:
        """Return the counts and the sum of the observations; None if they aren't known."""
        if self.over_s is None or one.gained is None or self._mark is None:
            gained = one.gained or (0,) * len(one.before)
            total = None if one.sum_before is None else one.sum_before + (one.sum_gained or 0.0)
            return tuple(a + b for a, b in zip(one.before, gained, strict=True)), total
        before, total_before = self._mark.histograms.get(_key(one), (None, None))
        if before is not None and len(before) != len(one.gained):
            return None
        if before is None:
            return one.gained, one.sum_gained
        counts = tuple(map(operator.sub, one.gained, before))
        if min(counts) < 0:  # sampling began anew
            return None
        return counts, _grown(one.sum_gained, total_before, True)


def _member_names(
    roled: Iterable[tuple[Number, Meaning]], histograms: Iterable[Histogram]
) -> Callable[[Number | Histogram], Member]:
    """Return a function that names the engine of a row; an engine that is alone at its source has no name."""
    seen: dict[str, set[tuple[tuple[str, str], ...]]] = {}
    for number, _ in roled:
        seen.setdefault(number.source, set()).add(_identity(number))
    for one in histograms:
        seen.setdefault(one.source, set()).add(_identity(one))
    several = {source for source, identities in seen.items() if len(identities - {()}) > 1}

    def named(row: Number | Histogram) -> Member:
        if row.source not in several:
            return row.source, ""
        return row.source, ", ".join(f"{label} {value}" for label, value in _identity(row))

    return named


def _identity(row: Number | Histogram) -> tuple[tuple[str, str], ...]:
    return tuple((label, row.labels[label]) for label in _MEMBERS if row.labels.get(label))


Row = TypeVar("Row")
_Numbers = dict[Member, dict[str, list[tuple[Number, Meaning]]]]


def _by_member(rows: Iterable[tuple[Number, Meaning]], named: Callable[[Number | Histogram], Member]) -> _Numbers:
    found: _Numbers = {}
    for number, meaning in rows:
        found.setdefault(named(number), {}).setdefault(meaning.role or "", []).append((number, meaning))
    return found


def _first(rows: Iterable[tuple[Number, Meaning]]) -> list[tuple[Number, Meaning]]:
    """Return the rows of the metric that stands first in the table."""
    ranked = list(rows)
    if not ranked:
        return []
    best = min(place_of(meaning.metric) for _, meaning in ranked)
    return [(number, meaning) for number, meaning in ranked if place_of(meaning.metric) == best]


def _latencies(
    window: _Growths, histograms: Iterable[Histogram], named: Callable[[Number | Histogram], Member]
) -> Iterator[Latency]:
    groups: dict[tuple[Member, str], list[Histogram]] = {}
    for one in histograms:
        groups.setdefault((named(one), one.what), []).append(one)
    for ((source, member), what), ones in groups.items():
        if len(ones) > 1:
            best = min(place_of(one.name) for one in ones)
            ones = [one for one in ones if place_of(one.name) == best]
        yield _latency(window, source, member, what, ones)


def _latency(window: _Growths, source: str, member: str, what: str, ones: list[Histogram]) -> Latency:
    grown = [(one, window.counts(one)) for one in ones]
    known = [(one, counts) for one, counts in grown if counts is not None]
    first = ones[0]
    over = window.covers(None if any(one.gained is None for one in ones) else first.gained)
    stale = any(one.stale for one in ones)
    if len(known) < len(grown):
        return Latency(source, member, what, first.unit, 0.0, over, first.name, stale=stale)
    count = float(sum(counts[-1] for _, (counts, _) in known))
    if not count:
        return Latency(source, member, what, first.unit, 0.0, over, first.name, stale=stale)
    sums = [total for _, (_, total) in known]
    total = None if any(one is None for one in sums) else sum(one or 0.0 for one in sums)
    mean = None if total is None else total / count
    pairs = [(one.edges, counts) for one, (counts, _) in known]
    together = pairs[0] if len(pairs) == 1 else added(pairs)
    figures: dict[str, float | None] = {}
    if together is not None and rising(together[1]):
        for percent in (50, 95, 99):
            found = quantile(*together, percent / 100)
            if found is not None:
                found = bounded(found, percent / 100, mean)
                figures[f"p{percent}"] = found.value
                figures[f"p{percent}_low"], figures[f"p{percent}_high"] = found.low, found.high
    return Latency(source, member, what, first.unit, count, over, first.name, mean, stale=stale, **figures)


def _services(window: _Growths, sources: Mapping[str, SourceStatus], numbers: _Numbers) -> Iterator[Service]:
    served = {"running", "finished", "tokens_out", "waiting"}
    rows: dict[Member, dict[str, list[tuple[Number, Meaning]]]] = {
        member: roles for member, roles in numbers.items() if served & roles.keys()
    }
    with_rows = {source for source, _ in rows}
    for source in sources.values():
        if source.kind in SERVING and source.name not in with_rows:
            rows[source.name, ""] = numbers.get((source.name, ""), {})
    for (name, member), roles in rows.items():
        status = sources.get(name)
        if status is not None:
            yield _service(window, status, member, roles)


def _service(
    window: _Growths, status: SourceStatus, member: str, roles: Mapping[str, list[tuple[Number, Meaning]]]
) -> Service:
    def grown(role: Role) -> Growth:
        rows = _first(roles.get(role, ()))
        return _sum(window.of(number) for number, _ in rows) if rows else None

    def now(role: Role) -> Growth:
        rows = _first(roles.get(role, ()))
        return sum(number.value for number, _ in rows) if rows else None

    def parts(role: Role) -> dict[str, float]:
        found: dict[str, float] = {}
        for number, meaning in _first(roles.get(role, ())):
            word = number.labels.get(meaning.by, "") if meaning.by else ""
            found[word] = found.get(word, 0.0) + number.value
        return found

    counters = [number for role in roles.values() for number, _ in role if number.before is not None]
    over = window.covers(None if any(number.gained is None for number in counters) else 1.0)

    def rate(growth: Growth) -> Growth:
        return None if growth is None or not over else growth / over

    finished: dict[str, float] = {}
    ended = _first(roles.get("finished", ()))
    unknown = False
    for number, meaning in ended:
        growth = window.of(number)
        unknown = unknown or growth is None
        word = _reason(number.labels, meaning.by)
        finished[word] = finished.get(word, 0.0) + (growth or 0.0)
    finished = {word: count for word, count in finished.items() if count}
    every = None if unknown or not ended else sum(finished.values())
    failed, aborted = grown("failed"), grown("aborted")
    if failed is None and ended and not unknown and any(meaning.by for _, meaning in ended):
        failed = sum(count for word, count in finished.items() if word.startswith(_FAILED))
    if aborted is None and ended and not unknown and any(meaning.by for _, meaning in ended):
        aborted = sum(count for word, count in finished.items() if word.startswith(_ABORTED))
    usage = [number.value for number, _ in _first(roles.get("kv_usage", ()))]
    return Service(
        source=status.name,
        member=member,
        kind=status.kind,
        state=_state(status, roles),
        over_s=over,
        running=now("running"),
        waiting=now("waiting"),
        waiting_by_reason=parts("waiting_by"),
        kv_fetch=parts("kv_fetch"),
        finished=finished,
        finished_per_s=rate(every),
        failed_per_s=rate(failed),
        aborted_per_s=rate(aborted),
        tokens_in_per_s=rate(grown("tokens_in")),
        tokens_out_per_s=rate(grown("tokens_out")),
        preempted=grown("preempted"),
        preempted_per_s=rate(grown("preempted")),
        kv_usage=max(usage) if usage else None,
        stale=status.stale,
    )


def _reason(labels: Mapping[str, str], by: str) -> str:
    """Return why a request ended, in the exporter's words: Dynamo's `error` is followed by its kind."""
    if not by:
        return "finished"
    word = labels.get(by, "")
    kind = labels.get("error_type", "")
    return f"{word} ({kind})" if kind else word or "finished"


def _state(status: SourceStatus, roles: Mapping[str, list[tuple[Number, Meaning]]]) -> ServiceState:
    if status.stale or status.age_s is None:
        return "down"
    asleep = [number for number, _ in roles.get("sleep", ())]
    if asleep and any(n.value > 0 for n in asleep if n.labels.get("sleep_state", "") != "awake"):
        return "sleeping"
    return "online" if roles else "unknown"


def _sum(values: Iterable[Growth]) -> Growth:
    """Return the sum; None if any part isn't known."""
    total = 0.0
    for value in values:
        if value is None:
            return None
        total += value
    return total


def _tiers(window: _Growths, numbers: _Numbers) -> Iterator[TierHits]:
    for member, roles in numbers.items():
        yield from _pairs(window, member, roles)
        yield from _by_source(window, member, roles)
        yield from _shares(member, roles)


def _covered(window: _Growths, rows: Iterable[tuple[Number, Meaning]]) -> float | None:
    return window.covers(None if any(n.gained is None for n, m in rows if not m.gauge) else 1.0)


def _pairs(window: _Growths, member: Member, roles: Mapping[str, list[tuple[Number, Meaning]]]) -> Iterator[TierHits]:
    """Yield the hits whose queries an exporter counts too, and evictions of the same part."""
    parts: dict[str, None] = dict.fromkeys(
        m.part for role in ("hits", "evicted") for _, m in roles.get(role, ()) if not m.by
    )
    for part in parts:
        hits = _first((n, m) for n, m in roles.get("hits", ()) if m.part == part and not m.by)
        asked = _first((n, m) for n, m in roles.get("asked", ()) if m.part == part)
        asked = asked or (_first(roles.get("tokens_in", ())) if part == PROMPT else [])
        asked = asked or _first((n, m) for n, m in roles.get("asked", ()) if m.part == "*" and hits)
        missed = _first((n, m) for n, m in roles.get("missed", ()) if m.part == part)
        gone = _first((n, m) for n, m in roles.get("evicted", ()) if m.part == part)
        first = (hits or gone)[0]
        over = _covered(window, (*hits, *asked, *missed, *gone))
        some = _sum(window.of(n) for n, _ in hits) if hits else None
        of = _sum(window.of(n) for n, _ in asked) if asked else None
        if of is None and missed and hits:
            of = _sum(window.of(n) for n, _ in (*hits, *missed))
        evicted = _sum(window.of(n) for n, _ in gone) if gone else None
        yield TierHits(
            *member,
            first[1].tier or "",
            part,
            first[1].unit,
            over,
            some,
            of,
            some / of if some is not None and of and some <= of else None,
            evicted,
            None if evicted is None or not over else evicted / over,
            first[1].claim,
            first[0].stale,
        )


def _by_source(
    window: _Growths, member: Member, roles: Mapping[str, list[tuple[Number, Meaning]]]
) -> Iterator[TierHits]:
    """Yield each tier's hits among the prompt tokens that the tiers above it lacked."""
    hits = _first((n, m) for n, m in roles.get("hits", ()) if m.by)
    asked = _first(roles.get("tokens_in", ()))
    if not hits or not asked:
        return
    left = _sum(window.of(n) for n, _ in asked)
    over = _covered(window, (*hits, *asked))
    found: dict[str, list[Growth]] = {}
    for number, meaning in hits:
        found.setdefault(_tier_of(number.labels.get(meaning.by, "")), []).append(window.of(number))
    meaning, stale = hits[0][1], hits[0][0].stale
    for tier in ("G1", "G2", "G3", "G4", "remote", ""):
        if tier not in found:
            continue
        some = _sum(found[tier])
        if not tier and not some:  # nothing came from where the source doesn't say
            continue
        share = some / left if some is not None and left else None
        yield TierHits(
            *member, tier, meaning.part, meaning.unit, over, some, left, share, claim=meaning.claim, stale=stale
        )
        left = None if left is None or some is None else max(0.0, left - some)


def _tier_of(word: str) -> str:
    return next((tier for start, tier in _CACHED_TIERS.items() if word.lower().startswith(start)), "")


def _shares(member: Member, roles: Mapping[str, list[tuple[Number, Meaning]]]) -> Iterator[TierHits]:
    """Yield the shares that an exporter computes itself, without a count of queries."""
    for number, meaning in roles.get("share", ()):
        share = number.value if 0 <= number.value <= 1 else None
        yield TierHits(
            *member,
            meaning.tier or "",
            meaning.part,
            "ratio",
            None,
            share=share,
            claim=meaning.claim,
            stale=number.stale,
        )
