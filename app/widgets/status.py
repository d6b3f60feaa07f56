"""The line at the top: which mode, which host, and how the engine is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.cells import cell_len

from kvdeck.app.widgets.lines import Lines, Row, Span

if TYPE_CHECKING:
    from kvdeck.app.snapshot import Snapshot

MODES = (
    ("1", "plan", "Plan"),
    ("2", "run", "Run"),
    ("3", "monitor", "Monitor"),
    ("4", "sessions", "Sessions"),
    ("9", "doctor", "Doctor"),
)


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
        modes = _width(spans)
        said: list[Span] = []
        if self.paused:
            said.append(("PAUSED, p goes on  ", "!warn"))
        if self.link:
            said.append((f"{self.link}  ", "warn"))
        if self.readonly:
            said.append(("read-only  ", "warn"))
        engine = self._engine()
        right = next(([*said, *full] for full in engine if modes + _width([*said, *full]) <= width), said + engine[-1])
        used = modes + _width(right)
        host = self.host
        if used + len(host) + 4 <= width:
            right.insert(0, (f"{host}  ", "dim"))
            used += len(host) + 2
        return [(*spans, (" " * max(0, width - used), ""), *right)]

    def _engine(self) -> list[list[Span]]:
        """How the engine is, in as many words as there may be room for, the most first."""
        snapshot = self.snapshot
        if snapshot is None or snapshot.link == "starting":
            return [[("◌ engine: starting ", "dim")]]
        if snapshot.link == "lost":
            return [[("✗ engine: not connected ", "bad")], [("✗ no engine ", "bad")]]
        again = "restarted, " if snapshot.restarts else ""
        word = "running" if any(run.state == "running" for run in snapshot.runs) else "idle"
        texts = (f"engine: {again}{word}, pid {snapshot.engine_pid} ", f"engine: {again}{word} ", f"{again}{word} ")
        return [[("● ", "ok"), (text, "")] for text in texts] + [[(f"{word} ", "")]]


def _width(spans: list[Span]) -> int:
    return sum(cell_len(text) for text, _ in spans)
