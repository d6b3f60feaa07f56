"""A recording played at any speed: where it stands, and what is seen there."""

from __future__ import annotations

from dataclasses import dataclass

from kvdeck.app.tui.modes.monitor.history import SPARK_S, Rates
from kvdeck.engine.telemetry.recording import Recording
from kvdeck.engine.telemetry.sample import Snapshot

SPEEDS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)


@dataclass(frozen=True, slots=True)
class Seen:
    """A moment of the recording with the rates before it."""

    position: float
    """Unix time in seconds."""
    moment: Snapshot
    rates: Rates


class Replay:
    """Reads moments; one call at a time, from whichever thread."""

    def __init__(self, recording: Recording) -> None:
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
        """Seconds of a large step: half a minute, or a twentieth of a long recording."""
        return max(30.0, (self.end - self.begin) / 20)

    def faster(self, by: int) -> None:
        """The next speed up or down."""
        place = SPEEDS.index(self.speed) + by
        self.speed = SPEEDS[max(0, min(len(SPEEDS) - 1, place))]

    def go(self, t: float) -> Seen:
        """Stand at a time; what lies between is read when it is near and ahead.

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
