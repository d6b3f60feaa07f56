"""Base pane of the Monitor: a heading, rows that scroll, and a key that shows it alone."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType

from kvdeck.app.tui.modes.monitor.view import View
from kvdeck.app.tui.widgets.key_bar import LIST, MONITOR
from kvdeck.app.tui.widgets.lines import Row, cell, heading
from kvdeck.app.tui.widgets.scroll import FAR, Scrolled


class Panel(Scrolled):
    """Subclasses set `title` and implement `body`."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "enter", "screen.zoom", "Zoom", show=False, id="panel.zoom", tooltip="Zoom this pane, or leave the zoom",
            group=MONITOR,
        ),
        Binding("g", f"scroll_rows(-{FAR})", "First", show=False, id="panel.first", tooltip="Go to top", group=LIST),
        Binding("G", f"scroll_rows({FAR})", "Last", show=False, id="panel.last", tooltip="Go to end", group=LIST),
    ]  # fmt: skip
    blanks_follow = True
    title = ""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.view = View()

    def apply(self, view: View) -> None:
        """Show a view."""
        self.view = view
        self.redraw()

    def body(self, width: int, height: int) -> list[Row]:
        """Return all rows below the heading; the pane scrolls if they don't fit."""
        raise NotImplementedError

    def note(self) -> str:
        """Return the note at the right end of the heading."""
        return ""

    def rows(self, width: int, height: int) -> list[Row]:
        body = self.body(width, height - 1)
        room = height - 1
        self.top = max(0, min(self.top, len(body) - room))
        note = self.note()
        if len(body) > room:
            below = len(body) - room - self.top
            more = f"↓ {below} more" if below else f"↑ {self.top} more"
            note = f"{note} · {more}" if note else more
        return [heading(self.title, width, self.has_focus, note), *body[self.top : self.top + room]]


def said(text: str, width: int, tone: str = "dim") -> Row:
    """Return a row of text."""
    return (cell(f" {text}", width, tone),)
