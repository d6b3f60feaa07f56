"""The form in three columns of lines: arrows move, space switches, - and + change, Enter types a number."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.events import Click, Key

from kvdeck.app.form import COLUMNS, Field, Form
from kvdeck.app.snapshot import Doctor
from kvdeck.app.widgets.keys import FORM
from kvdeck.app.widgets.lines import Lines, Row, Span, cell, heading

TITLES = ("Paths", "Block", "Run")
HEIGHT = 11


class FormPane(Lines, can_focus=True):
    """Keeps the form and a cursor in it; `form` is what `r` launches."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(0, -1)", "Up", show=False, id="form.up", tooltip="The field above", group=FORM),
        Binding("down,j", "move(0, 1)", "Down", show=False, id="form.down", tooltip="The field below", group=FORM),
        Binding(
            "left,h", "move(-1, 0)", "Left", show=False, id="form.left", tooltip="The column to the left", group=FORM
        ),
        Binding(
            "right,l", "move(1, 0)", "Right", show=False, id="form.right", tooltip="The column to the right", group=FORM
        ),
        Binding(
            "space", "switch", "switch", id="form.toggle", tooltip="Switch it, or take the next choice", group=FORM
        ),
        Binding(
            "minus",
            "step(-1)",
            "less",
            key_display="-",
            id="form.less",
            tooltip="Halve, or the choice before",
            group=FORM,
        ),
        Binding(
            "plus,equals_sign",
            "step(1)",
            "more",
            key_display="+",
            id="form.more",
            tooltip="Double, or the choice after",
            group=FORM,
        ),
        Binding("enter", "edit", "type", id="form.edit", tooltip="Type a number", group=FORM),
    ]

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.form = Form()
        self.column, self.line = 0, 0
        self.typing: str | None = None

    @property
    def at(self) -> Field:
        """The field under the cursor."""
        return COLUMNS[self.column][self.line]

    def apply_doctor(self, doctor: Doctor) -> None:
        """Take doctor's newest word on each path."""
        self.form = replace(self.form, doctor=doctor)
        self.redraw()

    def action_move(self, columns: int, lines: int) -> None:
        if columns:
            self.column = max(0, min(len(COLUMNS) - 1, self.column + columns))
            self.line = min(self.line, len(COLUMNS[self.column]) - 1)
        else:
            self.line = max(0, min(len(COLUMNS[self.column]) - 1, self.line + lines))
        self.redraw()

    def action_switch(self) -> None:
        if self.at.kind == "number":
            self.action_edit()
            return
        self._become(self.form.toggled(self.at))

    def action_step(self, by: int) -> None:
        self._become(self.form.stepped(self.at, by))

    def action_edit(self) -> None:
        if self.at.kind != "number":
            self.action_switch()
            return
        self.typing = ""
        self.redraw()

    def _become(self, form: Form) -> None:
        if form == self.form and self.at.kind == "toggle":
            self.notify(
                self.form.hint(self.at), title=f"{self.at.label} can't run here", severity="warning", markup=False
            )
        self.form = form
        self.redraw()

    def on_key(self, event: Key) -> None:
        if self.typing is None:
            return
        event.stop()
        event.prevent_default()
        if event.key in ("enter", "tab", "up", "down"):
            self.form, self.typing = self.form.typed(self.at, self.typing), None
        elif event.key == "escape":
            self.typing = None
        elif event.key == "backspace":
            self.typing = self.typing[:-1]
        elif event.character and event.character.isdigit() and len(self.typing) < 12:
            self.typing += event.character
        self.redraw()

    def watch_has_focus(self, has_focus: bool) -> None:
        self.typing = None
        super().watch_has_focus(has_focus)

    def on_click(self, event: Click) -> None:
        widths = self._widths(self.size.width)
        column = next((i for i in range(len(widths)) if event.x < sum(widths[: i + 1])), len(widths) - 1)
        if 1 <= event.y <= len(COLUMNS[column]):
            self.column, self.line = column, event.y - 1
            self.redraw()

    def rows(self, width: int, height: int) -> list[Row]:
        widths = self._widths(width)
        head: Row = tuple(
            span
            for i, title in enumerate(TITLES)
            for span in heading(title, widths[i], self.has_focus and i == self.column)
        )
        lines = [
            tuple(span for i in range(len(COLUMNS)) for span in self._line(i, line, widths[i]))
            for line in range(height - 3)
        ]
        hint = f" {self.at.label}: {self.form.hint(self.at)}" if self.has_focus else ""
        problem = self.form.problem()
        return [
            head,
            *lines,
            (cell(f" {problem or self.form.derived()}", width, "bad" if problem else ""),),
            (cell(hint, width, "dim"),),
        ]

    def _widths(self, width: int) -> tuple[int, int, int]:
        block, run = (24, 20) if width < 110 else (32, 30) if width < 160 else (52, 48)
        return width - block - run, block, run

    def _line(self, column: int, line: int, width: int) -> Row:
        if line >= len(COLUMNS[column]):
            return (cell("", width),)
        item = COLUMNS[column][line]
        here = self.has_focus and (column, line) == (self.column, self.line)
        mark: Span = ("▸" if here else " ", "key")
        body = self._toggle(item, width - 2) if item.kind == "toggle" else self._value(item, width - 2, here)
        return (mark, *((text, f"!{name.removeprefix('!')}" if here else name) for text, name in body), (" ", ""))

    def _toggle(self, item: Field, width: int) -> Row:
        box, label = self.form.text(item), 20 if width > 50 else 16
        if column_of(item) != 0:
            return (cell(f"{box} ", 4), cell(item.label, width - 4, f"layout:{item.key}"))
        row = self.form.doctor.best(item.key)
        if row is None:
            said, tone = ("checking" if self.form.doctor.looking else "", "dim")
        elif row.state == "ready":
            said, tone = (f"ready {row.backend}", "ok")
        else:
            said, tone = (f"! {row.reason}", "warn") if row.state == "degraded" else (row.reason, "dim")
        name = f"path:{item.key}" if self.form.available(item.key) else "dim"
        return (cell(f"{box} ", 4), cell(item.label, label, name), cell(said, width - 4 - label, tone))

    def _value(self, item: Field, width: int, here: bool) -> Row:
        if here and self.typing is not None:
            return (cell(item.label, 12), cell(f"{self.typing}▏", width - 12, "key"))
        return (cell(item.label, 12, "dim"), cell(self.form.text(item), width - 12))


def column_of(item: Field) -> int:
    """The column a field stands in."""
    return next(i for i, column in enumerate(COLUMNS) if item in column)
