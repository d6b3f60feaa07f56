"""Is anybody served: latencies, requests, tokens and the tiers' hit rates in a window between two samples.

Pure: the screen, `kvdeck monitor`, its JSON and the cross-checks read what this module computes. What each metric is in
that question stands in the table of definitions (`Meaning.role`, `Meaning.histogram`); of several metrics with the same
role the first of the table that the source has counts.
"""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from kvdeck.engine.telemetry.histogram import Histogram
from kvdeck.engine.telemetry.metrics.definitions import Meaning, Role, place_of, with_roles
from kvdeck.engine.telemetry.sample import Number, Snapshot
from kvdeck.engine.telemetry.service import Latency, Service, ServiceState, TierHits
from kvdeck.engine.telemetry.source import Kind
from kvdeck.engine.telemetry.tracker import SourceStatus
from kvdeck.sessions.buckets import added, bounded, quantile, rising
from kvdeck.sessions.model.cache_hits import ANY_PART, PROMPT
from kvdeck.sessions.model.replicas import one_replica
from kvdeck.sessions.model.tier_words import tier_of
from kvdeck.sessions.units import UNKNOWN, quantity_text

WINDOW_S = 60.0
"""Seconds that the sampler's rows cover."""
STEP_S = 5.0
"""Time between two marks, so the window is up to this much longer than WINDOW_S."""
_MEMBERS = ("server", "instance", "engine", "dp_rank", "pod", "WorkerId")
"""Labels that tell the engines of one source apart."""
_FAILED = ("error", "internal", "failure", "failed")
_ABORTED = ("abort", "cancelled", "canceled", "aborted")
Outcome = Literal["served", "failed", "aborted", "refused"]
"""How a request ended. `refused`: the request was at fault, not the server."""
SERVING: tuple[Kind, ...] = ("vllm", "dynamo", "sglang", "trtllm", "triton", "router")
"""Kinds that serve requests."""
_REFUSED = ("validation", "not_found")
"""Kinds of errors that are the request's and not the server's."""
MAX_GONE = 1000
"""Absent series that a mark carries beyond the number of present ones, as the tracker does."""

Member = tuple[str, str]
"""Source and engine."""
Growth = float | None
SeriesKey = tuple[object, ...]
"""Source, name and labels of a series."""
Value = TypeVar("Value")


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
    sources: frozenset[str]
    """Sources that had answered."""
    numbers: Mapping[SeriesKey, float | None]
    histograms: Mapping[SeriesKey, tuple[tuple[int, ...] | None, float | None]]


def between(earlier: Snapshot | None, later: Snapshot) -> ServiceRows:
    """Return the rows for the window between two samples of one sampler; without `earlier`, since the engines started.

    What has no two readings in the window is since its engine started too, and says so (`over_s` is None).
    """
    marks = () if earlier is None else (_mark(earlier, _time_ns(earlier)),)
    return _rows(_Growths(marks, _time_ns(later)), later)


class Window:
    """The last WINDOW_S seconds of a sampler, in at most WINDOW_S / STEP_S + 2 marks."""

    def __init__(self) -> None:
        self._marks: deque[GrowthMark] = deque()

    def take(self, snapshot: Snapshot, now_ns: int) -> ServiceRows:
        """Return the rows up to a sample of monotonic time `now_ns`, per source from its oldest mark in the window."""
        marks = self._marks
        while len(marks) > 1 and now_ns - marks[1].t_ns >= WINDOW_S * 1e9:
            marks.popleft()
        rows = _rows(_Growths(marks, now_ns), snapshot)
        if not marks or now_ns - marks[-1].t_ns >= (STEP_S - 0.1) * 1e9:
            marks.append(_mark(snapshot, now_ns, marks[-1] if marks else None))
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


def _mark(snapshot: Snapshot, now_ns: int, before: GrowthMark | None = None) -> GrowthMark:
    """Return the mark of a sample; series that it lacks are carried from the mark before.

    A scrape may be torn, and a restarted exporter prints a counter at its next use only: what was counted before that
    is no growth of the time since.
    """
    here = frozenset(source.name for source in snapshot.sources if source.age_s is not None)
    numbers = {_key(number): number.gained for number, _ in _with_roles(snapshot.counters)}
    histograms = {_key(one): (one.gained, one.sum_gained) for one in snapshot.histograms}
    if before is not None:
        numbers = _carried(before.numbers, numbers, here)
        histograms = _carried(before.histograms, histograms, here)
    return GrowthMark(now_ns, here, numbers, histograms)


def _carried(
    before: Mapping[SeriesKey, Value], now: dict[SeriesKey, Value], here: frozenset[str]
) -> dict[SeriesKey, Value]:
    gone = [(key, value) for key, value in before.items() if key not in now and key[0] in here]
    return {**dict(gone[-(len(now) + MAX_GONE) :]), **now}


def _key(row: Number | Histogram) -> SeriesKey:
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


def _rows(window: _Growths, later: Snapshot) -> ServiceRows:
    roled = one_replica(_with_roles((*later.counters, *later.gauges)), lambda row: row[0])
    histograms = one_replica(later.histograms, lambda one: one)
    members = _member_names(roled, histograms)
    numbers = _by_member(roled, members)
    sources = {source.name: source for source in later.sources}
    return ServiceRows(
        tuple(_latencies(window, histograms, members)),
        tuple(_services(window, sources, numbers)),
        tuple(_tiers(window, numbers)),
    )


class _Growths:
    """Growth of numbers and histograms up to `now_ns`; totals of a source that no mark has.

    A source's growth is since the oldest mark from which on all marks have it: one that joins late, or again, is not
    spread over the time before.
    """

    def __init__(self, marks: Sequence[GrowthMark], now_ns: int) -> None:
        self._now_ns = now_ns
        self._since: dict[str, GrowthMark] = {}
        here: frozenset[str] | None = None
        for mark in reversed(marks):
            here = mark.sources if here is None else here & mark.sources
            if mark.t_ns < now_ns:
                self._since.update(dict.fromkeys(here, mark))

    def covers(self, source: str, known: bool) -> float | None:
        """Return the seconds that the growth of a source covers: None if it is all since its engine started.

        Args:
            known: Whether the source was read twice.
        """
        mark = self._since.get(source)
        return (self._now_ns - mark.t_ns) / 1e9 if mark is not None and known else None

    def of(self, number: Number) -> Growth:
        """Return the growth of a counter; None if it isn't known, as of a number that is no counter."""
        mark = self._since.get(number.source)
        if number.gained is None or mark is None:
            return None if number.before is None else number.value
        key = _key(number)
        return _grown(number.gained, mark.numbers.get(key), key in mark.numbers)

    def counts(self, one: Histogram) -> tuple[tuple[float, ...], Growth] | None:
        """Return the counts and the sum of the observations; None if they aren't known."""
        mark = self._since.get(one.source)
        if one.gained is None or mark is None:
            gained = one.gained or (0,) * len(one.before)
            total = None if one.sum_before is None else one.sum_before + (one.sum_gained or 0.0)
            return tuple(a + b for a, b in zip(one.before, gained, strict=True)), total
        before, total_before = mark.histograms.get(_key(one), (None, None))
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
    over = window.covers(source, all(one.gained is not None for one in ones))
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
    over = window.covers(status.name, all(number.gained is not None for number in counters))

    def rate(growth: Growth) -> Growth:
        return None if growth is None or not over else growth / over

    ended = _ended(window, roles)
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
        finished=ended.by_reason,
        finished_per_s=rate(ended.every),
        failed_per_s=rate(ended.failed),
        aborted_per_s=rate(ended.aborted),
        tokens_in_per_s=rate(grown("tokens_in")),
        tokens_out_per_s=rate(grown("tokens_out")),
        preempted=grown("preempted"),
        preempted_per_s=rate(grown("preempted")),
        kv_usage=max(usage) if usage else None,
        stale=status.stale,
    )


@dataclass(frozen=True, slots=True)
class _Ended:
    """How requests ended; None where it isn't known or not counted."""

    by_reason: dict[str, Growth]
    every: Growth
    failed: Growth
    aborted: Growth


def _ended(window: _Growths, roles: Mapping[str, list[tuple[Number, Meaning]]]) -> _Ended:
    finished, failures, aborts = (_first(roles.get(role, ())) for role in ("finished", "failed", "aborted"))
    beside = [(number, meaning) for number, meaning in failures if meaning.beside]
    counted = [(number, meaning, window.of(number)) for number, meaning in (*finished, *beside)]
    parts: dict[str, list[Growth]] = {}
    for number, meaning, growth in counted:
        parts.setdefault(_reason(number.labels, meaning), []).append(growth)
    sums = {word: _sum(growths) for word, growths in parts.items()}

    def of(outcome: Outcome, rows: Iterable[tuple[Number, Meaning]]) -> Growth:
        return _sum(window.of(number) for number, meaning in rows if _outcome(number.labels, meaning) == outcome)

    every = (*finished, *beside)
    named = any(meaning.by for _, meaning in every)
    counts_failures = failures if failures and not beside else every if failures or named else ()
    return _Ended(
        {word: count for word, count in sums.items() if count != 0},
        _sum(growth for _, _, growth in counted) if finished else None,
        of("failed", counts_failures) if counts_failures else None,
        _sum(window.of(number) for number, _ in aborts) if aborts else of("aborted", every) if named else None,
    )


def _outcome(labels: Mapping[str, str], meaning: Meaning) -> Outcome:
    """Return how a request ended; Dynamo's label `error_type` tells whose an `error` is."""
    word = labels.get(meaning.by, "").lower() if meaning.by else ""
    kind = labels.get("error_type", "")
    if word.startswith(_ABORTED) or kind.startswith(_ABORTED):
        return "aborted"
    if kind in _REFUSED:
        return "refused"
    return "failed" if meaning.role == "failed" or word.startswith(_FAILED) else "served"


def _reason(labels: Mapping[str, str], meaning: Meaning) -> str:
    """Return why a request ended, in the exporter's words: Dynamo's `error` is followed by its kind."""
    word = (labels.get(meaning.by, "") if meaning.by else "") or ("failed" if meaning.role == "failed" else "finished")
    kind = labels.get("error_type", "")
    return f"{word} ({kind})" if kind and meaning.by else word


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
    every = list(rows)
    known = all(number.gained is not None for number, meaning in every if not meaning.gauge)
    return window.covers(every[0][0].source, known)


def _word(number: Number, meaning: Meaning) -> str:
    return number.labels.get(meaning.by, "") if meaning.by else ""


def _pairs(window: _Growths, member: Member, roles: Mapping[str, list[tuple[Number, Meaning]]]) -> Iterator[TierHits]:
    """Yield the hits whose queries an exporter counts too, and evictions of the same part, per tier that a label names.

    A tier's queries are what the tiers above it lacked, so two tiers have no common share.
    """
    keys = dict.fromkeys(
        (meaning.part, _word(number, meaning))
        for role in ("asked", "hits", "evicted")
        for number, meaning in roles.get(role, ())
        if (meaning.by or role != "asked") and not (meaning.by and meaning.part == PROMPT)
    )
    for part, word in keys:

        def mine(role: Role, part: str = part, word: str = word) -> list[tuple[Number, Meaning]]:
            return _first((n, m) for n, m in roles.get(role, ()) if (m.part, _word(n, m)) == (part, word))

        hits, asked, missed, gone = mine("hits"), mine("asked"), mine("missed"), mine("evicted")
        asked = asked or (_first(roles.get("tokens_in", ())) if part == PROMPT else [])
        asked = asked or (mine("asked", ANY_PART) if hits else [])
        number, meaning = (hits or gone or asked)[0]
        over = _covered(window, (*hits, *asked, *missed, *gone))
        some = _sum(window.of(n) for n, _ in hits) if hits else None
        of = _sum(window.of(n) for n, _ in asked) if asked else None
        if of is None and missed and hits:
            of = _sum(window.of(n) for n, _ in (*hits, *missed))
        evicted = _sum(window.of(n) for n, _ in gone) if gone else None
        yield TierHits(
            *member,
            meaning.tier or tier_of(word) or "",
            f"{part} {word}".strip(),
            meaning.unit,
            over,
            some,
            of,
            _share(some, of),
            evicted,
            None if evicted is None or not over else evicted / over,
            meaning.claim,
            number.stale,
        )


def _share(hits: Growth, of: Growth) -> float | None:
    """Return the hits among the queries; None if there are more of them, so that they count something else."""
    return hits / of if hits is not None and of and hits <= of else None


def _by_source(
    window: _Growths, member: Member, roles: Mapping[str, list[tuple[Number, Meaning]]]
) -> Iterator[TierHits]:
    """Yield each tier's hits among the prompt tokens that the tiers above it lacked."""
    hits = _first((n, m) for n, m in roles.get("hits", ()) if m.by and m.part == PROMPT)
    asked = _first(roles.get("tokens_in", ()))
    if not hits or not asked:
        return
    left = _sum(window.of(n) for n, _ in asked)
    over = _covered(window, (*hits, *asked))
    found: dict[str, list[Growth]] = {}
    for number, meaning in hits:
        found.setdefault(tier_of(_word(number, meaning)) or "", []).append(window.of(number))
    meaning, stale = hits[0][1], hits[0][0].stale
    for tier in ("G1", "G2", "G3", "G4", "remote", ""):
        if tier not in found:
            continue
        some = _sum(found[tier])
        if not tier and not some:  # nothing came from where the source doesn't say
            continue
        share = _share(some, left)
        yield TierHits(
            *member, tier, meaning.part, meaning.unit, over, some, left, share, claim=meaning.claim, stale=stale
        )
        left = None if left is None or some is None else max(0.0, left - some)


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
