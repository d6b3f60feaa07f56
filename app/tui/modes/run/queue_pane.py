"""Queue pane: the running run, and the queued ones with their position."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType

from kvdeck.app.tui.widgets.key_bar import LIST
from kvdeck.app.tui.widgets.lines import CURSOR, Lines, Row, cell, heading, window
from kvdeck.app.tui.widgets.list import RowOpened
from kvdeck.sessions.units import done_text

if TYPE_CHECKING:
    from kvdeck.engine.protocol import RunInfo


class QueuePane(Lines, can_focus=True):
    """Running and queued runs; Enter follows one, `x` cancels it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", show=False, id="queue.up", tooltip="Previous run", group=LIST),
        Binding("down,j", "move(1)", "Down", show=False, id="queue.down", tooltip="Next run", group=LIST),
        Binding("enter", "open", "show", id="queue.open", tooltip="Show this run", group=LIST),
    ]

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.runs: tuple[RunInfo, ...] = ()
        self.place, self.top = 0, 0

    def apply(self, runs: tuple[RunInfo, ...]) -> None:
        """Show the queue without finished runs."""
        self.runs = tuple(run for run in runs if run.state in ("running", "queued"))
        self.place = max(0, min(self.place, len(self.runs) - 1))
        self.redraw()

    @property
    def under_cursor(self) -> RunInfo | None:
        return self.runs[self.place] if self.runs else None

    def action_move(self, by: int) -> None:
        self.place = max(0, min(len(self.runs) - 1, self.place + by))
        self.redraw()

    def action_open(self) -> None:
        if self.under_cursor is not None:
            self.post_message(RowOpened(self.under_cursor.session))

    def rows(self, width: int, height: int) -> list[Row]:
        waiting = sum(run.state == "queued" for run in self.runs)
        head = heading("Queue", width, self.has_focus, f"{waiting} waiting" if waiting else "")
        if not self.runs:
            return [head, (cell(" empty", width, "dim"),)]
        self.top = window(self.top, self.place, len(self.runs), height - 1)
        return [head, *(self._row(i, width) for i in range(self.top, min(len(self.runs), self.top + height - 1)))]

    def _row(self, index: int, width: int) -> Row:
        run, here = self.runs[index], self.has_focus and index == self.place
        place = "now" if run.state == "running" else f"{run.position if run.position is not None else '–':>3}"
        spans = (
            ("▸" if here else " ", "key"),
            (f"{place} ", "run" if run.state == "running" else "dim"),
            cell(run.session, max(8, width - 22)),
            cell(run.state, 8, "run" if run.state == "running" else "dim"),
            cell(done_text(run.fraction) if run.state == "running" else "", 6, right=True),
        )
        return (CURSOR, *spans) if here else spans
