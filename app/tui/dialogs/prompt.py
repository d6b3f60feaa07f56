"""Dialog for one line of text."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input

from kvdeck.app.tui.widgets.key_bar import DECK
from kvdeck.app.tui.widgets.lines import Lines, Row, cell


class Title(Lines):
    """The prompt, and a note on valid input."""

    DEFAULT_CSS = "Title { height: 2; }"

    def __init__(self, what: str, note: str) -> None:
        super().__init__()
        self.what, self.note = what, note

    def rows(self, width: int, height: int) -> list[Row]:
        return [(cell(self.what, width, "!"),), (cell(self.note, width, "dim"),)]


class AskText(ModalScreen["str | None"]):
    """Dismissed with the stripped text for Enter, with None for Esc."""

    DEFAULT_CSS = """
    AskText > Vertical { width: 66; height: 5; background: $deck-bar; border: round $deck-rule; padding: 0 1; }
    AskText Input, AskText Input:focus { border: none; height: 1; padding: 0; background: $deck-cursor; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "no", id="asktext.no", tooltip="Close without a change", group=DECK),
    ]

    def __init__(self, what: str, value: str = "", note: str = "Enter confirms · Esc cancels") -> None:
        super().__init__()
        self.what, self.value, self.note = what, value, note

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Title(self.what, self.note)
            yield Input(self.value, select_on_focus=False)

    def on_input_submitted(self, message: Input.Submitted) -> None:
        self.dismiss(message.value.strip())

    def action_leave(self) -> None:
        self.dismiss(None)
