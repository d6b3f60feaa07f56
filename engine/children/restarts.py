"""When a helper process that ended is started again: a state machine without I/O, with back-off and a limit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MOST_FAILURES = 5
"""Failures in a row after which a helper isn't started again."""
FIRST_PAUSE_S = 1.0
"""Pause before the first restart; it doubles with every further failure in a row."""
HEALTHY_S = 60.0
"""A helper that ran for so long starts a new row of failures when it ends."""

State = Literal["starting", "running", "backoff", "stopped", "failed"]


@dataclass(slots=True)
class Restarts:
    """State of one helper process.

    `starting` → `running` → `backoff` → `starting` …, and at last `failed` or `stopped`. A method called in a state
    that it doesn't fit, such as an end that is reported after `stop`, changes nothing.
    """

    state: State = "starting"
    failures: int = 0
    """Failures in a row."""
    reason: str = ""
    """How the helper ended last."""
    _since: float = 0.0

    def started(self, now: float) -> None:
        """The process runs, since `now` in seconds of a monotonic clock."""
        if self.state == "starting":
            self.state, self._since = "running", now

    def ended(self, now: float, reason: str) -> float | None:
        """The process ended, or couldn't be started; return the pause in seconds until `due`, None if there is none."""
        if self.state not in ("starting", "running"):
            return None
        if self.state == "running" and now - self._since >= HEALTHY_S:
            self.failures = 0
        self.failures += 1
        self.reason = reason
        self.state = "failed" if self.failures >= MOST_FAILURES else "backoff"
        return FIRST_PAUSE_S * 2.0 ** (self.failures - 1) if self.state == "backoff" else None

    def due(self) -> bool:
        """The pause is over; return True if the process is to be started."""
        if self.state == "backoff":
            self.state = "starting"
        return self.state == "starting"

    def again(self) -> bool:
        """Request a helper that has failed; return True if it is to be started once more."""
        if self.state != "failed":
            return False
        self.state, self.failures = "starting", 0
        return True

    def stop(self) -> None:
        """The helper isn't needed any more."""
        self.state = "stopped"
