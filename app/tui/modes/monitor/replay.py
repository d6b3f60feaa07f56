"""Replay of a telemetry recording: position, speed, and the sample at the position."""

from __future__ import annotations

from dataclasses import dataclass

from kvdeck.app.tui.modes.monitor.history import SPARK_S, Rates
from kvdeck.engine.telemetry.recording import TelemetrySession
from kvdeck.engine.telemetry.sample import Snapshot

SPEEDS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)


@dataclass(frozen=True, slots=True)
class Seen:
    """One sample of the recording, with the rates before it."""

    position: float
    """Unix time in seconds."""
    moment: Snapshot
    rates: Rates


class Replay:
    """Reads samples of a recording. Not thread-safe: any thread may call it, but only one call at a time."""

    def __init__(self, recording: TelemetrySession) -> None:
        self.recording = recording
        self.speed = 1.0
        self.position = self.begin
        self._read_to: float | None = None
        self._moment = Snapshot(self.begin)
        self._rates = Rates(SPARK_S)

    @property
    def begin(self) -> float:
        return self.recording.begin or 0.0

    @property
    def end(self) -> float:
        return self.recording.end or self.begin

    @property
    def large_step(self) -> float:
        """Length of a large step in seconds: 30 s, or 1/20 of the recording if that is more."""
        return max(30.0, (self.end - self.begin) / 20)

    def faster(self, by: int) -> None:
        """Move `by` places in `SPEEDS` (positive: faster), limited to its ends."""
        place = SPEEDS.index(self.speed) + by
        self.speed = SPEEDS[max(0, min(len(SPEEDS) - 1, place))]

    def go(self, t: float) -> Seen:
        """Move to a Unix time `t` (s), limited to the recording, and return the sample and rates there.

        Up to `SPARK_S` ahead of the position only the samples in between are read; any other jump rereads
        the `SPARK_S` before `t`.

        Raises:
            KvdeckError: The recording can't be read.
        """
        t = max(self.begin, min(self.end, t))
        near = self._read_to is not None and self._read_to <= t <= self._read_to + SPARK_S
        if not near:
            self._rates, self._read_to = Rates(SPARK_S), None
        begin = t - SPARK_S if self._read_to is None else self._read_to
        for moment in self.recording.moments(begin, t):
            self._rates.note(moment)
            self._moment = moment
        if (not near and self._moment.t > t) or not self._moment.sources:
            self._moment = self.recording.at(t) or self._moment
        self.position = self._read_to = t
        return Seen(t, self._moment, self._rates)
