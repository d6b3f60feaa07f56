"""Global key bindings: those that open a mode, and those valid in every mode."""

from __future__ import annotations

from textual.binding import Binding

from kvdeck.app.tui.modes import MODES, Mode
from kvdeck.app.tui.widgets.key_bar import DECK, MODE_KEYS, SHARE


def opening(mode: Mode) -> Binding:
    """Return the key that opens a mode."""
    return Binding(
        mode.key,
        f"switch_mode({mode.id!r})",
        mode.title,
        show=False,
        id=f"mode.{mode.id}",
        tooltip=mode.tooltip,
        group=MODE_KEYS,
    )


OPENING = tuple(map(opening, MODES))
EVERYWHERE = (
    Binding("p", "pause", "pause", id="deck.pause", tooltip="Freeze the display (collection continues)", group=DECK),
    Binding(
        "question_mark", "keys", "help", key_display="?", id="deck.help", tooltip="Show the keys valid here", group=DECK
    ),
    Binding(
        "colon,ctrl+p",
        "command_palette",
        "Commands",
        show=False,
        key_display=":",
        id="deck.palette",
        tooltip="Find a command by name",
        group=DECK,
    ),
    Binding("q", "leave", "quit", id="deck.quit", tooltip="Close the deck; runs continue in the engine", group=DECK),
    Binding(
        "ctrl+c",
        "leave",
        "Quit",
        show=False,
        id="deck.interrupt",
        tooltip="Close the deck",
        group=DECK,
        priority=True,
    ),
    Binding(
        "apostrophe",
        "jump",
        "jump",
        show=False,
        key_display="'",
        id="deck.jump",
        tooltip="Jump to a pane",
        group=DECK,
    ),
    Binding(
        "tab", "app.focus_next", "Next pane", show=False, id="deck.next", tooltip="Go to the next pane", group=DECK
    ),
    Binding(
        "shift+tab",
        "app.focus_previous",
        "Previous pane",
        show=False,
        id="deck.previous",
        tooltip="Go to the previous pane",
        group=DECK,
    ),
    Binding(
        "Z",
        "suspend_process",
        "Suspend",
        show=False,
        id="deck.suspend",
        tooltip="Suspend to the shell; `fg` resumes",
        group=DECK,
    ),
    Binding(
        "y",
        "share('markdown')",
        "Copy table",
        show=False,
        id="share.markdown",
        tooltip="Copy the table as Markdown and save it to a file",
        group=SHARE,
    ),
    Binding(
        "Y",
        "share('csv')",
        "Copy as CSV",
        show=False,
        id="share.csv",
        tooltip="Copy the table as CSV and save it to a file",
        group=SHARE,
    ),
    Binding(
        "E",
        "share('chart')",
        "Export chart",
        show=False,
        id="share.chart",
        tooltip="Save the chart's points as a CSV file",
        group=SHARE,
    ),
    Binding(
        "L",
        "share('folder')",
        "Copy path",
        show=False,
        id="share.folder",
        tooltip="Copy the path of the session's folder",
        group=SHARE,
    ),
    Binding(
        "S",
        "share('picture')",
        "Save screenshot",
        show=False,
        id="share.picture",
        tooltip="Save the screen as an SVG file",
        group=SHARE,
    ),
)
