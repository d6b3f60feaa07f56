"""What every pane of the Monitor is: a heading, rows that scroll, and a key that shows it alone."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.events import MouseScrollDown, MouseScrollUp

from kvdeck.app.monitoring.view import View
from kvdeck.app.widgets.keys import LIST, MONITOR
from kvdeck.app.widgets.lines import Lines, Row, cell, heading

FAR = 1 << 30


class Panel(Lines, can_focus=True):
    """Subclasses give `title`, and `body` for a width."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "enter", "screen.zoom", "Zoom", show=False, id="panel.zoom", tooltip="This pane alone, and back",
            group=MONITOR,
        ),
        Binding("up,k", "scroll_rows(-1)", "Up", show=False, id="panel.up", tooltip="A line up", group=LIST),
        Binding("down,j", "scroll_rows(1)", "Down", show=False, id="panel.down", tooltip="A line down", group=LIST),
        Binding(
            "pageup", "scroll_pages(-1)", "Page up", show=False, id="panel.pageup", tooltip="A page up", group=LIST
        ),
        Binding(
            "pagedown", "scroll_pages(1)", "Page down", show=False, id="panel.pagedown", tooltip="A page down",
            group=LIST,
        ),
    ]  # fmt: skip
    blanks_follow = True
    title = ""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.view = View()
        self.top = 0

    def apply(self, view: View) -> None:
        """Show a picture."""
        self.view = view
        self.redraw()

    def body(self, width: int, height: int) -> list[Row]:
        """All rows below the heading; what does not fit is scrolled to."""
        raise NotImplementedError

    def note(self) -> str:
        """What stands at the right end of the heading."""
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

    def action_scroll_rows(self, by: int) -> None:
        self.top = max(0, self.top + by)
        self.redraw()

    def action_scroll_pages(self, by: int) -> None:
        self.action_scroll_rows(by * max(1, self.size.height - 2))

    def on_mouse_scroll_down(self, _: MouseScrollDown) -> None:
        self.action_scroll_rows(3)

    def on_mouse_scroll_up(self, _: MouseScrollUp) -> None:
        self.action_scroll_rows(-3)


def said(text: str, width: int, tone: str = "dim") -> Row:
    """A line of words."""
    return (cell(f" {text}", width, tone),)
