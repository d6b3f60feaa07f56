"""Filter line above a list: the filter, the sort order, and the number of rows."""

from __future__ import annotations

from dataclasses import dataclass

from textual.events import Key
from textual.message import Message

from kvdeck.app.tui.widgets.lines import Lines, Row, cell
from kvdeck.sessions.units import count_text

SORTS = ("newest", "name", "state", "longest")


@dataclass
class FilterTyped(Message):
    """A list's filter text; `ended` if the operator has left the filter line."""

    text: str
    ended: bool


class FilterBar(Lines, can_focus=True):
    """The filter and the sort order. While it has the focus, every printable key extends the filter."""

    text, sort, count, total = "", SORTS[0], 0, 0

    def rows(self, width: int, height: int) -> list[Row]:
        right = f"{count_text(self.count)} of {count_text(self.total)} · by {self.sort} "
        typed = f" / {self.text}{'▏' if self.has_focus else ''}" if self.has_focus or self.text else " / filter, s sort"
        return [(cell(typed, width - len(right), "key" if self.has_focus or self.text else "dim"), (right, "dim"))]

    def check_consume_key(self, key: str, character: str | None) -> bool:
        return character is not None and character.isprintable()

    def on_key(self, event: Key) -> None:
        if event.key in ("enter", "down", "escape"):
            text = "" if event.key == "escape" else self.text
        elif event.key == "backspace":
            text = self.text[:-1]
        elif event.is_printable and event.character:
            text = self.text + event.character
        else:
            return
        event.stop()
        event.prevent_default()
        self.text = text
        self.post_message(FilterTyped(text, ended=event.key in ("enter", "down", "escape")))
