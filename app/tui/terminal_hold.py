"""What the deck changes at its terminal while it runs: signals that close it, the title, and the link's measurement."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import TYPE_CHECKING

from kvdeck.app.tui import hyperlinks, terminal

if TYPE_CHECKING:
    from kvdeck.app.tui.app import Deck


def take(deck: Deck) -> None:
    """Close the deck when its terminal goes, keep the terminal's title, and repaint when the deck comes back."""
    deck.link.asks = not (deck.is_headless or deck.is_web)
    deck.link.paces = not deck.is_headless
    if deck.is_headless:
        return
    for end in (signal.SIGHUP, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(end, _hang_up, deck)
    if not deck.is_web:
        deck.links = hyperlinks.wanted(deck.config)
        terminal.end_when_gone(sys.__stdin__.fileno() if sys.__stdin__ is not None else 0)
        deck.write_sequence(terminal.KEEP_TITLE)

    def come_back(_: object) -> None:
        deck.link.forget()
        deck.action_repaint()

    # Leaving the alternate screen clears it, and Textual paints only differences: repaint everything on return.
    deck.app_resume_signal.subscribe(deck, come_back)


def give_back(deck: Deck) -> None:
    """Restore the terminal's title."""
    if deck.link.asks:
        deck.write_sequence(terminal.GIVE_TITLE_BACK)


def _hang_up(deck: Deck) -> None:
    terminal.end_at_last()
    deck.exit()
