"""Command palette entries: every key that is valid now as `group: verb`, hideable panes, themes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from textual.app import SystemCommand

from kvdeck.app.tui import theme

if TYPE_CHECKING:
    from textual.screen import Screen

    from kvdeck.app.tui.app import Deck

_MOVES = ("move(", "page(", "scroll_", "app.focus_")
"""Movement actions, left out of the palette."""
_ITSELF = {"deck.palette", "deck.interrupt"}


def commands(deck: Deck, screen: Screen[object]) -> Iterator[SystemCommand]:
    """Yield the commands available on a screen now."""
    told = set(_ITSELF)
    for active in screen.active_bindings.values():
        binding = active.binding
        if binding.group is None or not binding.tooltip or binding.id in told or binding.action.startswith(_MOVES):
            continue
        told.add(str(binding.id))
        title = f"{binding.group.description.lower()}: {binding.description.lower()}"
        yield SystemCommand(title, binding.tooltip, partial(deck.run_action, binding.action, active.node))
    yield SystemCommand("deck: repaint", "Paint the whole screen again", deck.action_repaint)
    for mode_screen in deck.deck_screens[:1]:
        for title, note, work in mode_screen.pane_commands():
            yield SystemCommand(title, note, work)
    for name in theme.names():
        work = partial(deck.action_theme, name)
        yield SystemCommand(f"theme: {name.removeprefix('kvdeck-')}", "Switch to this theme", work)
