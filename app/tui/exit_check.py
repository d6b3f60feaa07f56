"""Closing the deck: what would be lost, and what continues."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvdeck.app.tui.app import Deck


def leave(deck: Deck) -> None:
    """Close the deck; ask first if something would be lost."""
    if lost := _would_lose(deck):
        from kvdeck.app.tui.dialogs.confirm import Ask

        deck.push_screen(Ask("Close the deck?", lost), lambda yes: _close(deck) if yes else None)
    else:
        _close(deck)


def _would_lose(deck: Deck) -> str:
    """Return what closing the deck would lose, in one sentence, or "". Runs continue in the engine and aren't lost."""
    if deck.submissions.pending:
        return "A submitted run is not in the queue yet."
    return next((lost for screen in deck.deck_screens if (lost := screen.would_lose())), "")


def _close(deck: Deck) -> None:
    going = sum(run.state in ("running", "queued") for run in deck.engine.runs)
    word, it = ("The run continues", "it") if going == 1 else (f"{going} runs continue", "them")
    deck.exit(message=f"{word} in the engine; `kvdeck` shows {it} again." if going else None)
