"""State of one source over successive readings: growth, restarts, ages and status.

A rate belongs to a moment, which is one sample of all sources: it is the growth since the last moment that had a
reading of the source, over the time between the two. So the sum of rate × time equals the growth, however late the
source answers.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass

from kvdeck.engine.telemetry.block_size import BlockSize
from kvdeck.engine.telemetry.metrics.definitions import Meaning, histogram_of, meaning_of
from kvdeck.engine.telemetry.source import Kind, Labels, Reading, Series, State
from kvdeck.sessions.units import count_text, duration_text, local_time, seconds_text

IDLE_S = 5.0
"""A source is idle if no counter changed for this long."""
RESET_SHOWN_S = 10.0
"""How long a source is reported as `reset` after one."""
MAX_POINTS = 20_000
"""Maximum number of series stored per source, buckets of histograms apart."""
MAX_BUCKETS = 100_000
"""Maximum number of buckets stored per source: about as many as the largest answer has lines."""
MAX_GONE = 1000
"""Absent series stored beyond the number of present ones; bounds memory if labels change all the time."""
FALLEN = 2
"""Number of counters that fall in one reading when a process was restarted that doesn't report its start time."""
_IDENTITY = frozenset(
    (
        "server",
        "instance",
        "engine",
        "pod",
        "hostname",
        "Hostname",
        "gpu",
        "UUID",
        "device",
        "interface",
        "port",
        "pid",
        "container",
        "agent_name",
    )
)
"""Labels that tell who counts. A series with a new value of one belongs to a member that may have counted before.

Not `worker_id`: Dynamo's frontend counts what it sends to each worker, and a worker's own id is new at its start.
"""
_GIVEN = frozenset(("server", "instance", "pod", "container"))
"""Those of them that an aggregator adds: a process that is new doesn't make what they name new."""
_MEMBERS = frozenset(("server", "instance", "engine", "pod", "worker_id", "hostname", "agent_name"))
"""Those of them that name a process."""
MAX_PROCESSES = 8
"""Number of processes behind one address whose values are stored."""
MIXED_SHOWN_S = 600.0
"""How long a source is reported as several processes after one took turns with another."""
_NOISE = ("python_", "process_", "exposer_", "http_", "dynamo_tokio_", "dynamo_frontend_event_loop_")
"""Prefixes of metrics that grow in an idle process too, so their growth doesn't make a source live."""


@dataclass(slots=True, eq=False)
class SeriesState:
    """One series: its last value, and its growth since sampling began."""

    meaning: Meaning | None
    value: float
    born: int = 0
    """Number of readings of the source when the series was first read; 0 if the series is known to have begun at 0."""
    before: float = 0.0
    """Value at the first reading, counted before watching began; 0 if the series is known to have begun later."""
    gained: float = 0.0
    """Growth since sampling began, corrected for restarts and wraps."""
    counted: float = 0.0
    """`gained` at the last moment."""
    grown: float = 0.0
    """Growth in the time that the last moment covers."""
    moved_ns: int | None = None
    """Arrival time of the last growth, monotonic ns."""
    resets: int = 0
    gone: bool = False
    """True if the last reading lacks it."""
    since_ns: int | None = None
    """Of a gauge: arrival time since which it has been above 0, monotonic ns; None while it isn't."""
    expected: bool = True
    """False if it is absent because its process was restarted and hasn't counted it yet."""


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """Status of one source, as `kvdeck monitor` lists it."""

    name: str
    kind: Kind
    state: State
    reason: str
    age_s: float | None
    """Seconds since the last reading; None if there was none."""
    moved_s: float | None = None
    """Seconds since a counter last grew; None if none has."""
    series: int = 0
    """Number of series in the last reading, buckets of histograms apart."""
    unknown: int = 0
    """Number of those without a metric definition."""
    over_s: float | None = None
    """Seconds that the source's rates cover; None if it wasn't read since the last sample, so has no rates."""
    stale: bool = False
    """True if the source doesn't answer, so its values are as old as `age_s` says."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Series in the last reading of a source, grouped into flows and single numbers."""

    flows: dict[str, list[tuple[Series, SeriesState, Meaning]]]
    numbers: list[tuple[Series, SeriesState, dict[str, str]]]
    """Series outside any flow, with their labels."""
    gone: list[str]
    """Names of flow metrics that the last reading lacks, though it should have them."""
    vanished: dict[str, list[tuple[SeriesState, Meaning]]]
    """Series of each flow that the last reading lacks; what they grew by still counts."""
    histograms: list[Buckets]
    present: int = 0
    unknown: int = 0
    counters: bool = False
    """True if any series is a counter."""


@dataclass(frozen=True, slots=True)
class Buckets:
    """The series of one known histogram and set of labels."""

    name: str
    labels: dict[str, str]
    meaning: Meaning
    edges: tuple[float, ...]
    """Finite upper edges, rising, in the definition's unit."""
    counts: tuple[SeriesState, ...]
    """Cumulative counts per edge, and, last, the count of all."""
    sum: SeriesState | None
    before: tuple[int, ...]
    """The counts at the first reading."""


def _histograms_of(points: dict[Series, SeriesState]) -> list[Buckets]:
    """Group the buckets, sums and counts of known histograms; one without a count of all is left out."""
    groups: dict[tuple[str, Labels], dict[float | str, SeriesState]] = {}
    found: dict[str, Meaning] = {}
    for series, point in points.items():
        observed = histogram_of(series.name)
        if observed is None or point.gone:
            continue
        base, found[base] = observed
        part: float | str = series.name[len(base) + 1 :]
        labels = series.labels
        if part == "bucket":
            try:
                part = float(series.label("le"))
            except ValueError:
                continue
            labels = tuple(pair for pair in labels if pair[0] != "le")
        groups.setdefault((base, labels), {})[part] = point
    rows = []
    for (name, labels), parts in groups.items():
        edges = sorted(part for part in parts if isinstance(part, float) and part < math.inf)
        every = parts.get(math.inf, parts.get("count"))
        if every is None:
            continue
        counts = (*(parts[edge] for edge in edges), every)
        scale = found[name].scale
        rows.append(
            Buckets(
                name,
                dict(labels),
                found[name],
                tuple(edge * scale for edge in edges),
                counts,
                parts.get("sum"),
                tuple(int(point.before) for point in counts),
            )
        )
    return rows


def _shape_of(points: dict[Series, SeriesState]) -> Shape:
    flows: dict[str, list[tuple[Series, SeriesState, Meaning]]] = {}
    vanished: dict[str, list[tuple[SeriesState, Meaning]]] = {}
    numbers, gone = [], []
    present = unknown = 0
    for series, point in points.items():
        meaning = point.meaning
        if point.gone:
            if meaning is not None and meaning.flow:
                vanished.setdefault(meaning.flow, []).append((point, meaning))
                gone += [series.name] if point.expected else []
            continue
        if series.is_bucket:
            continue
        present += 1
        if meaning is None:
            unknown += 1
        elif meaning.flow:
            flows.setdefault(meaning.flow, []).append((series, point, meaning))
        elif not meaning.histogram:
            numbers.append((series, point, dict(series.labels)))
    return Shape(
        flows,
        numbers,
        gone,
        vanished,
        _histograms_of(points),
        present,
        unknown,
        any(series.counter for series in points),
    )


class Track:
    """History of one source. `took` and `failed` add readings, and `moment` closes the time that rates cover."""

    def __init__(self, name: str, kind: Kind) -> None:
        self.name = name
        self.kind = kind
        self.points: dict[Series, SeriesState] = {}
        self.limits: dict[Series, float] = {}
        self.block_size: BlockSize | None = None
        """Derived from the source's own counters; the last result stays valid while they disagree during a transfer."""
        self.readings = 0
        self.over_s: float | None = None
        """Seconds that the last moment's rates cover; None if that moment had no reading."""
        self._began = time.time()
        self._started: float | None = None
        self._processes: dict[float, dict[Series, float]] = {}
        """Counters of the processes that answered before this one, by start time."""
        self._mixed_ns: int | None = None
        self._new = False
        """True if the last reading is the first of a process that was started since the one before."""
        self._took_s = 0.0
        self._since_ns = 0
        """Time of the last moment with a reading; before the first moment, of the first reading."""
        self._fresh = False
        """True if there was a reading since the last moment."""
        self._moved: set[SeriesState] = set()
        """Series that grew since the last moment."""
        self._grown: set[SeriesState] = set()
        """Series that grew in the time that the last moment covers."""
        self._members: set[tuple[str, str]] = set()
        """Identity labels seen so far."""
        self._forgot = False
        """True if series were dropped, so an unknown one may have been read before."""
        self._first_ns = 0
        self._last_ns: int | None = None
        self._failing_since: int | None = None
        self._failure = ""
        self._missing = ""
        self._quiet = ""
        self._moved_ns: int | None = None
        self._reset_ns: int | None = None
        self._reset_what = ""
        self._too_many = ""
        """Why series were left out of the last reading; empty if none was."""
        self._t_ns = -1
        self._shape: Shape | None = None

    @property
    def shape(self) -> Shape:
        """Grouped series of the last reading, computed when the set of series changes."""
        if self._shape is None:
            self._shape = _shape_of(self.points)
        return self._shape

    def moment(self, now_ns: int) -> None:
        """Close the time since the last moment at monotonic time `now_ns`: rates cover that time from now on."""
        if now_ns == self._since_ns:
            return
        if not self._fresh:
            self.over_s = None
            self._since_ns = self._since_ns if self.readings else now_ns
            return
        for point in self._grown:
            point.grown = 0.0
        absent = {point for point in self._moved if point.gone}  # its growth counts in the moment of its return
        self._grown, self._moved = self._moved - absent, absent
        for point in self._grown:
            point.grown = point.gained - point.counted
            point.counted = point.gained
        self.over_s = (now_ns - self._since_ns) / 1e9
        self._since_ns, self._fresh = now_ns, False

    def rate(self, point: SeriesState) -> float | None:
        """Return a counter's growth per second in the last moment; None if it isn't known."""
        if not self.over_s or point.gone or point.born >= self.readings:
            return None
        return point.grown / self.over_s

    def took(self, reading: Reading, now_ns: int) -> None:
        """Update from a reading that arrived at monotonic time `now_ns`."""
        self.kind = reading.kind or self.kind
        self.limits.update(reading.limits)
        another = self._is_another_process(reading)
        restarted = set() if another else self._restarted_members(reading)
        self._new = () in restarted or (another and self._is_new(reading))
        changed = reading.changed
        trusted = reading.changed_since == self._t_ns and self._failing_since is None and not self._too_many
        if changed is None or another or restarted or not trusted:
            if another:
                self._change_process(reading, now_ns)
            if restarted:
                self._restart(restarted, reading)
            self._take_all(reading, now_ns)
            if restarted:  # in place of the name of the last counter that fell
                self._reset_ns, self._reset_what = now_ns, _restart_text(restarted)
        else:
            for series in changed:
                self._update(series, self.points[series], reading.values[series], now_ns)
        self._missing = reading.missing
        self._quiet = reading.quiet
        self._failing_since = None
        self._took_s = reading.took_s
        self._started = reading.started if reading.started is not None else self._started
        if not self.readings:
            self._first_ns = now_ns
            self._since_ns = self._since_ns or now_ns
        self.readings += 1
        self._fresh = True
        self._last_ns = now_ns
        self._t_ns = reading.t_ns

    def _take_all(self, reading: Reading, now_ns: int) -> None:
        points = self.points
        self._too_many = ""
        new: list[tuple[Series, float]] = []
        for series, value in reading.values.items():
            point = points.get(series)
            if point is None:
                new.append((series, value))
            elif point.gone or point.value != value:
                self._update(series, point, value, now_ns)
        room = self._room() if new else {}
        for series, value in new:
            if room[series.is_bucket] <= 0:
                limit = f"{count_text(MAX_BUCKETS)} buckets" if series.is_bucket else f"{count_text(MAX_POINTS)} series"
                self._too_many, self._forgot = f"more than {limit}: the rest is ignored", True
                continue
            room[series.is_bucket] -= 1
            points[series] = self._first(series, value, reading, now_ns)
            self._shape = None
        for series, _ in new:
            self._members.update(pair for pair in series.labels if pair[0] in _IDENTITY)
        if len(points) != len(reading.values):
            for series, point in points.items():
                if not point.gone and series not in reading.values:
                    point.gone, self._shape = True, None
        if self._too_many or len(points) > 2 * len(reading.values) + MAX_GONE:
            self.points = {series: point for series, point in points.items() if not point.gone}
            self._shape, self._forgot = None, True

    def _room(self) -> dict[bool, int]:
        """Return how many more buckets (True) and other series (False) can be stored."""
        buckets = sum(series.is_bucket for series in self.points)
        return {True: MAX_BUCKETS - buckets, False: MAX_POINTS - (len(self.points) - buckets)}

    def _first(self, series: Series, value: float, reading: Reading, now_ns: int) -> SeriesState:
        """Return the state of a series that is read for the first time.

        A labelled counter isn't exported before its first use. So in a source that was read before, it began at 0.
        """
        point = SeriesState(meaning_of(series), value, self.readings + 1, before=value)
        if not series.counter and value > 0:
            point.since_ns = now_ns
        if series.counter and self._began_at_0(series, reading):
            point.born, point.value, point.before = 0, 0.0, 0.0
            self._update(series, point, value, now_ns)
        return point

    def _began_at_0(self, series: Series, reading: Reading) -> bool:
        """True if the series is known to have begun at 0 since sampling began."""
        if not self.readings:
            # A process that was started while its address was sampled already.
            return self._failing_since is not None and (reading.started or 0.0) - reading.ahead_s > self._began
        others = {pair[0] for pair in series.labels if pair[0] in _IDENTITY and pair not in self._members}
        # Where no series had the label, it tells no member from others: the process names itself with its first use.
        others -= {label for label in others - _GIVEN if all(label != known for known, _ in self._members)}
        if others:
            created = reading.created(series) if reading.created is not None else None
            if created is None:
                return self._new and not _GIVEN.intersection(others)
            return created - reading.ahead_s > self._began
        return not self._forgot and not self._missing

    def _is_another_process(self, reading: Reading) -> bool:
        """True if the process that answers isn't the one that answered before."""
        if reading.started is None or self._started is None:
            return False
        return abs(reading.started - self._started) > 1.0

    def _is_new(self, reading: Reading) -> bool:
        """True if the process that answers was started after the one that answered before, and is read first now."""
        assert reading.started is not None
        return reading.started > (self._started or 0.0) and self._known_values(reading.started) is None

    def _known_values(self, started: float) -> dict[Series, float] | None:
        """Return the last counters of the process that was started at that time; None if it never answered."""
        return next((values for at, values in self._processes.items() if abs(at - started) <= 1.0), None)

    def _change_process(self, reading: Reading, now_ns: int) -> None:
        """Continue from what the process had counted: 0 if it is new, else its last values, if it answered before."""
        started, before = reading.started, self._started
        assert started is not None
        assert before is not None
        known = self._known_values(started)
        self._processes[before] = {s: p.value for s, p in self.points.items() if s.counter and not p.gone}
        for old in list(self._processes)[:-MAX_PROCESSES]:
            del self._processes[old]
        if self._new:
            self._reset_ns = now_ns
            self._reset_what = f"restarted at {local_time(started - reading.ahead_s, '%H:%M:%S')}; totals begin again"
        else:  # neither a restart nor the only process here
            self._mixed_ns = now_ns
        for series, point in self.points.items():
            if series.counter and self._new:
                point.resets += point.value > 0
                point.value = 0.0
            elif series.counter:
                point.value = (reading.values if known is None else known).get(series, 0.0)
            point.since_ns = None
            point.expected = series in reading.values
        self._shape = None

    def _restarted_members(self, reading: Reading) -> set[Labels]:
        """Return the members of the source of which at least half of the counters that changed fell, two or more.

        Without several members it is the whole source, `()`, unless its process is known to be the same.
        """
        series = reading.values if reading.changed is None else reading.changed
        moved = [one for one in series if one.counter and self._value(one) not in (0.0, reading.values[one])]
        fallen = [one for one in moved if _has_fallen(one, self._value(one), reading.values[one])]
        if len(fallen) < FALLEN:
            return set()
        several = len({_member_of(one) for one in self.points if one.counter and _member_of(one)}) > 1
        fell, changed = (Counter(_member_of(one) if several else () for one in ones) for ones in (fallen, moved))
        found = {member for member in fell if fell[member] >= FALLEN and 2 * fell[member] >= changed[member]}
        return found if reading.started is None or self._started is None else found - {()}

    def _value(self, series: Series) -> float:
        point = self.points.get(series)
        return 0.0 if point is None else point.value

    def _restart(self, members: set[Labels], reading: Reading) -> None:
        """Let the counters that restarted members haven't counted yet begin at 0; they are not missing.

        Those that the reading has either fell, which counts from 0, or may be continued.
        """
        for series, point in self.points.items():
            if () not in members and _member_of(series) not in members:
                continue
            point.since_ns = None
            point.expected = series in reading.values
            if series.counter and not point.expected:
                point.resets += point.value > 0
                point.value = 0.0
        self._shape = None

    def failed(self, reason: str, now_ns: int) -> None:
        """Record a failed reading."""
        if self._failing_since is None:
            self._failing_since = now_ns
        self._failure = reason

    def _update(self, series: Series, point: SeriesState, value: float, now_ns: int) -> None:
        if point.gone:
            self._shape = None
        point.gone, point.expected = False, True
        delta = value - point.value
        point.value = value
        if not series.counter:
            point.since_ns = None if value <= 0 else now_ns if point.since_ns is None else point.since_ns
            return
        if not delta:
            return
        if delta < 0:
            delta = self._fallen(series, point, value - delta, value, now_ns)
        if delta > 0:
            point.moved_ns = now_ns
            if point.meaning is not None or not series.name.startswith(_NOISE):
                self._moved_ns = now_ns
            point.gained += delta
            if not series.is_bucket:  # its rate is of no use
                self._moved.add(point)

    def _fallen(self, series: Series, point: SeriesState, before: float, value: float, now_ns: int) -> float:
        """Return the growth across a wrap, or since a reset; what grew before a reset isn't known."""
        top = float(1 << series.wrap_bits)
        if before <= top and before > 0.9 * top and value < 0.1 * top:
            return top - before + value
        point.resets += 1
        self._reset_ns, self._reset_what = now_ns, f"{series.name} restarted; its total begins again"
        return value

    def status(self, now_ns: int, period_s: float) -> SourceStatus:
        """Return the status at monotonic time `now_ns` of a source that is read every `period_s` seconds."""
        state, reason = self._state(now_ns, period_s)
        age = None if self._last_ns is None else (now_ns - self._last_ns) / 1e9
        moved = None if self._moved_ns is None else (now_ns - self._moved_ns) / 1e9
        present, unknown = self.shape.present, self.shape.unknown
        stale = state in ("unreachable", "stale")
        return SourceStatus(self.name, self.kind, state, reason, age, moved, present, unknown, self.over_s, stale)

    def _state(self, now_ns: int, period_s: float) -> tuple[State, str]:
        if self._failing_since is not None:
            since = (now_ns - self._failing_since) / 1e9
            return (
                "unreachable",
                f"{self._failure} (for {duration_text(int(since))})" if since >= 1 else self._failure,
            )
        if self._last_ns is None:
            return "unreachable", "no answer yet"
        age = (now_ns - self._last_ns) / 1e9
        if age > max(3 * period_s, 3.0, 2 * self._took_s + period_s):
            return "stale", f"last answered {duration_text(int(age))} ago"
        if self._reset_ns is not None and now_ns - self._reset_ns < RESET_SHOWN_S * 1e9:
            return "reset", self._reset_what
        missing = self._what_is_missing(now_ns)
        if missing:
            return "partial", missing
        state, reason = self._idle_or_live(now_ns)
        slow = f"slow ({seconds_text(self._took_s)} per answer)" if self._took_s > period_s else ""
        return state, "; ".join(part for part in (slow, reason) if part)

    def _what_is_missing(self, now_ns: int) -> str:
        if self._missing:
            return self._missing
        if self._mixed_ns is not None and now_ns - self._mixed_ns < MIXED_SHOWN_S * 1e9:
            return "several processes answer here in turn, so totals jump: give each its own address"
        if self._too_many:
            return self._too_many
        gone = self.shape.gone
        if gone and self.kind not in ("process", "ring"):
            more = f" and {count_text(len(gone) - 1)} more" if len(gone) > 1 else ""
            return f"no longer reports {gone[0]}{more}"
        return ""

    def _idle_or_live(self, now_ns: int) -> tuple[State, str]:
        if self._quiet:
            return "idle", self._quiet
        since = self._moved_ns if self._moved_ns is not None else self._first_ns
        still = (now_ns - since) / 1e9
        if still >= IDLE_S and self.shape.counters:
            return "idle", f"no counter changed for {duration_text(int(still))}"
        return "live", ""


def _has_fallen(series: Series, before: float, value: float) -> bool:
    """True if a counter fell without wrapping."""
    return value < before < 0.9 * (1 << series.wrap_bits)


def _member_of(series: Series) -> Labels:
    """Return the labels that tell the process that counts a series from others of its source."""
    return tuple(pair for pair in series.labels if pair[0] in _MEMBERS)


def _restart_text(members: set[Labels]) -> str:
    if () in members:
        return "restarted; totals begin again"
    names = sorted(" ".join(f"{label} {value}" for label, value in member) for member in members)
    return f"{', '.join(names)} restarted; totals begin again"
