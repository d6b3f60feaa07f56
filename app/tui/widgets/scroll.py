"""Base pane that scrolls with the arrows, by pages and with the wheel."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.events import MouseScrollDown, MouseScrollUp

from kvdeck.app.tui.widgets.key_bar import LIST
from kvdeck.app.tui.widgets.lines import Lines

FAR = 1 << 30


class Scrolled(Lines, can_focus=True):
    """Subclasses show their rows from `top` on, and clamp it to their number of rows."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "scroll_rows(-1)", "Up", show=False, id="page.up", tooltip="Scroll up one line", group=LIST),
        Binding(
            "down,j", "scroll_rows(1)", "Down", show=False, id="page.down", tooltip="Scroll down one line", group=LIST
        ),
        Binding("pageup", "scroll_pages(-1)", "Page up", show=False, id="page.pageup", tooltip="Page up", group=LIST),
        Binding(
            "pagedown",
            "scroll_pages(1)",
            "Page down",
            show=False,
            id="page.pagedown",
            tooltip="Page down",
            group=LIST,
        ),
    ]
    top = 0

    def action_scroll_rows(self, by: int) -> None:
        self.top = max(0, self.top + by)
        self.redraw()

    def action_scroll_pages(self, by: int) -> None:
        self.action_scroll_rows(by * max(1, self.size.height - 2))

    def on_mouse_scroll_down(self, _: MouseScrollDown) -> None:
        self.action_scroll_rows(3)

    def on_mouse_scroll_up(self, _: MouseScrollUp) -> None:
        self.action_scroll_rows(-3)
