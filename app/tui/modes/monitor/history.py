"""Bounded history of live telemetry: ten minutes of whole samples, and the rates that sparklines draw."""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

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
"""A rate covers the time since the previous sample, if that is at most this many seconds and more than it says."""
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
        return from_mapping(load_record(zlib.decompress(self._packed[place])))


def flow_key(flow: Flow) -> str:
    """Return a key that is unique per flow and stable across samples and restarts."""
    return f"{flow.source} {flow.name}"


def number_key(number: Number) -> str:
    """Return a key that is unique per counter or gauge: source, name and labels."""
    labels = ",".join(f"{name}={value}" for name, value in sorted(number.labels.items()))
    return f"{number.source} {number.name}{{{labels}}}"


def flow_rate(flow: Flow) -> float | None:
    """Return bytes per second, else blocks per second; None if neither is known."""
    return flow.bytes_per_s if flow.bytes_per_s is not None else flow.blocks_per_s


def _rate_key(flow: Flow) -> str:
    # Once the block size is known, blocks become bytes. The two must not share one sparkline's scale.
    return f"{flow_key(flow)} {'blocks' if flow.bytes_total is None else 'bytes'}"


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

    A rate is known with the time that it covers, so rate × time is the growth, in every cell of a sparkline too.
    """

    def __init__(self, span_s: float = RATES_S) -> None:
        self.span_s = span_s
        self._rates: dict[str, list[_Rate]] = {}
        self._dropped: dict[str, int] = {}
        """Number of rates that became too old, by key."""
        self._seen: dict[str, float] = {}
        """Unix time of the last sample that had the key."""
        self._drawn: dict[tuple[str, int], _Drawn] = {}

    def note(self, moment: Snapshot) -> None:
        """Add a sample's rates; drop series without a rate for `span_s`."""
        covers = {source.name: source.over_s for source in moment.sources}
        for flow in moment.flows:
            self._add(_rate_key(flow), moment.t, flow_rate(flow), covers.get(flow.source))
        for number in moment.pinned:
            value = number.per_s if number.gained is not None else number.value
            self._add(number_key(number), moment.t, value, covers.get(number.source))
        for key, t in list(self._seen.items()):
            if t < moment.t - self.span_s:
                for of_key in (self._seen, self._rates, self._dropped):
                    of_key.pop(key, None)
        if len(self._drawn) > 4 * len(self._seen) + 64:
            self._drawn.clear()

    def _add(self, key: str, t: float, value: float | None, over_s: float | None) -> None:
        before = self._seen.get(key)
        if before is not None and t <= before:
            return
        self._seen[key] = t
        rates = self._rates.setdefault(key, [])
        if value is None:
            return
        begin = t - (over_s or 0.0)
        if before is not None and t - before <= HELD_S:
            begin = min(begin, before)
        begin = max(min(begin, t - 1e-3), rates[-1].end if rates else 0.0)
        if rates and t // RATES_STEP_S == (last := rates[-1]).end // RATES_STEP_S and begin == last.end:
            grown = last.value * (last.end - last.begin) + value * (t - begin)
            last.end, last.value = t, grown / (t - last.begin)
            return
        rates.append(_Rate(begin, t, value))
        if rates[0].end < t - self.span_s - SPARK_S:  # in batches, not with every sample
            late = bisect_right(rates, t - self.span_s, key=_end)
            del rates[:late]
            self._dropped[key] = self._dropped.get(key, 0) + late

    def cells(self, key: str, now: float, width: int, span_s: float = SPARK_S) -> list[float | None]:
        """Return the mean rate in each of `width` time steps up to `now`; None where no rate is known.

        Steps are aligned to the clock, not to `now`, so successive calls differ only in the newest steps.
        """
        step = span_s / width
        first = int(now // step) - width + 1
        rates, dropped = self._rates.get(key, []), self._dropped.get(key, 0)
        drawn = self._drawn.get((key, width))
        whole = drawn is None or drawn.step != step or drawn.first > first or drawn.next < dropped
        if drawn is None or whole or first - drawn.first >= width:
            start = bisect_right(rates, first * step, key=_end) + dropped
            drawn = self._drawn[key, width] = _Drawn(step, first, [0.0] * width, [0.0] * width, start)
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

    def flow_spark(self, flow: Flow, now: float, width: int) -> str:
        """Return a sparkline of a flow's last two minutes."""
        return self.spark(_rate_key(flow), now, width)

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
