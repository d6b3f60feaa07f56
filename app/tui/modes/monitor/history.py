"""What was seen: ten minutes of whole moments to go back to, and rates for sparks. Both are bounded."""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

import orjson

from kvdeck.engine.telemetry.sample import Flow, Number, Snapshot, from_mapping, to_mapping
from kvdeck.sessions.host.documents import load_record

SPAN_S = 600.0
"""How far back a moment can be looked at."""
STEP_S = 1.0
"""One moment of each such step is kept, whatever the rate."""
SPARK_S = 120.0
RATES_S = SPAN_S + SPARK_S
HELD_S = 6.0
"""A rate stands for the time since the reading before it, if that was no longer ago than this."""
RATES_STEP_S = 0.5
"""Rates nearer together than this become one, the greater."""
_BARS = "▁▂▃▄▅▆▇█"


def pack(moment: Snapshot) -> bytes:
    """A moment as it is kept: compressed JSON, a tenth of its size (3.4 kB for seven endpoints, measured)."""
    return zlib.compress(orjson.dumps(to_mapping(moment)), 1)


class History:
    """Moments of the last ten minutes, at most 600 of them."""

    def __init__(self, span_s: float = SPAN_S, step_s: float = STEP_S) -> None:
        self.span_s, self.step_s = span_s, step_s
        self._times: list[float] = []
        self._packed: list[bytes] = []

    def note(self, moment: Snapshot, packed: bytes = b"") -> None:
        """Keep a moment, unless one of its step is there."""
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
        """The newest moment at or before `t`; the first one for what lies before it."""
        if not self._times:
            return None
        place = max(0, bisect_right(self._times, t) - 1)
        return from_mapping(load_record(zlib.decompress(self._packed[place])))


def flow_key(flow: Flow) -> str:
    """What tells a flow from all others, and stays the same the next time."""
    return f"{flow.source} {flow.name}"


def number_key(number: Number) -> str:
    """What tells a counter or gauge from all others."""
    labels = ",".join(f"{name}={value}" for name, value in sorted(number.labels.items()))
    return f"{number.source} {number.name}{{{labels}}}"


def flow_rate(flow: Flow) -> float | None:
    """Bytes a second, else blocks a second."""
    return flow.bytes_per_s if flow.bytes_per_s is not None else flow.blocks_per_s


def _rate_key(flow: Flow) -> str:
    # Blocks that become bytes, once the size of one is known, are another line: they must not share a scale.
    return f"{flow_key(flow)} {'blocks' if flow.bytes_total is None else 'bytes'}"


@dataclass(slots=True)
class _Drawn:
    """A spark as it was last drawn: only what came since has to be looked at."""

    step: float
    first: int
    most: list[float | None]
    until: float
    """Time of the newest sample in it."""


class Rates:
    """Rates of flows and pinned numbers, as long as the past reaches."""

    def __init__(self, span_s: float = RATES_S) -> None:
        self.span_s = span_s
        self._times: dict[str, list[float]] = {}
        self._values: dict[str, list[float | None]] = {}
        self._drawn: dict[tuple[str, int], _Drawn] = {}

    def note(self, moment: Snapshot) -> None:
        """Take a moment's rates; what has not been heard of for the whole span is forgotten."""
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
        if times[0] < t - self.span_s - SPARK_S:  # now and then, and not for every moment
            late = bisect_right(times, t - self.span_s)
            del times[:late], values[:late]

    def cells(self, key: str, now: float, width: int, span_s: float = SPARK_S) -> list[float | None]:
        """The greatest rate in each of `width` steps of time up to `now`; None where nothing was known.

        Steps lie on the clock, not before `now`: from one tick to the next only the newest one changes.
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
        """Take what came since a spark was last drawn; the newest sample may have grown, so it is taken again."""
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
        """The cells as bars of eighths, scaled to their greatest; a space where nothing was known."""
        cells = self.cells(key, now, width, span_s)
        top = max((value for value in cells if value is not None), default=0.0)
        return "".join(" " if value is None else bar(value, top) for value in cells)

    def flow_spark(self, flow: Flow, now: float, width: int) -> str:
        """A flow's last two minutes."""
        return self.spark(_rate_key(flow), now, width)

    def number_spark(self, number: Number, now: float, width: int) -> str:
        """A pinned number's last two minutes."""
        return self.spark(number_key(number), now, width)

    def points(self, begin: float, end: float) -> Iterator[tuple[str, float, float]]:
        """(what, unix time, rate) of all that is known between two times."""
        for key, times in self._times.items():
            for t, value in zip(times, self._values[key], strict=True):
                if value is not None and begin <= t <= end:
                    yield key, t, value


def bar(value: float, top: float) -> str:
    """One bar of eighths; what is not above zero is a line at the foot."""
    if top <= 0 or value <= 0:
        return _BARS[0]
    return _BARS[min(len(_BARS) - 1, int(value / top * len(_BARS)))]
