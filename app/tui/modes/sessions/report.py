"""A session's report, the same as `kvdeck session show` prints."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from kvdeck.app.tui.comparison.diff import diff_layouts
from kvdeck.app.tui.export_tables import curve_table, distribution_table, percentile_table, result_table
from kvdeck.app.tui.form_fields import LAYOUTS
from kvdeck.app.tui.modes.base import DeckScreen
from kvdeck.app.tui.widgets.key_bar import LIST
from kvdeck.app.tui.widgets.lines import Row, cell, heading, linked
from kvdeck.app.tui.widgets.list import Page
from kvdeck.sessions.model.records import Session
from kvdeck.sessions.text.run_report import Line, report_lines
from kvdeck.sessions.units import layout_name

if TYPE_CHECKING:
    from kvdeck.app.tui.export import Table
    from kvdeck.sessions.analysis.histograms import Histogram, Key

_TONES = {"plain": "", "heading": "title", "bad": "bad", "warning": "warn"}
_LAYOUTS = {layout_name(text): text for text in LAYOUTS}
_TABLE_ROW = re.compile(rf"\s+({'|'.join(sorted(_LAYOUTS, reverse=True))})\s+\d+/")


def line_row(line: Line, width: int) -> Row:
    """Return a report line as a row coloured by its tone, or in a table by its layout."""
    found = _TABLE_ROW.match(line.text)
    if found is None:
        return (cell(f" {line.text}", width, _TONES[line.tone]),)
    end = found.end(1)
    return ((f" {line.text[:end]}", f"layout:{_LAYOUTS[found[1]]}"), cell(line.text[end:], max(1, width - end - 1)))


class ResultScreen(DeckScreen):
    """One session's report; Esc returns to the list."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("d", "diff", "diff", id="result.diff", tooltip="Compare the run's first two layouts", group=LIST),
        Binding(
            "escape", "back", "back", key_display="Esc", id="result.back", tooltip="Go back to the list", group=LIST
        ),
    ]

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self.spreads: dict[Key, Histogram] = {}

    def body(self) -> ComposeResult:
        yield Page(self._rows, id="result", table=lambda: result_table(self.session), charts=self._charts)

    def on_mount(self) -> None:
        self.query_one("#result").focus()
        super().on_mount()
        self.ask(lambda: self._load_spreads())

    async def _load_spreads(self) -> None:
        self.spreads = await self.app.requests.load_histograms(self.session)

    def _charts(self) -> list[Table]:
        spread = distribution_table(self.session.name, [(self.session.name, self.spreads)])
        return [percentile_table(self.session), spread, curve_table(self.session.name, [self.session])]

    def _rows(self, width: int, focused: bool) -> list[Row]:
        rows = [line_row(line, width - 1) for line in report_lines(self.session, width - 2)]
        return [linked(heading(self.session.name, width, focused), self.link_to(self.session.name)), *rows]

    def session_shown(self) -> str:
        return self.session.name

    def action_diff(self) -> None:
        diff_layouts(self, self.session)

    def action_back(self) -> None:
        self.dismiss()
