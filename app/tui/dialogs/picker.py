"""Dialog to choose from a list by typing: models, or saved plans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.events import Key
from textual.screen import ModalScreen

from kvdeck.app.tui.widgets.key_bar import DECK
from kvdeck.app.tui.widgets.lines import CURSOR, Lines, Row, cell, window
from kvdeck.sessions.units import count_text


@dataclass(frozen=True, slots=True)
class Choice:
    """One entry of the list: the key it returns, and its description."""

    key: str
    said: str


def matching(choices: Sequence[Choice], text: str) -> list[Choice]:
    """Return the choices that contain every word of `text`, ignoring case."""
    words = text.lower().split()
    return [choice for choice in choices if all(word in f"{choice.key} {choice.said}".lower() for word in words)]


class SearchList(Lines, can_focus=True):
    """The filtered list: printable keys extend the filter, arrows move the cursor, Enter chooses."""

    DEFAULT_CSS = "SearchList { width: 90%; max-width: 110; height: 80%; }"

    def __init__(self, title: str, choices: Sequence[Choice], empty: str) -> None:
        super().__init__()
        self.title, self.choices, self.empty = title, choices, empty
        self.text, self.place, self.top = "", 0, 0

    @property
    def found(self) -> list[Choice]:
        return matching(self.choices, self.text)

    def check_consume_key(self, key: str, character: str | None) -> bool:
        return character is not None and character.isprintable()

    def on_key(self, event: Key) -> None:
        by = {"up": -1, "down": 1, "pageup": -10, "pagedown": 10}.get(event.key)
        if by is not None:
            self.place = max(0, min(len(self.found) - 1, self.place + by))
        elif event.key == "backspace":
            self.text, self.place = self.text[:-1], 0
        elif event.is_printable and event.character:
            self.text, self.place = self.text + event.character, 0
        elif event.key != "enter":
            return
        event.stop()
        event.prevent_default()
        if event.key == "enter":
            found = self.found
            typed = self.text if "/" in self.text or self.text.endswith((".json", ".yaml", ".yml")) else None
            self.screen.dismiss(found[self.place].key if found else typed)
            return
        self.redraw()

    def rows(self, width: int, height: int) -> list[Row]:
        found = self.found
        head = (
            cell(f"{self.title} {self.text}▏", width - 9, "key"),
            cell(f"{count_text(len(found))} shown", 9, "dim", right=True),
        )
        if not found:
            return [head, (cell(self.empty, width, "dim"),)]
        room = max(1, height - 1)
        self.top = window(self.top, self.place, len(found), room)
        widest = max(len(choice.key) for choice in self.choices)
        rows: list[Row] = [head]
        for i, choice in enumerate(found[self.top : self.top + room], self.top):
            spans = (("▸ " if i == self.place else "  ", "key"), cell(choice.key, min(widest, width // 2)),
                     cell(f"  {choice.said}", max(0, width - 2 - min(widest, width // 2)), "dim"))  # fmt: skip
            rows.append((CURSOR, *spans) if i == self.place else spans)
        return rows


class Picker(ModalScreen["str | None"]):
    """Dismissed with the key of the chosen entry, or with the typed path if no entry matches; None for Esc."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "close", id="picker.close", tooltip="Close this list", group=DECK),
    ]

    def __init__(self, title: str, choices: Sequence[Choice], empty: str = "") -> None:
        super().__init__()
        self.list = SearchList(title, choices, empty)

    def compose(self) -> ComposeResult:
        yield self.list

    def on_mount(self) -> None:
        self.list.focus()
