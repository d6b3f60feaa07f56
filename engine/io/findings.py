"""What probing found: one row a path and backend, one a plugin."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

from kvdeck.sessions.errors import UnavailableError

State = Literal["ready", "degraded", "unavailable"]


@dataclass(frozen=True, slots=True)
class PathFinding:
    """Whether a path can run here by a backend, and why not."""

    path: str
    backend: str
    mode: str | None = None
    """`two processes` or `loopback`, where a path can run either way."""
    api: str | None = None
    """The POSIX plugin's API that was tried, or that a run would choose."""
    state: State = "unavailable"
    reason: str | None = None
    mend: str | None = None
    memory: tuple[str, ...] = ()
    """NIXL's memory types of the two ends."""
    apis: dict[str, str] = field(default_factory=dict)
    """State of each POSIX API, with its reason where there is one."""
    transports: tuple[str, ...] = ()
    """What UCX moved the bytes over, such as `cma/memory` or `tcp/lo`."""

    def refused(self, error: UnavailableError) -> PathFinding:
        """It can't run, for this reason."""
        return dataclasses.replace(self, state="unavailable", reason=error.what, mend=error.mend)

    def working(self, limit: UnavailableError | None = None) -> PathFinding:
        """It runs, perhaps with a limit that an operator must know."""
        if limit is None:
            return dataclasses.replace(self, state="ready")
        return dataclasses.replace(self, state="degraded", reason=limit.what, mend=limit.mend)

    @property
    def key(self) -> tuple[str, str, str | None, str | None]:
        return self.path, self.backend, self.mode, self.api


@dataclass(frozen=True, slots=True)
class PluginFinding:
    """How far a plugin gets on this host; null where it wasn't tried."""

    name: str
    present: bool = True
    file: str | None = None
    loads: bool | None = None
    creates: bool | None = None
    memory_types: tuple[str, ...] = ()
    params: dict[str, str] = field(default_factory=dict)
    """Its parameters with their defaults."""
    reason: str | None = None
    mend: str | None = None

    def refused(self, error: UnavailableError) -> PluginFinding:
        """It gets no further, for this reason."""
        return dataclasses.replace(self, reason=error.what, mend=error.mend)
