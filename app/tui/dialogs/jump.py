"""Jump dialog: a letter on each focusable pane; pressing it focuses that pane."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.events import Click, Key
from textual.geometry import Offset
from textual.screen import ModalScreen, Screen
from textual.widget import Widget

from kvdeck.app.tui.widgets.key_bar import DECK
from kvdeck.app.tui.widgets.lines import Lines, Row

if TYPE_CHECKING:
    from kvdeck.app.tui.app import Deck

LETTERS = "asdfghjklqwertyuiop"


def places(screen: Screen[Any]) -> dict[str, Widget]:
    """Return the visible focusable panes of a screen by letter, in reading order."""
    panes = [pane for pane in screen.focus_chain if pane.region.area]
    return dict(zip(LETTERS, sorted(panes, key=lambda pane: (pane.region.y, pane.region.x)), strict=False))


class Letter(Lines):
    """One letter at its pane's top left corner."""

    def __init__(self, letter: str, at: Offset) -> None:
        super().__init__()
        self.letter = letter
        self.absolute_offset = at

    def rows(self, width: int, height: int) -> list[Row]:
        return [((f" {self.letter} ", "letter"),)]


class Jump(ModalScreen["Widget | None"]):
    """Dismissed with the pane whose letter was pressed; with None for any other key or a click."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "stay", id="jump.stay", tooltip="Close without jumping", group=DECK),
    ]

    def __init__(self, found: dict[str, Widget]) -> None:
        super().__init__()
        self.found = found

    def compose(self) -> ComposeResult:
        for letter, pane in self.found.items():
            yield Letter(letter, pane.region.offset)

    def on_key(self, event: Key) -> None:
        event.stop()
        event.prevent_default()
        self.dismiss(self.found.get(event.character or ""))

    def on_click(self, _: Click) -> None:
        self.dismiss(None)


def open_jump(deck: Deck) -> None:
    """Open the dialog over the mode in front, and focus the pane that is chosen."""

    def chosen(pane: Widget | None) -> None:
        if pane is not None:
            pane.focus()

    screen: Screen[Any] = deck.screen
    if screen in deck.deck_screens:
        deck.push_screen(Jump(places(screen)), chosen)
