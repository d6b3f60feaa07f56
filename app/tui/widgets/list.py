"""List with a cursor; only the visible rows are made, so 10,000 rows are as fast as ten."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from textual.binding import Binding, BindingType
from textual.events import Click, MouseScrollDown, MouseScrollUp
from textual.message import Message

from kvdeck.app.tui.widgets.key_bar import LIST
from kvdeck.app.tui.widgets.lines import Lines, Row, cell, window
from kvdeck.app.tui.widgets.scroll import FAR, Scrolled
from kvdeck.app.tui.widgets.table import SHARED_WIDTH, Column, fitting, shared, table_head, table_row

if TYPE_CHECKING:
    from kvdeck.app.tui.export import Table

Item = TypeVar("Item")


@dataclass
class RowOpened(Message):
    """Enter was pressed on a list row with this key."""

    key: str


@dataclass
class RowMoved(Message):
    """A list's cursor is on another row; None if the list is empty."""

    key: str | None


class Listing(Lines, Generic[Item], can_focus=True):
    """Rows of items; the columns depend on the width."""

    tells = True
    """Whether cursor moves post RowMoved; off for lists that update live without a listener."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", show=False, id="list.up", tooltip="Previous row", group=LIST),
        Binding("down,j", "move(1)", "Down", show=False, id="list.down", tooltip="Next row", group=LIST),
        Binding("pageup", "page(-1)", "Page up", show=False, id="list.pageup", tooltip="Page up", group=LIST),
        Binding("pagedown", "page(1)", "Page down", show=False, id="list.pagedown", tooltip="Page down", group=LIST),
        Binding("g,home", f"move(-{FAR})", "First", show=False, id="list.first", tooltip="First row", group=LIST),
        Binding("G,end", f"move({FAR})", "Last", show=False, id="list.last", tooltip="Last row", group=LIST),
        Binding("enter", "open", "open", id="list.open", tooltip="Open this row", group=LIST),
    ]

    def __init__(
        self,
        title: str,
        columns: Callable[[int], list[Column[Item]]],
        key: Callable[[Item], str],
        *,
        id: str | None = None,
    ) -> None:
        super().__init__(id=id)
        self.title, self.columns, self.key = title, columns, key
        self.items: Sequence[Item] = ()
        self.place, self.top = 0, 0
        self.empty, self.tone = "", "dim"

    def show(self, items: Sequence[Item], empty: str = "", tone: str = "dim") -> None:
        """Replace the items; `empty` is shown if there are none. The cursor stays on its row's key."""
        before = self.under_cursor
        wanted = None if before is None else self.key(before)
        self.items, self.empty, self.tone = items, empty, tone
        if wanted is not None:
            self.place = next((i for i, item in enumerate(items) if self.key(item) == wanted), self.place)
        self._stand(self.place)

    @property
    def under_cursor(self) -> Item | None:
        return self.items[self.place] if 0 <= self.place < len(self.items) else None

    def go_to(self, key: str) -> None:
        """Put the cursor on the row of that key, if there is one."""
        place = next((i for i, item in enumerate(self.items) if self.key(item) == key), None)
        if place is not None:
            self._stand(place)

    def action_move(self, by: int) -> None:
        self._stand(self.place + by)

    def action_page(self, by: int) -> None:
        self._stand(self.place + by * max(1, self.size.height - 2))

    def action_open(self) -> None:
        if (item := self.under_cursor) is not None:
            self.post_message(RowOpened(self.key(item)))

    def _stand(self, place: int) -> None:
        self.place = max(0, min(len(self.items) - 1, place))
        self.redraw()
        item = self.under_cursor
        if self.tells:
            self.post_message(RowMoved(None if item is None else self.key(item)))

    def on_click(self, event: Click) -> None:
        if event.y and self.top + event.y - 1 < len(self.items):
            self._stand(self.top + event.y - 1)

    def on_mouse_scroll_down(self, _: MouseScrollDown) -> None:
        self._stand(self.place + 3)

    def on_mouse_scroll_up(self, _: MouseScrollUp) -> None:
        self._stand(self.place - 3)

    def table(self) -> Table:
        return shared(self.title.lower(), self.columns(SHARED_WIDTH), self.items)

    def rows(self, width: int, height: int) -> list[Row]:
        columns = fitting(self.columns(width), width)
        head = table_head(columns, self.title, self.has_focus)
        if not self.items:
            return [head, *((cell(f" {line}", width, self.tone),) for line in self.empty.split("\n"))]
        room = max(1, height - 1)
        self.top = window(self.top, self.place, len(self.items), room)
        rows = []
        for i in range(self.top, min(len(self.items), self.top + room)):
            here = i == self.place
            rows.append(table_row(columns, self.items[i], "▸" if here else " ", cursor=here and self.has_focus))
        return [head, *rows]


class Page(Scrolled):
    """Rows made by a function for the width, scrolled with the arrows."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "g,home", f"scroll_rows(-{FAR})", "First", show=False, id="page.first", tooltip="Go to the top", group=LIST
        ),
        Binding(
            "G,end", f"scroll_rows({FAR})", "Last", show=False, id="page.last", tooltip="Go to the end", group=LIST
        ),
    ]

    def __init__(
        self,
        compose: Callable[[int, bool], list[Row]],
        *,
        id: str | None = None,
        table: Callable[[], Table | None] = lambda: None,
        charts: Callable[[], list[Table]] = list,
    ) -> None:
        super().__init__(id=id)
        self.make = compose
        self._table, self._charts = table, charts

    def table(self) -> Table | None:
        return self._table()

    def charts(self) -> list[Table]:
        return self._charts()

    def rows(self, width: int, height: int) -> list[Row]:
        lines = self.make(width, self.has_focus)
        self.top = max(0, min(self.top, len(lines) - height))
        # The first line is the heading and stays.
        return [lines[0], *lines[1 + self.top :]][:height] if lines else []
