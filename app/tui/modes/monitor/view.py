"""What the panes of the Monitor draw: one moment, with the past before it and the marks up to it."""

from __future__ import annotations

from dataclasses import dataclass, field

from kvdeck.app.tui.modes.monitor.alerts import Thresholds
from kvdeck.app.tui.modes.monitor.history import Rates
from kvdeck.engine.telemetry.sample import Snapshot
from kvdeck.sessions.store.telemetry.annotations import Mark


@dataclass(frozen=True, slots=True)
class View:
    """One picture; a newer one replaces it whole."""

    moment: Snapshot = field(default_factory=lambda: Snapshot(0.0))
    rates: Rates = field(default_factory=Rates)
    marks: tuple[Mark, ...] = ()
    thresholds: Thresholds = field(default_factory=Thresholds)
    pins: tuple[str, ...] = ()
    error: str = ""
    """Why there is nothing newer: the engine is gone, or a recording can't be read."""
    empty: str = ""
    """Why nothing is watched yet; empty while something is."""

    @property
    def now(self) -> float:
        """Where sparks end, in Unix seconds."""
        return self.moment.t
