"""The status line at the top: modes, host and engine state."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from rich.cells import cell_len
from textual.events import Click

from kvdeck.app.tui.bindings import OPENING
from kvdeck.app.tui.widgets.lines import Lines, Row, Span

if TYPE_CHECKING:
    from textual.binding import Binding

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
        """Open the mode under the mouse; its key would be typed into a field that takes text."""
        x, modes, under = 0, iter(self._openings()), None
        for text, style in self._fitting(self.size.width)[0]:
            x += cell_len(text)
            under = next(modes) if style == "key" else under
            if event.x < x:
                if under is not None:
                    self.app.call_later(self.app.run_action, under.action)
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
        marks = self._marks(True), self._marks(False)
        for modes, marked, engine in product((self._modes(True), self._modes(False)), marks, self._engine()):
            if _width(modes) + _width(marked) + _width(engine) <= width:
                break
        return modes, [*marked, *engine]

    def _openings(self) -> list[Binding]:
        """Return the keys of the modes there are."""
        return [binding for binding in OPENING if binding.action.split("'")[1] in self.app.MODES]

    def _modes(self, titles: bool) -> list[Span]:
        """Return the available modes with their keys: all with their titles, or only the open one."""
        spans: list[Span] = [(" kvdeck ", "title")]
        for binding in self._openings():
            here = self.app.current_mode == binding.action.split("'")[1]
            key = self.app.config.keymap.get(str(binding.id), binding.key).split(",")[0]
            spans.append((f" {key}", "key"))
            if here or titles:
                spans.append((f" {binding.description} ", "title" if here else "dim"))
        return spans

    def _marks(self, full: bool) -> list[Span]:
        marks: list[Span] = []
        if self.paused:
            marks.append(("PAUSED, p resumes  " if full else "PAUSED  ", "!warn"))
        if self.link:
            marks.append((f"{self.link}  ", "warn"))
        if self.readonly:
            marks.append(("read-only  ", "warn"))
        return marks

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
