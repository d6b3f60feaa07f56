"""The line at the top: which mode, which host, and how the engine is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.cells import cell_len

from kvdeck.app.widgets.lines import Lines, Row, Span

if TYPE_CHECKING:
    from kvdeck.app.snapshot import Snapshot

MODES = (("1", "plan", "Plan"), ("2", "run", "Run"), ("4", "sessions", "Sessions"), ("9", "doctor", "Doctor"))


class StatusBar(Lines):
    """Modes at the left, state of the engine at the right."""

    DEFAULT_CSS = "StatusBar { height: 1; dock: top; background: $deck-bar; }"
    snapshot: Snapshot | None = None
    paused = False
    readonly = False

    host = ""
    link = ""

    def apply(self, snapshot: Snapshot, host: str, paused: bool, readonly: bool, link: str = "") -> None:
        """Take what stands in the line; `link` is what is to be said of a slow terminal."""
        self.snapshot, self.host, self.paused, self.readonly, self.link = snapshot, host, paused, readonly, link
        self.redraw()

    def rows(self, width: int, height: int) -> list[Row]:
        spans: list[Span] = [(" kvdeck ", "title")]
        for key, mode, title in MODES:
            here = self.app.current_mode == mode
            spans += [(f" {key}", "key"), (f" {title} ", "title" if here else "dim")]
        right = self._engine()
        if self.readonly:
            right.insert(0, ("read-only  ", "warn"))
        if self.link:
            right.insert(0, (f"{self.link}  ", "warn"))
        if self.paused:
            right.insert(0, ("PAUSED, p goes on  ", "!warn"))
        used = sum(cell_len(text) for text, _ in (*spans, *right))
        host = self.host
        if used + len(host) + 4 <= width:
            right.insert(0, (f"{host}  ", "dim"))
            used += len(host) + 2
        return [(*spans, (" " * max(1, width - used), ""), *right)]

    def _engine(self) -> list[Span]:
        snapshot = self.snapshot
        if snapshot is None or snapshot.link == "starting":
            return [("◌ engine: starting ", "dim")]
        if snapshot.link == "lost":
            return [("✗ engine: not connected ", "bad")]
        again = "restarted, " if snapshot.restarts else ""
        running = sum(run.state == "running" for run in snapshot.runs)
        word = "running" if running else "idle"
        return [("● ", "ok"), (f"engine: {again}{word}, pid {snapshot.engine_pid} ", "")]
