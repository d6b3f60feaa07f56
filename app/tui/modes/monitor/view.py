"""Input of the Monitor's panes: one sample, the rates before it, and the annotations up to it."""

from __future__ import annotations

from dataclasses import dataclass, field

from kvdeck.app.tui.modes.monitor.alerts import Thresholds
from kvdeck.app.tui.modes.monitor.history import Rates
from kvdeck.engine.telemetry.limits import ServiceLimits
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

    begin: float = 0.0
    """Unix time in seconds of the oldest sample that can be shown."""
    end: float = 0.0
    """Unix time in seconds of the newest one."""
    all_marks: tuple[Mark, ...] = ()
    """Annotations of that whole time, also those after the time shown."""
    kv_limit: float = ServiceLimits().kv_usage
    """Share of the device's KV cache, 0 to 1, above which it is marked, as the checks warn."""
    live: bool = True
    """Whether the newest sample is of now, and not of a recording."""

    def age(self, source: str) -> float | None:
        """Return the age in seconds of a source's values if it doesn't answer; None if it does."""
        return next((one.age_s for one in self.moment.sources if one.name == source and one.stale), None)

    @property
    def down(self) -> int:
        """Number of sources that don't answer."""
        return sum(source.stale for source in self.moment.sources)

    @property
    def now(self) -> float:
        """Unix time in seconds of the sparklines' end."""
        return self.moment.t
