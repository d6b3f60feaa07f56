"""Steps table of the Run screen: one row per step, updated live."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.events import Click
from textual.geometry import Size
from textual.message import Message

from kvdeck.app.tui.widgets.key_bar import LIST
from kvdeck.app.tui.widgets.lines import Lines, Row, cell, window
from kvdeck.app.tui.widgets.table import SHARED_WIDTH, Column, fitting, shared, table_head, table_row
from kvdeck.sessions.model.references import against_text, reference_text
from kvdeck.sessions.units import (
    UNKNOWN,
    count_text,
    figure,
    layout_name,
    range_text,
    ratio_text,
    short_layout_name,
    time_text,
)

if TYPE_CHECKING:
    from kvdeck.app.tui.export import Table
    from kvdeck.sessions.model.run_state import RunState, StepState

AGAINST_WIDTH = 15
_WIDEST_RATIO = "98.3 % "
MARKS = {"waiting": "·", "running": "▸", "ok": "✓", "suspect": "?", "unavailable": "–", "failed": "✗", "cancelled": "×"}
TONES = {
    "waiting": "dim",
    "running": "run",
    "ok": "ok",
    "suspect": "bad",
    "unavailable": "warn",
    "failed": "bad",
    "cancelled": "warn",
}


@dataclass
class StepChosen(Message):
    """A step was picked for the plot; None follows the running step."""

    step: int | None


@dataclass
class ReportWanted(Message):
    """Enter was pressed on a run that has ended."""


def backend_text(step: StepState) -> str:
    """Return backend, API and O_DIRECT, short: `POSIX AIO direct`."""
    plan = step.plan
    parts = (plan.backend, plan.api or "", "direct" if plan.direct else "")
    return " ".join(part for part in parts if part)


def state_text(step: StepState) -> str:
    """Return a step's state, and its reason if it has one and isn't ok."""
    reason = step.result.reason if step.result is not None else None
    word = {"ok": "done"}.get(step.state, step.state)
    return f"{word}: {reason}" if reason and step.state != "ok" else word


def against(step: StepState) -> str:
    """Return the rate relative to the reference's: `64 % memcpy`, `1.60× pread`; a long name gives way to `limit`."""
    if len(_WIDEST_RATIO) + len(step.reference or "") <= AGAINST_WIDTH:  # alike for all steps of a reference
        return reference_text(step.reference_ratio, step.reference, step.reference_is_limit)
    ratio = against_text(step.reference_ratio, step.reference_is_limit)
    return f"{ratio} of limit" if step.reference_is_limit else f"{ratio} limit"


def _ratio(step: StepState) -> str:
    """Return the time over the baseline's: the worker's estimate while it runs, marked `≈`, then the comparison."""
    if (found := step.compared) is not None:
        return ratio_text(found.ratio, found.low, found.high)
    if step.values and step.counter("ratio") is None:
        return "base"
    low, high = step.counter("ratio_low"), step.counter("ratio_high")
    return f"≈{ratio_text(step.counter('ratio'))} {range_text(low, high)}" if step.values else UNKNOWN


def _columns(width: int) -> list[Column[StepState]]:
    wide = width >= 112
    dim_until_run = {"waiting": "dim"}

    def tone(step: StepState) -> str:
        return dim_until_run.get(step.state, "")

    def layout_style(step: StepState) -> str:
        return f"layout:{step.plan.layout}"

    name = layout_name if wide else short_layout_name
    columns: list[Column[StepState]] = [
        Column("", 1, lambda s: MARKS[s.state], lambda s: TONES[s.state], right=False),
        Column("path", 14, lambda s: s.plan.path, lambda s: f"path:{s.plan.path}", right=False),
        Column(
            "layout",
            19 if width >= 124 else 15 if wide else 8,
            lambda s: name(s.plan.layout),
            layout_style,
            right=False,
        ),
        Column("desc", 4, lambda s: count_text(s.plan.descriptors_per_block), tone),
        Column("GB/s", 7 if width >= 83 else 6, lambda s: figure(s.gb_per_s), tone),
        Column("post", 7, lambda s: time_text(s.micros("post", "p50")), tone),
        Column("xfer", 7, lambda s: time_text(s.micros("transfer", "p50")), tone),
        Column("p99", 7, lambda s: time_text(s.micros("request", "p99")), tone),
        Column("time ratio", 17, _ratio, tone),
    ]
    if wide:
        backend = Column("backend", 17, backend_text, tone, right=False)
        columns.insert(3, backend)
        if width >= 140:
            columns.append(Column("against", AGAINST_WIDTH, against, tone))
        left = width - 1 - sum(column.width + 1 for column in columns)
        columns.append(Column("state", max(8, left - 1), state_text, lambda s: TONES[s.state], right=False))
    return columns


class StepTable(Lines, can_focus=True):
    """Follows the running step until a step is picked; Esc follows again."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", show=False, id="steps.up", tooltip="Previous step", group=LIST),
        Binding("down,j", "move(1)", "Down", show=False, id="steps.down", tooltip="Next step", group=LIST),
        Binding("g,home", "move(-100000)", "First", show=False, id="steps.first", tooltip="First step", group=LIST),
        Binding("G,end", "move(100000)", "Last", show=False, id="steps.last", tooltip="Last step", group=LIST),
        Binding("enter", "open", "report", id="steps.open", tooltip="Open the report of a run that ended", group=LIST),
    ]

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.run: RunState | None = None
        self.picked: int | None = None
        self.top = 0

    def apply(self, run: RunState | None) -> None:
        """Show a run; another run than before clears the picked step."""
        if run is None or self.run is None or run.session != self.run.session:
            self.picked, self.top = None, 0
        before = 0 if self.run is None else len(self.run.steps)
        self.run = run
        if before != (0 if run is None else len(run.steps)):
            self.refresh(layout=True)
        self.redraw()

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return 1 + max(4, 0 if self.run is None else len(self.run.steps))

    def _place(self) -> int:
        if self.run is None:
            return 0
        wanted = self.run.current if self.picked is None else self.picked
        return next((i for i, step in enumerate(self.run.steps) if step.plan.step == wanted), 0)

    def action_move(self, by: int) -> None:
        if self.run is None or not self.run.steps:
            return
        place = max(0, min(len(self.run.steps) - 1, self._place() + by))
        self._pick(self.run.steps[place].plan.step)

    def action_open(self) -> None:
        if self.run is not None and self.run.over:
            self.post_message(ReportWanted())
        else:
            self.action_follow()

    def action_follow(self) -> None:
        self._pick(None)

    def _pick(self, step: int | None) -> None:
        self.picked = step
        self.redraw()
        self.post_message(StepChosen(step))

    def on_click(self, event: Click) -> None:
        place = self.top + event.y - 1
        if self.run is not None and event.y and place < len(self.run.steps):
            self._pick(self.run.steps[place].plan.step)

    def table(self) -> Table | None:
        return None if self.run is None else shared(self.run.session, _columns(SHARED_WIDTH), self.run.steps)

    def rows(self, width: int, height: int) -> list[Row]:
        columns = fitting(_columns(width), width)
        head = table_head(columns, "Steps", self.has_focus)
        if self.run is None or not self.run.steps:
            waiting = self.run is not None
            said = (
                "waiting for the engine to plan the steps"
                if waiting
                else "no run yet · r compares the selected layouts"
            )
            return [head, (cell(f" {said}", width, "dim"),)]
        place, room = self._place(), max(1, height - 1)
        self.top = window(self.top, place, len(self.run.steps), room)
        shown = self.run.steps[self.top : self.top + room]
        return [head, *(self._row(columns, step, self.top + i == place) for i, step in enumerate(shown))]

    def _row(self, columns: list[Column[StepState]], step: StepState, here: bool) -> Row:
        marked = here and self.picked is not None
        return table_row(columns, step, "▸" if marked else " ", cursor=marked)
