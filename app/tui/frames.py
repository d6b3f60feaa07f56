"""When the deck paints: only what the terminal can take, so that a slow link shows the present and not the past."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from kvdeck.app.tui import terminal

if TYPE_CHECKING:
    from textual.events import CursorPosition

    from kvdeck.app.tui.app import Deck
    from kvdeck.app.tui.pacing import TerminalLink

RETRY_S = 0.25


class Frames:
    """Paints a deck's frames at the terminal's pace.

    Args:
        paint: Shows the newest state; called again until `may_paint` is true.
    """

    def __init__(self, deck: Deck, link: TerminalLink, paint: Callable[[], None]) -> None:
        self._deck, self._link, self._paint = deck, link, paint
        self._retrying = False

    def may_paint(self) -> bool:
        """True if the terminal can take a frame now. Everything that updates periodically checks this first."""
        stderr = sys.__stderr__
        ready = self._deck.is_headless or stderr is None or terminal.can_take_more(stderr.fileno())
        return ready and self._link.may_paint(time.monotonic())

    def has_painted(self) -> None:
        """Record a painted frame, and query the cursor position so that the next frame waits until this one is
        drawn."""
        if question := self._link.painted(time.monotonic()):
            self._deck.call_after_refresh(self._ask, question)

    def _ask(self, question: str) -> None:
        self._deck.write_sequence(question)
        self._link.asked()

    def paint_later(self) -> None:
        """Paint after `RETRY_S`."""
        if not self._retrying:
            self._retrying = True
            self._deck.set_timer(RETRY_S, self._paint_again)

    def _paint_again(self) -> None:
        self._retrying = False
        self._paint()

    def answered(self, event: CursorPosition) -> None:
        """Take the terminal's answer to the query, and paint."""
        self._link.answered((event.x, event.y), time.monotonic())
        self._paint()
