"""Immutable state that the screens draw: the engine, its queue and the followed run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from kvdeck.engine.protocol import RunInfo
    from kvdeck.sessions.model.run_state import RunState

DECIDING = ("UCX_", "NIXL_", "CUDA_", "FI_", "NVIDIA_")
ConnectionName = Literal["starting", "connected", "lost"]


@dataclass(frozen=True, slots=True)
class EngineState:
    """The engine at one time; a newer snapshot replaces it as a whole."""

    connection: ConnectionName = "starting"
    detail: str = ""
    """Why the connection is lost, for the operator."""
    engine_pid: int | None = None
    restarts: int = 0
    """Number of times a different engine process has answered."""
    runs: tuple[RunInfo, ...] = ()
    run: RunState | None = None


@dataclass(frozen=True, slots=True)
class PathReport:
    """Doctor's report on one path with one backend."""

    path: str
    backend: str
    state: Literal["ready", "degraded", "unavailable"]
    reason: str
    fix: str
    mode: str = ""
    """`loopback` or similar, if a path has more than one mode."""


@dataclass(frozen=True, slots=True)
class Doctor:
    """Doctor's report; `looking` while it runs, `error` if it failed."""

    paths: tuple[PathReport, ...] = ()
    plugins: tuple[dict[str, Any], ...] = ()
    host: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    """Variables that decide what NIXL, UCX, CUDA and libfabric do, as the engine has them."""
    looking: bool = False
    error: str = ""

    def best(self, path: str) -> PathReport | None:
        """Return the path's row with the best state, the first among equals; None if there is none."""
        order = ("ready", "degraded", "unavailable")
        return min((row for row in self.paths if row.path == path), key=lambda r: order.index(r.state), default=None)


@dataclass(frozen=True, slots=True)
class PeerState:
    """What doctor found of a peer; `looking` while it runs."""

    host: str = ""
    ready: bool = False
    transport: str = ""
    reason: str = ""
    fix: str = ""
    looking: bool = False

    def text(self, host: str) -> str:
        """Return in one line whether a run with `host` works."""
        if host != self.host:
            return "not tried yet"
        if self.looking:
            return f"trying a connection with {host}"
        if self.ready:
            return f"{host} is ready{f', over {self.transport}' if self.transport else ''}"
        what = self.reason.partition(" (")[0]  # one line has no room for ssh's own words
        return f"{what} · fix: {self.fix}" if self.fix else what


def doctor_from_json(report: dict[str, Any]) -> Doctor:
    """Parse doctor's JSON report; unknown fields are ignored."""
    rows = tuple(
        PathReport(
            path=str(row.get("path", "")),
            backend=str(row.get("backend") or ""),
            state=row["state"] if row.get("state") in ("ready", "degraded") else "unavailable",
            reason=str(row.get("reason") or ""),
            fix=str(row.get("fix") or ""),
            mode=str(row.get("mode") or ""),
        )
        for row in report.get("paths", ())
    )
    environment = report.get("environment")
    deciding = {
        str(name): str(value)
        for name, value in (environment.items() if isinstance(environment, dict) else ())
        if str(name).startswith(DECIDING)
    }
    return Doctor(rows, tuple(report.get("plugins", ())), dict(report.get("host", {})), deciding)
