"""What the screens are drawn from: one frozen picture of the engine, its queue and the run that is followed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from kvdeck.app.tui.run_state import RunView
    from kvdeck.engine.protocol import RunInfo

Link = Literal["starting", "connected", "lost"]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One picture; a newer one replaces it whole."""

    link: Link = "starting"
    detail: str = ""
    """Why the link is lost, in the operator's words."""
    engine_pid: int | None = None
    restarts: int = 0
    """How often another engine has answered than the one before."""
    runs: tuple[RunInfo, ...] = ()
    run: RunView | None = None


@dataclass(frozen=True, slots=True)
class PathReport:
    """What doctor says of one path with one backend."""

    path: str
    backend: str
    state: Literal["ready", "degraded", "unavailable"]
    reason: str
    mend: str
    mode: str = ""
    """`loopback` or the like, where a path has more than one way."""


@dataclass(frozen=True, slots=True)
class Doctor:
    """Doctor's answer, or that it is still looking, or why it has none."""

    paths: tuple[PathReport, ...] = ()
    plugins: tuple[dict[str, Any], ...] = ()
    host: dict[str, Any] = field(default_factory=dict)
    looking: bool = False
    error: str = ""

    def best(self, path: str) -> PathReport | None:
        """The readiest row of a path; the first where several are alike."""
        order = ("ready", "degraded", "unavailable")
        return min((row for row in self.paths if row.path == path), key=lambda r: order.index(r.state), default=None)


def doctor_from_json(report: dict[str, Any]) -> Doctor:
    """Read doctor's JSON; unknown fields are left alone."""
    rows = tuple(
        PathReport(
            path=str(row.get("path", "")),
            backend=str(row.get("backend") or ""),
            state=row["state"] if row.get("state") in ("ready", "degraded") else "unavailable",
            reason=str(row.get("reason") or ""),
            mend=str(row.get("mend") or ""),
            mode=str(row.get("mode") or ""),
        )
        for row in report.get("paths", ())
    )
    return Doctor(rows, tuple(report.get("plugins", ())), dict(report.get("host", {})))
