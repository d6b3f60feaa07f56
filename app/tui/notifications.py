"""Notifications of ended runs, and the terminal's title."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvdeck.app.tui import terminal
from kvdeck.sessions.model.records import FINAL_STATES

if TYPE_CHECKING:
    from kvdeck.app.tui.app import Deck
    from kvdeck.app.tui.state import EngineState


def states(engine: EngineState) -> dict[str, str]:
    """Return the state of every run in the state, by session."""
    found: dict[str, str] = {info.session: info.state for info in engine.runs}
    if engine.run is not None and (engine.run.state in FINAL_STATES or engine.run.session not in found):
        found[engine.run.session] = engine.run.state
    return found


def ended(before: dict[str, str], after: dict[str, str]) -> list[tuple[str, str]]:
    """Return (session, state) of the runs that ended between two states.

    Runs already finished in `before`, or missing from it, are not reported.
    """
    return [
        (name, state)
        for name, state in after.items()
        if state in FINAL_STATES and before.get(name) is not None and before[name] not in FINAL_STATES
    ]


def title(now: dict[str, str]) -> str:
    """Return the terminal's title: the running run, else the newest that has ended, else `kvdeck`."""
    running = [name for name, state in now.items() if state == "running"]
    if running:
        return f"kvdeck: {running[0]} running"
    over = [f"kvdeck: {name} {state}" for name, state in now.items() if state in FINAL_STATES]
    return over[-1] if over else "kvdeck"


class Announcer:
    """Reports each run that ends: a toast, the bell if configured, and the terminal's title."""

    def __init__(self, deck: Deck) -> None:
        self._deck = deck
        self._states: dict[str, str] = {}
        self._title = ""

    def see(self, engine: EngineState) -> None:
        """Take the engine's newest state."""
        deck = self._deck
        before, self._states = self._states, states(engine)
        for name, state in ended(before, self._states):
            deck.notify(f"{name} is {state}", severity="information" if state == "done" else "warning", markup=False)
            if deck.config.bell:
                deck.bell()
        if (text := title(self._states)) != self._title:
            self._title = text
            deck.write_sequence(terminal.title(text))
