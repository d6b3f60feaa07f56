"""Table columns of live panes: titles share the pane's heading row, numbers are right-aligned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from rich.cells import cell_len

from kvdeck.app.tui.widgets.lines import CURSOR, Row, cell

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvdeck.app.tui.export import Table

Item = TypeVar("Item")
SHARED_WIDTH = 400
"""The width of exported tables: every column, nothing cut."""


@dataclass(frozen=True)
class Column(Generic[Item]):
    """One column: its title, its width, and an item's text and style in it."""

    title: str
    width: int
    text: Callable[[Item], str]
    style: Callable[[Item], str] = lambda _: ""
    right: bool = True


def table_head(columns: list[Column[Item]], title: str, focused: bool) -> Row:
    """Return the titles as one row, the pane's own title in place of the leftmost ones."""
    mark = "▌" if focused else " "
    skip = 0
    lead = f"{mark}{title} "
    # Left-aligned columns are clear without a title, so the pane's title takes their place.
    while skip < len(columns) and not columns[skip].right:
        skip += 1
    room = 1 + sum(column.width + 1 for column in columns[:skip])
    spans = [cell(lead + "─" * max(0, room - cell_len(lead) - 1), room, "title" if focused else "!dim")]
    for column in columns[skip:]:
        spans += [cell(column.title, column.width, "dim", right=column.right), (" ", "")]
    return tuple(spans)


def table_row(columns: list[Column[Item]], item: Item, mark: str = " ", cursor: bool = False) -> Row:
    """Return one item's cells as a row."""
    spans = [(mark, "key")]
    for column in columns:
        spans += [cell(column.text(item), column.width, column.style(item), right=column.right), (" ", "")]
    return (CURSOR, *spans) if cursor else tuple(spans)


def fitting(columns: list[Column[Item]], width: int) -> list[Column[Item]]:
    """Return the columns that fit, from the left."""
    kept, used = [], 1
    for column in columns:
        used += column.width + 1
        if used > width + 1:
            break
        kept.append(column)
    return kept


def shared(name: str, columns: list[Column[Item]], items: Sequence[Item]) -> Table:
    """Return the whole table, without untitled columns, for the clipboard or a file."""
    from kvdeck.app.tui.export import Table

    kept = [column for column in columns if column.title.strip()]
    rows = tuple(tuple(column.text(item).strip() for column in kept) for item in items)
    return Table(name, tuple(column.title.strip() for column in kept), rows)
