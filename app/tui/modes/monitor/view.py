"""Input of the Monitor's panes: one sample, the rates before it, and the annotations up to it."""

from __future__ import annotations

from dataclasses import dataclass, field

from kvdeck.app.tui.modes.monitor.alerts import Thresholds
from kvdeck.app.tui.modes.monitor.history import Rates
from kvdeck.engine.telemetry.sample import Snapshot
from kvdeck.sessions.store.telemetry.annotations import Mark


@dataclass(frozen=True, slots=True)
class View:
    """Everything that the panes draw; immutable and replaced as a whole."""

    moment: Snapshot = field(default_factory=lambda: Snapshot(0.0))
    rates: Rates = field(default_factory=Rates)
    marks: tuple[Mark, ...] = ()
    thresholds: Thresholds = field(default_factory=Thresholds)
    pins: tuple[str, ...] = ()
    error: str = ""
    """Why there is no newer sample: the engine is gone, or a recording can't be read."""
    empty: str = ""
    """Why there is no sample yet; empty once there is one."""

    @property
    def now(self) -> float:
        """Unix time in seconds of the sparklines' end."""
        return self.moment.t
