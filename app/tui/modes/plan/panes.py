"""Panes of the Plan screen."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.message import Message

from kvdeck.app.tui.bandwidth import BandwidthHistory
from kvdeck.app.tui.export import Table
from kvdeck.app.tui.modes.plan.figures import command_rows, figure_rows, grid_rows
from kvdeck.app.tui.modes.plan.form import COLUMNS, PlanForm
from kvdeck.app.tui.modes.plan.tables import plan_table, sweep_table
from kvdeck.app.tui.state import Doctor
from kvdeck.app.tui.widgets.fields import FieldsPane
from kvdeck.app.tui.widgets.key_bar import PLAN
from kvdeck.app.tui.widgets.lines import Lines, Row


@dataclass
class PlanChanged(Message):
    """A field of the plan has changed."""

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, PlanChanged)


class PlanPane(FieldsPane[PlanForm]):
    """The form's fields; posts PlanChanged whenever a value changes."""

    columns = COLUMNS
    titles = ("Split", "Work", "Transfer")
    label_width = 13

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(PlanForm(), id=id)

    def become(self, form: PlanForm) -> None:
        super().become(form)
        self.post_message(PlanChanged())

    def apply_doctor(self, doctor: Doctor) -> None:
        """Use doctor's newest report on host and paths."""
        self.become(replace(self.form, doctor=doctor))


class PlanView(Lines):
    """Base of the panes drawn from the form and the measured bandwidth."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.form, self.measured = PlanForm(), BandwidthHistory()

    def apply(self, form: PlanForm, measured: BandwidthHistory) -> None:
        """Show the figures of this form and bandwidth."""
        self.form, self.measured = form, measured
        self.redraw()


class Figures(PlanView):
    """Bytes, blocks, descriptors, capacity and time."""

    def rows(self, width: int, height: int) -> list[Row]:
        return figure_rows(self.form, self.measured, width, height)

    def table(self) -> Table | None:
        return plan_table(self.form)


class CommandPane(PlanView, can_focus=True):
    """nixlbench's command line; in focus, `y` copies it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "screen.copy", "copy", id="plan.copy", tooltip="Copy the nixlbench command", group=PLAN),
    ]

    def rows(self, width: int, height: int) -> list[Row]:
        return command_rows(self.form, width, self.has_focus)


class Grid(PlanView):
    """Block sizes over TP and page size."""

    def rows(self, width: int, height: int) -> list[Row]:
        return grid_rows(self.form, self.measured, width)

    def table(self) -> Table | None:
        return sweep_table(self.form, long=False)

    def points(self) -> Table | None:
        return sweep_table(self.form, long=True)
