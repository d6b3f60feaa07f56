"""A session's report, the same as `kvdeck session show` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from kvdeck.app.tui.comparison.diff import diff_layouts
from kvdeck.app.tui.export_tables import curve_table, distribution_table, percentile_table, result_table
from kvdeck.app.tui.modes.base import DeckScreen
from kvdeck.app.tui.widgets.key_bar import LIST
from kvdeck.app.tui.widgets.lines import Row, heading, linked
from kvdeck.app.tui.widgets.list import Page
from kvdeck.app.tui.widgets.report_lines import line_row
from kvdeck.sessions.model.records import Session
from kvdeck.sessions.text.run_report import Line, has_samples, report_lines

if TYPE_CHECKING:
    from kvdeck.app.tui.export import Table
    from kvdeck.sessions.analysis.histograms import Histogram, Key


def report_rows(session: Session, width: int) -> list[Row]:
    """Return a session's report, and which key replays its telemetry if it holds some."""
    lines = report_lines(session, width - 2)
    if has_samples(session):
        lines += [Line(""), Line("v replays the telemetry in the Monitor.")]
    return [line_row(line, width - 1) for line in lines]


def replay_telemetry(screen: DeckScreen, session: Session) -> None:
    """Replay the telemetry of a session in the Monitor; warn if it holds none."""
    if has_samples(session):
        # Not from the worker that read the session: it ends when its screen is no longer in front.
        screen.app.call_later(screen.app.replay, session.name)
    else:
        screen.notify(f"{session.name} holds no telemetry · fix: run or trace with --record", severity="warning")


class ResultScreen(DeckScreen):
    """One session's report; Esc returns to where it was opened."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("d", "diff", "diff", id="result.diff", tooltip="Compare the run's first two layouts", group=LIST),
        Binding(
            "v",
            "view",
            "telemetry",
            show=False,
            id="result.telemetry",
            tooltip="Replay the session's telemetry in the Monitor",
            group=LIST,
        ),
        Binding("escape", "back", "back", key_display="Esc", id="result.back", tooltip="Go back", group=LIST),
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
        head = linked(heading(self.session.name, width, focused), self.link_to(self.session.name))
        return [head, *report_rows(self.session, width)]

    def session_shown(self) -> str:
        return self.session.name

    def action_view(self) -> None:
        replay_telemetry(self, self.session)

    def action_diff(self) -> None:
        diff_layouts(self, self.session)

    def action_back(self) -> None:
        self.dismiss()
