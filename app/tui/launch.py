"""Opening the deck: checks of the terminal, settings, and the UI state before and after."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.host import umask
from kvdeck.sessions.host.user_home import ensure_home

if TYPE_CHECKING:
    from kvdeck.app.config import Config


def run_deck(readonly: bool = False, config: Config | None = None, replay: str = "") -> int:
    """Open the deck, block until it is closed, and return the exit status.

    Args:
        replay: Name of a recording to open in the Monitor.

    Raises:
        UsageError: stderr is not a terminal, or TERM is missing, `dumb` or `unknown`; neither is checked if
            TEXTUAL_DRIVER is set (the deck then runs in a browser).
    """
    in_browser = "TEXTUAL_DRIVER" in os.environ
    if not in_browser and (sys.__stderr__ is None or not sys.__stderr__.isatty()):
        raise UsageError("the deck draws on stderr, which is not a terminal", "don't redirect stderr")
    if not in_browser and os.environ.get("TERM", "").strip().lower() in ("", "dumb", "unknown"):
        said = os.environ.get("TERM")
        raise UsageError(
            f"the deck can't draw on a terminal of type {said!r}" if said else "TERM is not set: the deck can't draw",
            "set TERM to the terminal's type, such as xterm-256color; `kvdeck --help` lists commands that "
            "need no terminal",
        )
    from kvdeck.app.config import load
    from kvdeck.app.tui import terminal, ui_state
    from kvdeck.app.tui.app import Deck

    umask.make_private()
    ensure_home()
    known = ui_state.recall()
    config = load() if config is None else config
    deck = Deck(readonly=readonly, config=config if in_browser else terminal.fitted(config), memory=dict(known))
    deck.replayed = replay
    deck.run()
    if deck.memory != known and not readonly:
        ui_state.keep(deck.memory)
    return deck.return_code or 0


if __name__ == "__main__":
    sys.exit(run_deck(readonly="--readonly" in sys.argv[1:]))
