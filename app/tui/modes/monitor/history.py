"""Bounded history of live telemetry: ten minutes of whole samples, and the rates that sparklines draw."""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import orjson

from kvdeck.engine.telemetry.sample import Flow, Number, Snapshot, from_mapping, to_mapping
from kvdeck.sessions.host.documents import load_record

SPAN_S = 600.0
"""Seconds of whole samples stored."""
STEP_S = 1.0
"""One sample is stored per step of this many seconds, at any sampling rate."""
SPARK_S = 120.0
RATES_S = SPAN_S + SPARK_S
HELD_S = 6.0
"""A value without the time that it covers holds since the previous sample, if that is at most this many seconds."""
CLOCK_S = 0.05
"""Longest gap in seconds between two rates that comes from the clock, which is adjusted all the time."""
RATES_STEP_S = 0.5
"""Rates that end within the same step of this many seconds are merged into their mean over time."""
_BARS = "▁▂▃▄▅▆▇█"


def pack(moment: Snapshot) -> bytes:
    """Return a sample as compressed JSON: a tenth of the JSON's size (3.4 kB for seven endpoints, measured)."""
    return zlib.compress(orjson.dumps(to_mapping(moment)), 1)


class History:
    """Samples of the last `span_s` seconds, one per `step_s`: at most 600 by default."""

    def __init__(self, span_s: float = SPAN_S, step_s: float = STEP_S) -> None:
        self.span_s, self.step_s = span_s, step_s
        self._times: list[float] = []
        self._packed: list[bytes] = []

    def note(self, moment: Snapshot, packed: bytes = b"") -> None:
        """Store a sample, already packed or not, unless its step has one; drop those older than `span_s`."""
        if self._times and moment.t // self.step_s <= self._times[-1] // self.step_s:
            return
        self._times.append(moment.t)
        self._packed.append(packed or pack(moment))
        late = bisect_right(self._times, moment.t - self.span_s)
        del self._times[:late], self._packed[:late]

    @property
    def begin(self) -> float | None:
        return self._times[0] if self._times else None

    @property
    def end(self) -> float | None:
        return self._times[-1] if self._times else None

    def __len__(self) -> int:
        return len(self._times)

    @property
    def bytes(self) -> int:
        return sum(map(len, self._packed))

    def at(self, t: float) -> Snapshot | None:
        """Return the newest sample at or before `t`, the first one if `t` is earlier; None if the history is empty."""
        if not self._times:
            return None
        place = max(0, bisect_right(self._times, t) - 1)
        moment = from_mapping(load_record(zlib.decompress(self._packed[place])))
        return replace(moment, t=self._times[place])

    def shift(self, seconds: float) -> None:
        """Move all samples in time, because the clock was set."""
        self._times = [t + seconds for t in self._times]


def flow_key(flow: Flow) -> str:
    """Return a key that is unique per flow and stable across samples and restarts."""
    return f"{flow.source} {flow.name}"


def number_key(number: Number) -> str:
    """Return a key that is unique per counter or gauge: source, name and labels."""
    labels = ",".join(f"{name}={value}" for name, value in sorted(number.labels.items()))
    return f"{number.source} {number.name}{{{labels}}}"


def flow_rate(flow: Flow) -> float | None:
    """Return bytes per second, or blocks per second of a flow whose bytes aren't counted; None if it isn't known."""
    return flow.blocks_per_s if flow.bytes_total is None else flow.bytes_per_s


def _gained(flow: Flow) -> tuple[float | None, float] | None:
    """Return a flow's count before watching and its growth since, in the unit of its rate; None if not known."""
    if flow.bytes_total is not None:
        return _from_0(flow.bytes_before, flow.bytes_gained)
    return _from_0(flow.blocks_before, flow.blocks_gained)


def _from_0(before: float | None, gained: float | None) -> tuple[float | None, float] | None:
    """Return the two; what has been read once has gained nothing yet."""
    if gained is None:
        return None if before is None else (before, 0.0)
    return before, gained


def is_counter(number: Number) -> bool:
    """True for a counter, also one that was read only once."""
    return number.gained is not None or number.before is not None


def _rate_key(flow: Flow) -> str:
    # Once the block size is known, blocks become bytes. The two must not share one sparkline's scale.
    return f"{flow_key(flow)} {'blocks' if flow.bytes_total is None else 'bytes'}"


class _Level(NamedTuple):
    """A counter as of the last sample with a rate of it."""

    t: float
    at_ns: int
    since_ns: int
    before: float | None
    gained: float

    def grown(self, later: _Level) -> tuple[float, float] | None:
        """Return growth and seconds from here to a later level; None if they can't be compared."""
        same = later.since_ns == self.since_ns if later.since_ns and self.since_ns else later.before == self.before
        seconds = (later.at_ns - self.at_ns) / 1e9 if later.at_ns and self.at_ns else later.t - self.t
        if not same or later.gained < self.gained or seconds <= 0:
            return None
        return later.gained - self.gained, seconds


@dataclass(slots=True)
class _Rate:
    """A rate in units per second and the time it covers, as Unix times in seconds."""

    begin: float
    end: float
    value: float


@dataclass(slots=True)
class _Drawn:
    """Growth and time in each cell of a sparkline, so that a redraw reads only newer rates."""

    step: float
    first: int
    """Number of the first cell's time step since the epoch."""
    growth: list[float]
    seconds: list[float]
    next: int
    """Number of the first rate that isn't included."""


class Rates:
    """Rates of flows and pinned series over the last `span_s` seconds.

    A rate is known with the time that it covers, so rate × time is the growth, in every cell of a sparkline too. Where
    samples are missing between two of one sampler, the rate is the growth between them.
    """

    def __init__(self, span_s: float = RATES_S) -> None:
        self.span_s = span_s
        self._rates: dict[str, list[_Rate]] = {}
        self._dropped: dict[str, int] = {}
        """Number of rates that became too old, by key."""
        self._seen: dict[str, float] = {}
        """Unix time of the last sample that had the key."""
        self._levels: dict[str, _Level] = {}
        self._drawn: dict[tuple[str, int, float], _Drawn] = {}

    def note(self, moment: Snapshot) -> None:
        """Add a sample's rates; drop series without a rate for `span_s`."""
        covers = {source.name: source.over_s for source in moment.sources}
        clocks = moment.t, moment.at_ns, moment.since_ns
        for flow in moment.flows:
            level = None if (known := _gained(flow)) is None else _Level(*clocks, *known)
            self._add(_rate_key(flow), moment.t, flow_rate(flow), covers.get(flow.source), level)
        for number in moment.pinned:
            value = number.per_s if is_counter(number) else number.value
            level = None if (known := _from_0(number.before, number.gained)) is None else _Level(*clocks, *known)
            self._add(number_key(number), moment.t, value, covers.get(number.source), level)
        for key, t in list(self._seen.items()):
            if t < moment.t - self.span_s:
                for of_key in (self._seen, self._rates, self._dropped, self._levels):
                    of_key.pop(key, None)
        if len(self._drawn) > 4 * len(self._seen) + 64:
            self._drawn.clear()

    def shift(self, seconds: float) -> None:
        """Move all rates in time, because the clock was set."""
        for rates in self._rates.values():
            for rate in rates:
                rate.begin, rate.end = rate.begin + seconds, rate.end + seconds
        self._seen = {key: t + seconds for key, t in self._seen.items()}
        self._levels = {key: level._replace(t=level.t + seconds) for key, level in self._levels.items()}
        self._drawn.clear()

    def _add(self, key: str, t: float, value: float | None, over_s: float | None, level: _Level | None) -> None:
        before = self._seen.get(key)
        if before is not None and t <= before:
            return
        self._seen[key] = t
        rates = self._rates.setdefault(key, [])
        last = self._levels.get(key)
        if level is not None and over_s is not None and (value is not None or last is None):
            self._levels[key] = level
        if value is None:
            return
        end = rates[-1].end if rates else 0.0
        if level is None or over_s is None:
            held = before is not None and t - before <= HELD_S
            begin = max(min(t - max(over_s or 0.0, 1e-3), before if held and before is not None else t), end)
        else:
            grown = last.grown(level) if last is not None else None
            missing = grown is not None and grown[1] > over_s + CLOCK_S
            growth, seconds = grown if grown is not None and missing else (value * over_s, over_s)
            begin = t - seconds
            if abs(begin - end) < CLOCK_S:
                begin, seconds = end, t - end
            begin, value = max(begin, end), growth / seconds
        if rates and t // RATES_STEP_S == rates[-1].end // RATES_STEP_S and begin == rates[-1].end:
            total = rates[-1].value * (rates[-1].end - rates[-1].begin) + value * (t - begin)
            rates[-1].end, rates[-1].value = t, total / (t - rates[-1].begin)
            return
        rates.append(_Rate(begin, t, value))
        if rates[0].end < t - self.span_s - SPARK_S:  # in batches, not with every sample
            late = bisect_right(rates, t - self.span_s, key=_end)
            del rates[:late]
            self._dropped[key] = self._dropped.get(key, 0) + late

    def cells(self, key: str, now: float, width: int, span_s: float = SPARK_S, even: int = 1) -> list[float | None]:
        """Return the mean rate in each of `width` time steps up to `now`; None where no rate is known.

        Steps are aligned to the clock, not to `now`, so successive calls differ only in the newest steps.

        Args:
            even: The last step's number is the last one of a group of so many: steps after `now` are None.
        """
        step = span_s / width
        last = int(now // step)
        first = last + (even - 1 - last % even) - width + 1
        rates, dropped = self._rates.get(key, []), self._dropped.get(key, 0)
        drawn = self._drawn.get((key, width, span_s))
        whole = drawn is None or drawn.step != step or drawn.first > first or drawn.next < dropped
        if drawn is None or whole or first - drawn.first >= width:
            start = bisect_right(rates, first * step, key=_end) + dropped
            drawn = self._drawn[key, width, span_s] = _Drawn(step, first, [0.0] * width, [0.0] * width, start)
        elif (late := first - drawn.first) > 0:
            drawn.first = first
            for values in (drawn.growth, drawn.seconds):
                values[:] = values[late:] + [0.0] * late
        # The newest rate may still be merged with a later one, and rates after `now` are not drawn yet.
        closed = min(len(rates) - 1, bisect_right(rates, now, key=_end))
        for rate in rates[drawn.next - dropped : max(closed, drawn.next - dropped)]:
            _draw(rate, drawn.growth, drawn.seconds, step, first)
        drawn.next = max(drawn.next, closed + dropped)
        growth, seconds = drawn.growth, drawn.seconds
        if left := [rate for rate in rates[drawn.next - dropped :] if rate.end <= now]:
            growth, seconds = list(growth), list(seconds)
            for rate in left:
                _draw(rate, growth, seconds, step, first)
        return [grown / s if s > 0 else None for grown, s in zip(growth, seconds, strict=True)]

    def spark(self, key: str, now: float, width: int, span_s: float = SPARK_S) -> str:
        """Return `cells` as bars in eighths, scaled to their maximum; a space where no rate is known."""
        cells = self.cells(key, now, width, span_s)
        top = max((value for value in cells if value is not None), default=0.0)
        return "".join(" " if value is None else bar(value, top) for value in cells)

    def flow_cells(self, flow: Flow, now: float, width: int, span_s: float = SPARK_S) -> list[float | None]:
        """Return a flow's mean rates in `width` pairs of time steps, as `cells` does: two for each braille cell."""
        return self.cells(_rate_key(flow), now, 2 * width, span_s, even=2)

    def sum_cells(self, flows: Iterable[Flow], now: float, width: int, span_s: float = SPARK_S) -> list[float | None]:
        """Return the sums of the flows' rates that are known in each step; None where none is."""
        total: list[float | None] = [None] * (2 * width)
        for flow in flows:
            for place, value in enumerate(self.flow_cells(flow, now, width, span_s)):
                if value is not None:
                    total[place] = (total[place] or 0.0) + value
        return total

    def number_spark(self, number: Number, now: float, width: int) -> str:
        """Return a sparkline of a pinned series' last two minutes."""
        return self.spark(number_key(number), now, width)

    def points(self, begin: float, end: float) -> Iterator[tuple[str, float, float]]:
        """Yield (series key, Unix time, rate) for every known rate from `begin` to `end`."""
        for key, rates in self._rates.items():
            for rate in rates:
                if begin <= rate.end <= end:
                    yield key, rate.end, rate.value


def _end(rate: _Rate) -> float:
    return rate.end


def _draw(rate: _Rate, growth: list[float], seconds: list[float], step: float, first: int) -> None:
    """Add a rate's growth and time to each cell that it covers."""
    place = max(0, int(rate.begin // step) - first)
    while place < len(growth) and (begin := max(rate.begin, (first + place) * step)) < rate.end:
        covered = min(rate.end, (first + place + 1) * step) - begin
        if covered > 0:
            growth[place] += rate.value * covered
            seconds[place] += covered
        place += 1


def bar(value: float, top: float) -> str:
    """Return one bar in eighths of `top`; the lowest bar for values not above zero."""
    if top <= 0 or value <= 0:
        return _BARS[0]
    return _BARS[min(len(_BARS) - 1, int(value / top * len(_BARS)))]
