"""Yes/no dialog."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen

from kvdeck.app.tui.widgets.key_bar import DECK
from kvdeck.app.tui.widgets.lines import Lines, Row, cell


class Question(Lines):
    """The question, and the consequence of a yes."""

    DEFAULT_CSS = "Question { width: 60; height: 5; }"

    def __init__(self, what: str, note: str) -> None:
        super().__init__()
        self.what, self.note = what, note

    def rows(self, width: int, height: int) -> list[Row]:
        answers = (("y", "key"), (" yes   ", ""), ("n", "key"), (" no", ""))
        return [(cell(self.what, width, "!"),), (cell(self.note, width, "dim"),), answers]


class Ask(ModalScreen[bool]):
    """Dismissed with True for y, with False for n, q and Esc."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "yes", id="ask.yes", tooltip="Yes", group=DECK),
        Binding("n,escape,q", "answer(False)", "no", id="ask.no", tooltip="No", group=DECK),
    ]

    def __init__(self, what: str, note: str = "") -> None:
        super().__init__()
        self.what, self.note = what, note

    def compose(self) -> ComposeResult:
        yield Question(self.what, self.note)

    def action_answer(self, yes: bool) -> None:
        self.dismiss(yes)
