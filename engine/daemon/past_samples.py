"""The last two minutes of one set of sources in the engine, for a client that comes or comes back."""

from __future__ import annotations

import zlib
from base64 import b64encode
from collections import deque
from collections.abc import Hashable, Iterable, Iterator
from typing import NamedTuple

from kvdeck.engine.protocol import VERSION

SPAN_S = 120.0
STEP_S = 1.0
"""One sample is stored per step of this many seconds, more than one step apart if they need too much memory."""
MOST_BYTES = 8 << 20
"""Memory of one set of sources, in compressed bytes: 30 samples of 10,000 series, or all of six endpoints (0.4 MB)."""
_AT = b'{"at_ns":'


class PastSample(NamedTuple):
    """A sample as compressed JSON."""

    at_ns: int
    """Its monotonic time."""
    packed: bytes

    def message(self, left: int) -> bytes:
        """Return the sample as a `watch_past` line, before `left` further ones."""
        head = b'{"v":%d,"type":"watch_past","at_ns":%d,"left":%d,"packed":"' % (VERSION, self.at_ns, left)
        return head + b64encode(self.packed) + b'"}\n'


class PastSamples:
    """Samples of the last `SPAN_S` seconds, one per step, in `MOST_BYTES`.

    Samples are taken from one sampling process at a time: counts since sampling began can't be compared between two.
    """

    def __init__(self) -> None:
        self._samples: deque[PastSample] = deque()
        self._bytes = 0
        self._step_ns = int(STEP_S * 1e9)
        self._newest: tuple[int, bytes] | None = None
        """Monotonic time and line of the newest sample, stored or not."""
        self._from: Hashable = None

    @property
    def size(self) -> int:
        """Compressed bytes stored."""
        return self._bytes

    def add(self, line: bytes, sampling: Hashable) -> None:
        """Store a sampling's line if its step is over; ignores lines without a monotonic time."""
        if self._from is None:
            self._from = sampling
        if sampling != self._from or (at_ns := _time_of(line)) is None:
            return
        self._newest = at_ns, line
        # Moments are seldom early by more than a tenth of a step.
        if self._samples and at_ns - self._samples[-1].at_ns < 0.9 * self._step_ns:
            return
        # Level 1: samples are text with much repetition, and come from every set of sources each second.
        self._append(PastSample(at_ns, zlib.compress(line, 1)))
        while self._samples[0].at_ns < at_ns - SPAN_S * 1e9:
            self._bytes -= len(self._samples.popleft().packed)
        if self._bytes > MOST_BYTES and len(self._samples) > 1:
            self._thin()

    def leave(self, sampling: Hashable) -> None:
        """Let another sampling continue, if samples were taken from this one."""
        if sampling == self._from:
            self._from = None

    def after(self, at_ns: int) -> list[PastSample]:
        """Return the stored samples after a monotonic time, and the newest one."""
        found = [sample for sample in self._samples if sample.at_ns > at_ns]
        if self._newest is not None and self._newest[0] > max(at_ns, self._samples[-1].at_ns):
            found.append(PastSample(self._newest[0], zlib.compress(self._newest[1], 1)))
        return found

    def _append(self, sample: PastSample) -> None:
        self._samples.append(sample)
        self._bytes += len(sample.packed)

    def _thin(self) -> None:
        """Drop every second sample but the newest, and store half as many from now on."""
        self._samples = deque(list(self._samples)[::-1][::2][::-1])
        self._bytes = sum(len(sample.packed) for sample in self._samples)
        self._step_ns *= 2


def messages(samples: Iterable[PastSample]) -> Iterator[bytes]:
    """Yield the samples as lines for a client, each encoded when it is due."""
    due = list(samples)
    for number, sample in enumerate(due, 1):
        yield sample.message(len(due) - number)


def _time_of(line: bytes) -> int | None:
    """Return a line's monotonic time, with which the sampling process begins it."""
    digits = line[len(_AT) : line.find(b",", len(_AT))] if line.startswith(_AT) else b""
    return int(digits) if digits.isdigit() else None
