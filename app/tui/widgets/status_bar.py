"""The status line at the top: modes, host and engine state."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from rich.cells import cell_len
from textual.events import Click

from kvdeck.app.tui.bindings import OPENING
from kvdeck.app.tui.widgets.lines import Lines, Row, Span

if TYPE_CHECKING:
    from kvdeck.app.tui.app import Deck
    from kvdeck.app.tui.state import EngineState


class StatusBar(Lines):
    """Modes at the left, engine state at the right."""

    DEFAULT_CSS = "StatusBar { height: 1; dock: top; background: $deck-bar; }"
    app: Deck
    engine: EngineState | None = None
    paused = False
    readonly = False

    host = ""
    link = ""

    def apply(self, engine: EngineState, host: str, paused: bool, readonly: bool, link: str = "") -> None:
        """Show these values; `link` is the text on a slow terminal link, or ""."""
        self.engine, self.host, self.paused, self.readonly, self.link = engine, host, paused, readonly, link
        self.redraw()

    def on_click(self, event: Click) -> None:
        """Open the mode under the mouse."""
        x, key = 0, ""
        for text, style in self._fitting(self.size.width)[0]:
            x += cell_len(text)
            key = text.strip() if style == "key" else key
            if event.x < x:
                if key:
                    self.app.simulate_key(key)
                return

    def rows(self, width: int, height: int) -> list[Row]:
        modes, right = self._fitting(width)
        used = _width(modes) + _width(right)
        if used + cell_len(self.host) + 4 <= width:
            right = [(f"{self.host}  ", "dim"), *right]
            used += cell_len(self.host) + 2
        return [(*modes, (" " * max(0, width - used), ""), *right)]

    def _fitting(self, width: int) -> tuple[list[Span], list[Span]]:
        """Return the left and right spans in the longest form that fits.

        The engine state is shortened first, then the text on pause and link, then the modes that aren't open are
        reduced to their keys.
        """
        tries = product((self._modes(True), self._modes(False)), (self._said(True), self._said(False)), self._engine())
        for modes, said, engine in tries:
            if _width(modes) + _width(said) + _width(engine) <= width:
                break
        return modes, [*said, *engine]

    def _modes(self, titles: bool) -> list[Span]:
        """Return the available modes with their keys: all with their titles, or only the open one."""
        spans: list[Span] = [(" kvdeck ", "title")]
        for binding in OPENING:
            mode = binding.action.split("'")[1]
            if mode not in self.app.MODES:
                continue
            here = self.app.current_mode == mode
            key = self.app.config.keymap.get(str(binding.id), binding.key).split(",")[0]
            spans.append((f" {key}", "key"))
            if here or titles:
                spans.append((f" {binding.description} ", "title" if here else "dim"))
        return spans

    def _said(self, full: bool) -> list[Span]:
        said: list[Span] = []
        if self.paused:
            said.append(("PAUSED, p resumes  " if full else "PAUSED  ", "!warn"))
        if self.link:
            said.append((f"{self.link}  ", "warn"))
        if self.readonly:
            said.append(("read-only  ", "warn"))
        return said

    def _engine(self) -> list[list[Span]]:
        """Return the engine state in several forms, the longest first."""
        engine = self.engine
        if engine is None or engine.connection == "starting":
            return [[("◌ engine: starting ", "dim")]]
        if engine.connection == "lost":
            return [[("✗ engine: not connected ", "bad")], [("✗ no engine ", "bad")]]
        again = "restarted, " if engine.restarts else ""
        word = "running" if any(run.state == "running" for run in engine.runs) else "idle"
        texts = (f"engine: {again}{word}, pid {engine.engine_pid} ", f"engine: {again}{word} ", f"{again}{word} ")
        return [[("● ", "ok"), (text, "")] for text in texts]


def _width(spans: list[Span]) -> int:
    return sum(cell_len(text) for text, _ in spans)
