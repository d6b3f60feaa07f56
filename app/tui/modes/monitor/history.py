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
"""A rate covers the time since the previous sample if that is at most this many seconds; else only its own slot."""
RATES_STEP_S = 0.5
"""Rates within the same step of this many seconds are merged into their maximum."""
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
class _Drawn:
    """Cached cells of a sparkline, so that a redraw reads only newer rates."""

    step: float
    first: int
    most: list[float | None]
    until: float
    """Unix time of the newest rate included."""


class Rates:
    """Rates of flows and pinned series over the last `span_s` seconds."""

    def __init__(self, span_s: float = RATES_S) -> None:
        self.span_s = span_s
        self._times: dict[str, list[float]] = {}
        self._values: dict[str, list[float | None]] = {}
        self._drawn: dict[tuple[str, int], _Drawn] = {}

    def note(self, moment: Snapshot) -> None:
        """Add a sample's rates; drop series without a rate for `span_s`."""
        for flow in moment.flows:
            self._add(_rate_key(flow), moment.t, flow_rate(flow))
        for number in moment.pinned:
            self._add(number_key(number), moment.t, number.per_s if number.gained is not None else number.value)
        for key, times in list(self._times.items()):
            if times[-1] < moment.t - self.span_s:
                del self._times[key], self._values[key]
        if len(self._drawn) > 4 * len(self._times) + 64:
            self._drawn.clear()

    def _add(self, key: str, t: float, value: float | None) -> None:
        times, values = self._times.setdefault(key, []), self._values.setdefault(key, [])
        if times and t <= times[-1]:
            return
        if times and t // RATES_STEP_S == times[-1] // RATES_STEP_S:
            values[-1] = max((v for v in (values[-1], value) if v is not None), default=None)
            return
        values.append(value)
        times.append(t)
        if times[0] < t - self.span_s - SPARK_S:  # in batches, not with every sample
            late = bisect_right(times, t - self.span_s)
            del times[:late], values[:late]

    def cells(self, key: str, now: float, width: int, span_s: float = SPARK_S) -> list[float | None]:
        """Return the maximum rate in each of `width` time steps up to `now`; None where no rate is known.

        Steps are aligned to the clock, not to `now`, so successive calls differ only in the newest step.
        """
        step = span_s / width
        first = int(now // step) - width + 1
        drawn = self._drawn.get((key, width))
        if drawn is None or drawn.step != step or not drawn.until <= now or first - drawn.first >= width:
            times = self._times.get(key, [])
            start = times[max(0, bisect_right(times, first * step) - 1)] if times else now
            drawn = self._drawn[key, width] = _Drawn(step, first, [None] * width, start - 1e-9)
        elif first > drawn.first:
            drawn.most[:] = drawn.most[first - drawn.first :] + [None] * (first - drawn.first)
            drawn.first = first
        self._draw_on(drawn, key, now)
        return list(drawn.most)

    def _draw_on(self, drawn: _Drawn, key: str, now: float) -> None:
        """Add the rates newer than `drawn.until`, and that one again: merging may have raised it."""
        times, values = self._times.get(key, []), self._values.get(key, [])
        first, step, most = drawn.first, drawn.step, drawn.most
        end = bisect_right(times, now)
        for i in range(max(0, bisect_right(times, drawn.until) - 1), end):
            place, value = int(times[i] // step) - first, values[i]
            held = i > 0 and times[i] - times[i - 1] <= HELD_S
            since = int(times[i - 1] // step) - first + 1 if held else place
            if value is not None:
                for slot in range(max(0, min(since, place)), place + 1):
                    most[slot] = value if most[slot] is None else max(most[slot] or 0.0, value)
        drawn.until = times[end - 1] if end else drawn.until

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
        for key, times in self._times.items():
            for t, value in zip(times, self._values[key], strict=True):
                if value is not None and begin <= t <= end:
                    yield key, t, value


def bar(value: float, top: float) -> str:
    """Return one bar in eighths of `top`; the lowest bar for values not above zero."""
    if top <= 0 or value <= 0:
        return _BARS[0]
    return _BARS[min(len(_BARS) - 1, int(value / top * len(_BARS)))]
