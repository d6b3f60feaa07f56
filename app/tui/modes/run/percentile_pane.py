"""Request-time percentiles of the trial shown, one row per layout."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.geometry import Size

from kvdeck.app.tui.modes.run.steps import AGAINST_WIDTH, against
from kvdeck.app.tui.widgets.lines import Lines, Row, cell
from kvdeck.app.tui.widgets.table import Column, fitting, shared, table_head, table_row
from kvdeck.sessions.units import count_text, figure, short_layout_name, size_text, time_text

if TYPE_CHECKING:
    from kvdeck.app.tui.export import Table
    from kvdeck.sessions.model.run_state import RunState, StepState

COLUMNS: list[Column[StepState]] = [
    Column("layout", 14, lambda s: short_layout_name(s.plan.layout), lambda s: f"layout:{s.plan.layout}", right=False),
    Column("p50", 7, lambda s: time_text(s.micros("request", "p50"))),
    Column("p90", 7, lambda s: time_text(s.micros("request", "p90"))),
    Column("p95", 7, lambda s: time_text(s.micros("request", "p95"))),
    Column("p99", 7, lambda s: time_text(s.micros("request", "p99"))),
    Column("max", 7, lambda s: time_text(s.micros("request", "max"))),
    Column("ref GB/s", 8, lambda s: figure(s.reference_gb_per_s)),
    Column("against", AGAINST_WIDTH, against),
    Column("requests", 9, lambda s: count_text(s.counter("iterations"))),
    Column("blocks", 10, lambda s: count_text(s.counter("blocks"))),
    Column("moved", 9, lambda s: size_text(s.counter("bytes"))),
]


class PercentilePane(Lines):
    """Request times, reference and counters of the interleaved layouts."""

    def apply(self, run: RunState | None, step: int | None) -> None:
        """Show the trial of a step; None for the running step."""
        before = len(self._trial)
        self._trial = () if run is None else run.trial_of(run.current if step is None else step)
        if len(self._trial) != before:
            self.refresh(layout=True)
        self.redraw()

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return 1 + min(4, max(2, len(self._trial)))

    _trial: tuple[StepState, ...] = ()

    def table(self) -> Table | None:
        return shared("request-times", COLUMNS, self._trial)

    def rows(self, width: int, height: int) -> list[Row]:
        columns = fitting(COLUMNS, width)
        head = table_head(columns, "Request times", False)
        if not self._trial:
            return [head, (cell(" Request times appear here when the run starts", width, "dim"),)]
        return [head, *(table_row(columns, step) for step in self._trial)]
