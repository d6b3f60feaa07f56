"""The Run screen's form pane: paths, the block, and the run settings."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kvdeck.app.tui.form_fields import Field
from kvdeck.app.tui.modes.run.form import Form, remembered
from kvdeck.app.tui.modes.run.form_fields import COLUMNS, TABLE
from kvdeck.app.tui.state import Doctor
from kvdeck.app.tui.widgets.fields import FieldsPane
from kvdeck.app.tui.widgets.lines import Row, cell
from kvdeck.sessions.model.records import PATHS

if TYPE_CHECKING:
    from kvdeck.app.tui.app import Deck

KEPT = "run"
"""Key of the form in the deck's UI state."""


class FormPane(FieldsPane[Form]):
    """Holds the form and a cursor in it; `r` launches `form`, and the UI state saves it."""

    app: Deck
    columns = COLUMNS
    titles = tuple(TABLE.pages[0])

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(Form(), id=id)
        self.page = 0

    def on_mount(self) -> None:
        self.form = remembered(self.app.memory.get(KEPT))

    def turn(self) -> None:
        """Switch to the next page of fields."""
        pages = self.form.table.pages
        self.page = (self.page + 1) % len(pages)
        page = pages[self.page]
        self.columns, self.titles = tuple(page.values()), tuple(page)
        self.column = min(self.column, len(page) - 1)
        self.typing = None
        self.action_move(0, 0)

    def reset(self) -> None:
        """Restore all defaults."""
        self.become(Form(doctor=self.form.doctor))

    def apply_doctor(self, doctor: Doctor) -> None:
        """Use doctor's newest report on each path."""
        super().become(replace(self.form, doctor=doctor))

    def become(self, form: Form) -> None:
        self.app.memory[KEPT] = form.kept()
        if form == self.form and self.at.kind == "toggle":
            self.notify(
                self.form.hint(self.at), title=f"{self.at.label} can't run here", severity="warning", markup=False
            )
        super().become(form)

    def widths(self, width: int) -> tuple[int, ...]:
        if self.page:
            return super().widths(width)
        block, run = (24, 20) if width < 110 else (32, 30) if width < 160 else (52, 48)
        return width - block - run, block, run

    def toggle_row(self, item: Field, width: int) -> Row:
        if item.key not in PATHS:
            return super().toggle_row(item, width)
        box, label = self.form.text(item), 20 if width > 50 else 16
        row = self.form.doctor.best(item.key)
        if row is None:
            said, tone = ("checking" if self.form.doctor.looking else "", "dim")
        elif row.state == "ready":
            said, tone = (f"ready {row.backend}", "ok")
        else:
            said, tone = (f"! {row.reason}", "warn") if row.state == "degraded" else (row.reason, "dim")
        name = f"path:{item.key}" if self.form.available(item.key) else "dim"
        return (cell(f"{box} ", 4), cell(item.label, label, name), cell(said, width - 4 - label, tone))
