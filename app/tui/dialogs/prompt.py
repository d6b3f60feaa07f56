"""Dialog for one line of text, which may be refused in the dialog."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from textwrap import wrap
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input

from kvdeck.app.tui.widgets.key_bar import DECK
from kvdeck.app.tui.widgets.lines import Lines, Row, cell
from kvdeck.sessions.errors import UsageError

if TYPE_CHECKING:
    from textual.worker import WorkType

Check = Callable[[str], Awaitable[str]]
"""Returns the text to take for what was typed, or raises UsageError."""


class Title(Lines):
    """The prompt, and a note on valid input."""

    DEFAULT_CSS = "Title { height: 2; }"

    def __init__(self, what: str, note: str) -> None:
        super().__init__()
        self.what, self.note = what, note

    def rows(self, width: int, height: int) -> list[Row]:
        return [(cell(self.what, width, "!"),), (cell(self.note, width, "dim"),)]


class Refusal(Lines):
    """Why what was typed isn't taken, and the fix; no rows if nothing was refused."""

    DEFAULT_CSS = "Refusal { height: 0; }"
    error: UsageError | None = None

    def say(self, error: UsageError | None) -> None:
        """Show an error, or none."""
        self.error = error
        self.styles.height = len(self.rows(self.size.width or 62, 99))
        self.redraw()

    def rows(self, width: int, height: int) -> list[Row]:
        if self.error is None:
            return []
        said = [(line, "bad") for line in wrap(self.error.what, max(20, width))]
        fix = f"fix: {self.error.fix}" if self.error.fix else ""
        return [
            (cell(text, width, tone),) for text, tone in (*said, *((line, "") for line in wrap(fix, max(20, width))))
        ]


class AskText(ModalScreen["str | None"]):
    """Dismissed with the text for Enter, without the blanks around it, with None for Esc.

    Args:
        what: The prompt.
        value: Text to begin with.
        note: What may be typed.
        check: Returns the text to be dismissed with. What it refuses stays, with the reason below it.
    """

    DEFAULT_CSS = """
    AskText > Vertical { width: 66; height: auto; background: $deck-bar; border: round $deck-rule; padding: 0 1; }
    AskText Input, AskText Input:focus { border: none; height: 1; padding: 0; background: $deck-cursor; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "no", id="asktext.no", tooltip="Close without a change", group=DECK),
    ]

    def __init__(
        self, what: str, value: str = "", note: str = "Enter confirms · Esc cancels", check: Check | None = None
    ) -> None:
        super().__init__()
        self.what, self.value, self.note, self.check = what, value, note, check

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Title(self.what, self.note)
            yield Input(self.value, select_on_focus=False)
            yield Refusal()

    def on_input_submitted(self, message: Input.Submitted) -> None:
        text = message.value.strip()
        if self.check is None or not text:
            self.dismiss(text)
        else:
            job: WorkType[None] = partial(self._try, self.check, text)
            self.run_worker(job, exclusive=True)

    async def _try(self, check: Check, text: str) -> None:
        try:
            taken = await check(text)
        except UsageError as error:
            self.query_one(Refusal).say(error)
        else:
            self.dismiss(taken)

    def on_input_changed(self) -> None:
        self.query_one(Refusal).say(None)

    def action_leave(self) -> None:
        self.dismiss(None)
