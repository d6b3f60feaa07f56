"""State of one source over successive readings: rates, resets, ages and status."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from kvdeck.engine.telemetry.block_size import BlockSize
from kvdeck.engine.telemetry.metrics.definitions import Meaning, meaning_of
from kvdeck.engine.telemetry.source import Kind, Reading, Series, State
from kvdeck.sessions.units import count_text, duration_text

IDLE_S = 5.0
"""A source is idle if no counter changed for this long."""
RESET_SHOWN_S = 10.0
"""How long a source is reported as `reset` after one."""
MAX_POINTS = 20_000
"""Maximum number of series stored per source."""
MAX_GONE = 1000
"""Absent series stored beyond the number of present ones; bounds memory if labels change all the time."""
_NOISE = ("python_", "process_", "exposer_", "http_", "dynamo_tokio_", "dynamo_frontend_event_loop_")
"""Prefixes of metrics that grow in an idle process too, so their growth doesn't make a source live."""


@dataclass(slots=True)
class Point:
    """One series: its last value, rate, and growth since sampling began."""

    meaning: Meaning | None
    value: float
    t_ns: int
    """Time of the value in ns; not updated by incremental readings in which the value is unchanged."""
    rate: float | None = None
    """Units per second between the last two readings; None before the second one and across a reset."""
    gained: float = 0.0
    """Growth since sampling began, corrected for resets and wraps."""
    moved_ns: int | None = None
    """Arrival time of the last growth, monotonic ns."""
    resets: int = 0
    gone: bool = False
    """True if the last reading lacks it."""


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
    """Number of series in the last reading."""
    unknown: int = 0
    """Number of those without a metric definition."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Series in the last reading of a source, grouped into flows and single numbers."""

    flows: dict[str, list[tuple[Series, Point, Meaning]]]
    numbers: list[tuple[Series, Point, dict[str, str]]]
    """Series outside any flow, with their labels."""
    gone: list[str]
    """Names of flow metrics that the last reading lacks."""
    present: int = 0
    unknown: int = 0
    counters: bool = False
    """True if any series is a counter."""


def _shape_of(points: dict[Series, Point]) -> Shape:
    flows: dict[str, list[tuple[Series, Point, Meaning]]] = {}
    numbers, gone = [], []
    present = unknown = 0
    for series, point in points.items():
        meaning = point.meaning
        if point.gone:
            if meaning is not None and meaning.flow:
                gone.append(series.name)
            continue
        present += 1
        if meaning is None:
            unknown += 1
        elif meaning.flow:
            flows.setdefault(meaning.flow, []).append((series, point, meaning))
        else:
            numbers.append((series, point, dict(series.labels)))
    return Shape(flows, numbers, gone, present, unknown, any(series.counter for series in points))


class Track:
    """History of one source; rates come from its last two readings."""

    def __init__(self, name: str, kind: Kind) -> None:
        self.name = name
        self.kind = kind
        self.points: dict[Series, Point] = {}
        self.limits: dict[Series, float] = {}
        self.block_size: BlockSize | None = None
        """Derived from the source's own counters; the last result stays valid while they disagree during a transfer."""
        self.readings = 0
        self._first_ns = 0
        self._last_ns: int | None = None
        self._failing_since: int | None = None
        self._failure = ""
        self._missing = ""
        self._quiet = ""
        self._moved_ns: int | None = None
        self._reset_ns: int | None = None
        self._reset_what = ""
        self._too_many = False
        self._t_ns = -1
        self._unsettled: list[Point] = []
        """Points whose rate isn't 0 after the last reading; an incremental reading resets them."""
        self._shape: Shape | None = None

    @property
    def shape(self) -> Shape:
        """Grouped series of the last reading, computed when the set of series changes."""
        if self._shape is None:
            self._shape = _shape_of(self.points)
        return self._shape

    def took(self, reading: Reading, now_ns: int) -> None:
        """Update from a reading that arrived at monotonic time `now_ns`."""
        self.kind = reading.kind or self.kind
        self.limits.update(reading.limits)
        self._missing = reading.missing
        self._quiet = reading.quiet
        changed = reading.changed
        if changed is None or self._failing_since is not None or reading.changed_since != self._t_ns or self._too_many:
            self._take_all(reading, now_ns)
        else:
            self._take_changed(reading, changed, now_ns)
        self._failing_since = None
        if not self.readings:
            self._first_ns = now_ns
        self.readings += 1
        self._last_ns = now_ns
        self._t_ns = reading.t_ns

    def _take_all(self, reading: Reading, now_ns: int) -> None:
        points = self.points
        self._too_many = False
        for series, value in reading.values.items():
            point = points.get(series)
            if point is None:
                if len(points) < MAX_POINTS:
                    points[series] = Point(meaning_of(series), value, reading.times.get(series, reading.t_ns))
                    self._shape = None
                else:
                    self._too_many = True
                continue
            own = reading.times.get(series)
            if own is not None:
                self._update(series, point, value, point.t_ns, own, now_ns)
            else:  # incremental readings don't update t_ns of an unchanged point
                before = point.t_ns if point.gone else max(point.t_ns, self._t_ns)
                self._update(series, point, value, before, reading.t_ns, now_ns)
        if len(points) != len(reading.values):
            for series, point in points.items():
                if not point.gone and series not in reading.values:
                    point.gone, point.rate, self._shape = True, None, None
        if self._too_many or len(points) > 2 * len(reading.values) + MAX_GONE:
            self.points = {series: point for series, point in points.items() if not point.gone}
            self._shape = None
        self._unsettled = [point for point in self.points.values() if point.rate != 0.0 and not point.gone]

    def _take_changed(self, reading: Reading, changed: Collection[Series], now_ns: int) -> None:
        """Update from an incremental reading: same set of series, and values differ only in `changed`."""
        for point in self._unsettled:
            point.rate = 0.0
        for series in changed:
            point = self.points[series]
            self._update(series, point, reading.values[series], self._t_ns, reading.t_ns, now_ns)
        self._unsettled = [self.points[series] for series in changed]

    def failed(self, reason: str, now_ns: int) -> None:
        """Record a failed reading; all rates become unknown."""
        if self._failing_since is None:
            self._failing_since = now_ns
            for point in self.points.values():
                point.rate = None
        self._failure = reason

    def _update(self, series: Series, point: Point, value: float, before_ns: int, t_ns: int, now_ns: int) -> None:
        if t_ns == before_ns:  # the source has no newer value
            return
        if point.gone:
            self._shape = None
        delta = value - point.value
        if series.counter:
            if delta < 0:
                delta = self._fallen(series, point, value, now_ns)
                if delta < 0:
                    point.value, point.t_ns, point.rate, point.gone = value, t_ns, None, False
                    return
            if delta > 0:
                point.moved_ns = now_ns
                if point.meaning is not None or not series.name.startswith(_NOISE):
                    self._moved_ns = now_ns
            point.gained += delta
        seconds = (t_ns - before_ns) / 1e9
        point.rate = delta / seconds if seconds > 0 and not point.gone else None
        point.value, point.t_ns, point.gone = value, t_ns, False

    def _fallen(self, series: Series, point: Point, value: float, now_ns: int) -> float:
        """Return the growth across a wrap, or -1 for a reset, where the growth before the reset is unknown."""
        top = float(1 << series.wrap_bits)
        if point.value <= top and point.value > 0.9 * top and value < 0.1 * top:
            return top - point.value + value
        point.resets += 1
        point.gained += value
        self._reset_ns, self._reset_what = now_ns, series.name
        return -1.0

    def status(self, now_ns: int, period_s: float) -> SourceStatus:
        """Return the status at monotonic time `now_ns` of a source that is read every `period_s` seconds."""
        state, reason = self._state(now_ns, period_s)
        age = None if self._last_ns is None else (now_ns - self._last_ns) / 1e9
        moved = None if self._moved_ns is None else (now_ns - self._moved_ns) / 1e9
        return SourceStatus(self.name, self.kind, state, reason, age, moved, self.shape.present, self.shape.unknown)

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
        if age > max(3 * period_s, 3.0):
            return "stale", f"last answered {duration_text(int(age))} ago"
        if self._reset_ns is not None and now_ns - self._reset_ns < RESET_SHOWN_S * 1e9:
            return "reset", f"{self._reset_what} restarted; totals begin again"
        missing = self._what_is_missing()
        if missing:
            return "partial", missing
        return self._idle_or_live(now_ns)

    def _what_is_missing(self) -> str:
        if self._missing:
            return self._missing
        if self._too_many:
            return f"more than {count_text(MAX_POINTS)} series: the rest is ignored"
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
