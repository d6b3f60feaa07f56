"""The pane of the matrix: a cursor on its cells, groups that open, and all ranks or only those that move bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.events import Click, MouseScrollDown, MouseScrollUp

from kvdeck.app.tui.modes.traffic.heat_map import (
    FRAME,
    LABEL,
    MOST_CELLS,
    SUM,
    HeatMap,
    cell_width,
    columns_shown,
    groups,
    heat_rows,
    shown_ranks,
)
from kvdeck.app.tui.widgets.key_bar import LIST, RUN
from kvdeck.app.tui.widgets.lines import Lines, Row, cell, heading, window
from kvdeck.app.tui.widgets.scroll import FAR

if TYPE_CHECKING:
    from kvdeck.app.tui.app import Deck
    from kvdeck.app.tui.export import Table
    from kvdeck.engine.traffic.matrix import Matrix


class MatrixPane(Lines, can_focus=True):
    """Bytes from row to column. More than 32 ranks are shown in groups; Enter opens the group under the cursor."""

    app: Deck
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1, 0)", "Up", show=False, id="matrix.up", tooltip="Previous sender", group=LIST),
        Binding("down,j", "move(1, 0)", "Down", show=False, id="matrix.down", tooltip="Next sender", group=LIST),
        Binding("left,h", "move(0, -1)", "Left", show=False, id="matrix.left", tooltip="Previous receiver", group=LIST),
        Binding("right,l", "move(0, 1)", "Right", show=False, id="matrix.right", tooltip="Next receiver", group=LIST),
        Binding("pageup", "page(-1)", "Page up", show=False, id="matrix.pageup", tooltip="Page up", group=LIST),
        Binding("pagedown", "page(1)", "Page down", show=False, id="matrix.pagedown", tooltip="Page down", group=LIST),
        Binding(
            "home", f"move(-{FAR}, -{FAR})", "First", show=False, id="matrix.first", tooltip="First cell", group=LIST
        ),
        Binding("end", f"move({FAR}, {FAR})", "Last", show=False, id="matrix.last", tooltip="Last cell", group=LIST),
        Binding("enter", "open", "group", id="matrix.open", tooltip="Show single ranks, or groups again", group=LIST),
        Binding(
            "asterisk",
            "everyone",
            "all ranks",
            key_display="*",
            id="matrix.all",
            tooltip="All ranks, or only those that send or receive",
            group=RUN,
        ),
    ]

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.matrix: Matrix | None = None
        self.title, self.empty = "Matrix", ""
        self.everyone = self.opened = False
        self.cell = 0, 0
        """Sender and receiver under the cursor: with groups, the first of each."""
        self.corner = 0, 0
        self._heat: HeatMap | None = None

    def show(self, matrix: Matrix | None, title: str, empty: str = "") -> None:
        """Show another matrix; the cursor stays on its ranks if it has them."""
        if matrix != self.matrix:
            size = 0 if matrix is None else matrix.ranks
            if self.matrix is None or size != self.matrix.ranks:
                self.opened, self.cell, self.corner = False, (0, 0), (0, 0)
            self._heat = None
        self.matrix, self.title, self.empty = matrix, title, empty
        self.redraw()

    def point(self, source: int, destination: int) -> None:
        """Put the cursor on a cell."""
        self.cell = source, destination
        self.redraw()

    @property
    def heat(self) -> HeatMap | None:
        """The matrix in the groups that the pane has room for."""
        if self.matrix is None:
            return None
        width, height = self.size
        rows, columns = shown_ranks(self.matrix, self.everyone)
        down, across = len(rows), len(columns)
        if not self.opened and down > MOST_CELLS:
            down = min(MOST_CELLS, height - 1 - FRAME)
        if not self.opened and across > MOST_CELLS:
            across = min(MOST_CELLS, width - LABEL - SUM)
        shape = groups(rows, down), groups(columns, across)
        if self._heat is None or (self._heat.rows, self._heat.columns) != shape:
            self._heat = HeatMap(self.matrix, *shape)
        return self._heat

    @property
    def cell_shown(self) -> tuple[int, int]:
        """The cell that the cursor is drawn on: the nearest to `cell` of those shown."""
        heat = self.heat
        if heat is None:
            return self.cell
        row, column = heat.place(*self.cell)
        return heat.rows[row][0], heat.columns[column][0]

    @property
    def grouped(self) -> bool:
        """True if a cell stands for several ranks."""
        return bool(self.heat is not None and self.heat.note)

    def action_move(self, down: int, right: int) -> None:
        heat = self.heat
        if heat is None:
            return
        row, column = heat.place(*self.cell)
        row = max(0, min(len(heat.rows) - 1, row + down))
        column = max(0, min(len(heat.columns) - 1, column + right))
        self.point(heat.rows[row][0], heat.columns[column][0])

    def action_page(self, by: int) -> None:
        self.action_move(by * max(1, self.size.height - 1 - FRAME), 0)

    def action_open(self) -> None:
        if self.grouped or self.opened:
            self.opened, self.corner = not self.opened, (0, 0)
            self.redraw()

    def action_everyone(self) -> None:
        self.everyone, self.corner = not self.everyone, (0, 0)
        self.redraw()

    def on_click(self, event: Click) -> None:
        heat = self.heat
        if heat is None:
            return
        row = self.corner[0] + event.y - 2
        column = self.corner[1] + (event.x - LABEL) // cell_width(len(heat.columns), self.size.width)
        if event.y >= 2 and event.x >= LABEL and row < len(heat.rows) and column < len(heat.columns):
            self.point(heat.rows[row][0], heat.columns[column][0])

    def on_mouse_scroll_down(self, _: MouseScrollDown) -> None:
        self.action_move(3, 0)

    def on_mouse_scroll_up(self, _: MouseScrollUp) -> None:
        self.action_move(-3, 0)

    def rows(self, width: int, height: int) -> list[Row]:
        heat = self.heat
        if heat is None:
            head = heading(self.title, width, self.has_focus)
            return [head, *((cell(f" {line}", width, "dim"),) for line in self.empty.split("\n"))]
        at = heat.place(*self.cell)
        across = columns_shown(len(heat.columns), width)
        self.corner = (
            window(self.corner[0], at[0], len(heat.rows), max(1, height - 1 - FRAME)),
            window(self.corner[1], at[1], len(heat.columns), across),
        )
        head = heading(self.title, width, self.has_focus, heat.note or ("" if width < 50 else "bytes, row to column"))
        return [head, *heat_rows(heat, at, self.corner, width, height - 1, self.has_focus, self.app.ascii)]

    def table(self) -> Table | None:
        from kvdeck.app.tui.export import Table

        if self.matrix is None:
            return None
        ranks = range(self.matrix.ranks)
        rows = [
            (f"r{rank}", *map(str, row), str(sum(row))) for rank, row in enumerate(self.matrix.rows)
        ]  # fmt: skip
        return Table("matrix", ("bytes from", *(f"r{rank}" for rank in ranks), "sum"), tuple(rows))
