"""Comparison of two telemetry sessions, flow by flow."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from kvdeck.app.tui.modes.base import DeckScreen
from kvdeck.app.tui.widgets.key_bar import LIST, RUN
from kvdeck.app.tui.widgets.lines import Row, heading
from kvdeck.app.tui.widgets.list import Page
from kvdeck.app.tui.widgets.report_lines import line_row
from kvdeck.sessions.analysis.compare_telemetry import compare_flows
from kvdeck.sessions.text.telemetry_comparison_report import telemetry_diff_lines, telemetry_diff_markdown

if TYPE_CHECKING:
    from kvdeck.sessions.model.records import Session


class RecordingsScreen(DeckScreen):
    """Compares telemetry sessions A and B; Esc returns to the list."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("X", "swap", "swap", id="recordings.swap", tooltip="B becomes A", group=RUN),
        Binding("y", "copy", "copy", id="recordings.copy", tooltip="Copy as Markdown", group=LIST),
        Binding("escape", "back", "back", key_display="Esc", id="recordings.back", tooltip="Go back", group=LIST),
    ]

    def __init__(self, a: Session, b: Session) -> None:
        super().__init__()
        self.a, self.b = a, b
        self.diff = compare_flows(a, b)

    def body(self) -> ComposeResult:
        yield Page(self._rows, id="recordings")

    def on_mount(self) -> None:
        self.query_one("#recordings").focus()
        super().on_mount()

    def _rows(self, width: int, focused: bool) -> list[Row]:
        rows = [line_row(line, width - 1) for line in telemetry_diff_lines(self.diff, width - 2)]
        return [heading("Two telemetry sessions, flow by flow", width, focused), *rows]

    def action_swap(self) -> None:
        self.a, self.b = self.b, self.a
        self.diff = compare_flows(self.a, self.b)
        self.query_one(Page).redraw()

    def action_copy(self) -> None:
        self.app.copy_to_clipboard(telemetry_diff_markdown(self.diff))
        self.notify("copied as Markdown, if the terminal supports OSC 52", markup=False)

    def action_back(self) -> None:
        self.dismiss()


def open_recordings(screen: DeckScreen, sessions: tuple[Session, ...]) -> None:
    """Open the comparison of two telemetry sessions; warn if there are more or fewer."""
    if len(sessions) == 2:
        screen.app.push_screen(RecordingsScreen(*sessions))
    else:
        screen.notify("telemetry sessions are compared two at a time", severity="warning")
