"""Form fields in columns: arrows move, space switches, - and + change, Enter types a number or a text."""

from __future__ import annotations

from typing import ClassVar, Generic, Protocol, TypeVar

from textual.binding import Binding, BindingType
from textual.events import Click, Key

from kvdeck.app.tui.form_fields import Field
from kvdeck.app.tui.widgets.key_bar import FORM
from kvdeck.app.tui.widgets.lines import Lines, Row, Span, cell, heading

Me = TypeVar("Me")


class Editable(Protocol):
    """The values a FieldsPane edits; immutable, each change returns a new object."""

    def text(self, item: Field) -> str:
        """Return a field's display text."""

    def toggled(self: Me, item: Field) -> Me:
        """Return the values with a toggle switched, or with a choice's next option."""

    def stepped(self: Me, item: Field, by: int) -> Me:
        """Return the values with the field's next or previous option."""

    def typed(self: Me, item: Field, text: str) -> Me:
        """Return the values with a typed number or text."""

    def refusal(self, item: Field, text: str) -> str:
        """Return why `typed` doesn't take a text, and the fix; "" if it does."""

    def hint(self, item: Field) -> str:
        """Return a one-line hint for a field."""

    def problem(self) -> str:
        """Return why the values can't be used, or ""."""

    def derived(self) -> str:
        """Return what follows from the values, in one line."""


_LONGEST_TEXT = 120

Value = TypeVar("Value", bound=Editable)


class FieldsPane(Lines, Generic[Value], can_focus=True):
    """Shows and edits the fields; holds the values and a cursor."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(0, -1)", "Up", show=False, id="form.up", tooltip="Previous field", group=FORM),
        Binding("down,j", "move(0, 1)", "Down", show=False, id="form.down", tooltip="Next field", group=FORM),
        Binding("left,h", "move(-1, 0)", "Left", show=False, id="form.left", tooltip="Go one column left", group=FORM),
        Binding(
            "right,l", "move(1, 0)", "Right", show=False, id="form.right", tooltip="Go one column right", group=FORM
        ),
        Binding("space", "switch", "switch", id="form.toggle", tooltip="Next choice", group=FORM),
        Binding(
            "minus",
            "step(-1)",
            "less",
            key_display="-",
            id="form.less",
            tooltip="Decrease",
            group=FORM,
        ),
        Binding(
            "plus,equals_sign",
            "step(1)",
            "more",
            key_display="+",
            id="form.more",
            tooltip="Increase",
            group=FORM,
        ),
        Binding("tab", "next_field", "Next", show=False, id="form.next", tooltip="Next field, then pane", group=FORM),
        Binding(
            "shift+tab",
            "previous_field",
            "Previous",
            show=False,
            id="form.previous",
            tooltip="Previous field, then pane",
            group=FORM,
        ),
        Binding("enter", "edit", "type", id="form.edit", tooltip="Type a number", group=FORM),
    ]
    columns: tuple[tuple[Field, ...], ...] = ()
    titles: tuple[str, ...] = ()
    label_width: ClassVar[int] = 12

    def __init__(self, form: Value, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.form = form
        self.column, self.line = 0, 0
        self.typing: str | None = None
        self.refused = ""
        """Why what was typed last isn't taken."""

    @property
    def at(self) -> Field:
        """The field under the cursor."""
        return self.columns[self.column][self.line]

    def action_move(self, columns: int, lines: int) -> None:
        if columns:
            self.column = max(0, min(len(self.columns) - 1, self.column + columns))
            self.line = min(self.line, len(self.columns[self.column]) - 1)
        else:
            self.line = max(0, min(len(self.columns[self.column]) - 1, self.line + lines))
        self.redraw()

    def action_next_field(self) -> None:
        if not self._go(1):
            self.screen.focus_next()

    def action_previous_field(self) -> None:
        if not self._go(-1):
            self.screen.focus_previous()

    def _go(self, by: int) -> bool:
        """Move the cursor in reading order of the columns; False at their end."""
        places = [(column, line) for column, fields in enumerate(self.columns) for line in range(len(fields))]
        place = places.index((self.column, self.line)) + by
        if 0 <= place < len(places):
            self.column, self.line = places[place]
            self.redraw()
            return True
        return False

    def action_switch(self) -> None:
        if self.at.kind == "number":
            self.action_edit()
            return
        self.become(self.form.toggled(self.at))

    def action_step(self, by: int) -> None:
        self.become(self.form.stepped(self.at, by))

    def action_edit(self) -> None:
        if self.at.kind not in ("number", "text"):
            self.action_switch()
            return
        self.typing = ""
        self.redraw()

    def become(self, form: Value) -> None:
        """Replace the values."""
        self.form = form
        self.redraw()

    def on_key(self, event: Key) -> None:
        if self.typing is None:
            return
        event.stop()
        event.prevent_default()
        if event.key in ("enter", "tab", "up", "down"):
            self.refused = self.form.refusal(self.at, self.typing)
            if not self.refused:
                typed, self.typing = self.typing, None
                self.become(self.form.typed(self.at, typed))
        elif event.key == "escape":
            self.typing, self.refused = None, ""
        elif event.key == "backspace":
            self.typing, self.refused = self.typing[:-1], ""
        elif self.at.kind == "text":
            if event.character and event.is_printable and len(self.typing) < _LONGEST_TEXT:
                self.typing += event.character
                self.refused = ""
        elif (
            event.character and len(self.typing) < 12 and (event.character.isdigit() or self._is_unit(event.character))
        ):
            self.typing += event.character
            self.refused = ""
        elif event.character and event.is_printable:
            unit = " with K, M or G" if self.at.size else ""
            self.refused = f"{self.at.label} takes a whole number{unit} · Esc leaves it as it was"
        self.redraw()

    def _is_unit(self, character: str) -> bool:
        """True if a character may end the number as its unit: 64K."""
        return self.at.size and bool(self.typing) and character in "kmgKMG" and str(self.typing).isdigit()

    def watch_has_focus(self, has_focus: bool) -> None:
        self.typing, self.refused = None, ""
        super().watch_has_focus(has_focus)

    def on_click(self, event: Click) -> None:
        widths = self.widths(self.size.width)
        column = next((i for i in range(len(widths)) if event.x < sum(widths[: i + 1])), len(widths) - 1)
        if 1 <= event.y <= len(self.columns[column]):
            self.column, self.line = column, event.y - 1
            self.redraw()

    def rows(self, width: int, height: int) -> list[Row]:
        widths = self.widths(width)
        head: Row = tuple(
            span
            for i, title in enumerate(self.titles)
            for span in heading(title, widths[i], self.has_focus and i == self.column)
        )
        lines = [
            tuple(span for i in range(len(self.columns)) for span in self._line(i, line, widths[i]))
            for line in range(height - 3)
        ]
        hint = f" {self.at.label}: {self.form.hint(self.at)}" if self.has_focus else ""
        problem = self.form.problem()
        return [
            head,
            *lines,
            (cell(f" {problem or self.form.derived()}", width, "bad" if problem else ""),),
            (cell(f" {self.refused}" if self.refused else hint, width, "bad" if self.refused else "dim"),),
        ]

    def widths(self, width: int) -> tuple[int, ...]:
        """Return the columns' widths; their sum is `width`."""
        each = width // len(self.columns)
        return (width - each * (len(self.columns) - 1), *[each] * (len(self.columns) - 1))

    def _line(self, column: int, line: int, width: int) -> Row:
        if line >= len(self.columns[column]):
            return (cell("", width),)
        item = self.columns[column][line]
        here = self.has_focus and (column, line) == (self.column, self.line)
        mark: Span = ("▸" if here else " ", "key")
        body = self.toggle_row(item, width - 2) if item.kind == "toggle" else self._value(item, width - 2, here)
        return (mark, *((text, f"!{name.removeprefix('!')}" if here else name) for text, name in body), (" ", ""))

    def toggle_row(self, item: Field, width: int) -> Row:
        """Return a toggle's row: its box and its label."""
        return (cell(f"{self.form.text(item)} ", 4), cell(item.label, width - 4, f"layout:{item.key}"))

    def _value(self, item: Field, width: int, here: bool) -> Row:
        if here and self.typing is not None:
            return (cell(item.label, self.label_width), cell(f"{self.typing}▏", width - self.label_width, "key"))
        return (cell(item.label, self.label_width, "dim"), cell(self.form.text(item), width - self.label_width))
