"""Probe results: one row per path and backend, and one per plugin."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

from kvdeck.sessions.errors import UnavailableError

State = Literal["ready", "degraded", "unavailable"]


@dataclass(frozen=True, slots=True)
class PathFinding:
    """Probe result of one path and backend: its state on this host, with the reason and fix if it isn't `ready`."""

    path: str
    backend: str
    mode: str | None = None
    """`two processes` or `loopback`, if the path can run either way."""
    api: str | None = None
    """The POSIX plugin's API that was probed, or that a run would choose."""
    state: State = "unavailable"
    reason: str | None = None
    fix: str | None = None
    memory: tuple[str, ...] = ()
    """NIXL's memory types of source and destination."""
    apis: dict[str, str] = field(default_factory=dict)
    """State of each POSIX API, with the reason if there is one."""
    transports: tuple[str, ...] = ()
    """UCX transports that moved the bytes, such as `cma/memory` or `tcp/lo`."""

    def refused(self, error: UnavailableError) -> PathFinding:
        """Return a copy with state `unavailable` and the error's reason and fix."""
        return dataclasses.replace(self, state="unavailable", reason=error.what, fix=error.fix)

    def working(self, limit: UnavailableError | None = None) -> PathFinding:
        """Return a copy with state `ready`, or `degraded` with the limit's reason and fix."""
        if limit is None:
            return dataclasses.replace(self, state="ready")
        return dataclasses.replace(self, state="degraded", reason=limit.what, fix=limit.fix)

    @property
    def key(self) -> tuple[str, str, str | None, str | None]:
        return self.path, self.backend, self.mode, self.api


@dataclass(frozen=True, slots=True)
class PluginFinding:
    """Probe result of one plugin: present, loads, creates a backend; None for a step that wasn't tried."""

    name: str
    present: bool = True
    file: str | None = None
    loads: bool | None = None
    creates: bool | None = None
    memory_types: tuple[str, ...] = ()
    params: dict[str, str] = field(default_factory=dict)
    """Plugin parameters with their defaults."""
    reason: str | None = None
    fix: str | None = None

    def refused(self, error: UnavailableError) -> PluginFinding:
        """Return a copy with the reason and fix of the step that failed."""
        return dataclasses.replace(self, reason=error.what, fix=error.fix)
