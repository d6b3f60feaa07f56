"""Comparison of several sessions with one baseline, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from kvdeck.app.tui.export_tables import curve_table
from kvdeck.app.tui.modes.base import DeckScreen
from kvdeck.app.tui.widgets.key_bar import LIST, RUN
from kvdeck.app.tui.widgets.lines import Row, heading
from kvdeck.app.tui.widgets.list import Page
from kvdeck.app.tui.widgets.report_lines import line_row
from kvdeck.sessions.analysis.compare import compare
from kvdeck.sessions.text.comparison_report import many_lines
from kvdeck.sessions.units import many

if TYPE_CHECKING:
    from kvdeck.app.tui.export import Table
    from kvdeck.sessions.model.records import Session


class VersusScreen(DeckScreen):
    """The first session is the baseline; `b` makes the next one the baseline."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "b", "baseline", "baseline", id="versus.baseline", tooltip="Use the next session as the baseline", group=RUN
        ),
        Binding("escape", "back", "back", key_display="Esc", id="versus.back", tooltip="Go back", group=LIST),
    ]

    def __init__(self, sessions: tuple[Session, ...]) -> None:
        super().__init__()
        self.sessions = sessions

    def body(self) -> ComposeResult:
        yield Page(self._rows, id="versus", table=self._table, charts=lambda: [self._table()])

    def _table(self) -> Table:
        return curve_table(f"{self.sessions[0].name}-and-{len(self.sessions) - 1}", self.sessions)

    def on_mount(self) -> None:
        self.query_one("#versus").focus()
        super().on_mount()

    def _rows(self, width: int, focused: bool) -> list[Row]:
        baseline, *others = self.sessions
        lines = many_lines([compare(baseline, other) for other in others], width - 2)
        title = f"{many(len(self.sessions), 'session')} against {baseline.name}"
        return [heading(title, width, focused), *(line_row(line, width - 1) for line in lines)]

    def action_baseline(self) -> None:
        self.sessions = (*self.sessions[1:], self.sessions[0])
        self.query_one(Page).redraw()

    def action_back(self) -> None:
        self.dismiss()
