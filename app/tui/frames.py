"""When the deck paints: only what the terminal can take, so that a slow link shows the present and not the past."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from kvdeck.app.tui import terminal

if TYPE_CHECKING:
    from textual.events import CursorPosition

    from kvdeck.app.tui.app import Deck
    from kvdeck.app.tui.state import EngineState

RETRY_S = 0.25


class Frames:
    """Paints a deck's newest state at the terminal's pace."""

    def __init__(self, deck: Deck) -> None:
        self._deck = deck
        self._newest: EngineState | None = None
        self._retrying = False

    def show(self, state: EngineState) -> None:
        """Paint this state as soon as the deck isn't paused and the terminal can take it, or a newer one instead."""
        self._newest = state
        self.paint()

    def paint(self) -> None:
        """Paint the newest state unless paused; if the terminal lags, try again later."""
        if self._deck.paused or self._newest is None:
            return
        if not self.may_paint():
            self._paint_later()
            return
        self._deck.engine, self._newest = self._newest, None
        self.has_painted()

    def may_paint(self) -> bool:
        """True if the terminal can take a frame now. Everything that updates periodically checks this first."""
        stderr = sys.__stderr__
        # A full pty would block the whole deck in `write`, keys included.
        ready = self._deck.is_headless or stderr is None or terminal.can_take_more(stderr.fileno())
        return ready and self._deck.link.may_paint(time.monotonic())

    def has_painted(self) -> None:
        """Record a painted frame, and query the cursor position so that the next frame waits until this one is
        drawn."""
        if question := self._deck.link.painted(time.monotonic()):
            self._deck.call_after_refresh(self._ask, question)

    def _ask(self, question: str) -> None:
        self._deck.write_sequence(question)
        self._deck.link.asked()

    def _paint_later(self) -> None:
        if not self._retrying:
            self._retrying = True
            self._deck.set_timer(RETRY_S, self._paint_again)

    def _paint_again(self) -> None:
        self._retrying = False
        self.paint()

    def answered(self, event: CursorPosition) -> None:
        """Take the terminal's answer to the query, and paint."""
        self._deck.link.answered((event.x, event.y), time.monotonic())
        self.paint()
