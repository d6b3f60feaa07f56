"""Keys of the deck that are the same in every mode, beside those that open one."""

from __future__ import annotations

from textual.binding import Binding

from kvdeck.app.widgets.keys import DECK, SHARE

EVERYWHERE = (
    Binding(
        "w", "jump", "jump", show=False, id="deck.jump", tooltip="Letters on the panes; one goes there", group=DECK
    ),
    Binding("tab", "app.focus_next", "Next pane", show=False, id="deck.next", tooltip="To the next pane", group=DECK),
    Binding(
        "shift+tab",
        "app.focus_previous",
        "Previous pane",
        show=False,
        id="deck.previous",
        tooltip="To the pane before",
        group=DECK,
    ),
    Binding(
        "Z",
        "suspend_process",
        "Suspend",
        show=False,
        id="deck.suspend",
        tooltip="Back to the shell; `fg` comes back here",
        group=DECK,
    ),
    Binding(
        "y",
        "copy_table(False)",
        "Copy table",
        show=False,
        id="share.markdown",
        tooltip="Copy the table as Markdown, and into a file",
        group=SHARE,
    ),
    Binding(
        "Y",
        "copy_table(True)",
        "Copy as CSV",
        show=False,
        id="share.csv",
        tooltip="Copy the table as CSV, and into a file",
        group=SHARE,
    ),
    Binding(
        "E",
        "export_charts",
        "Export chart",
        show=False,
        id="share.chart",
        tooltip="The chart's points as a CSV file",
        group=SHARE,
    ),
    Binding(
        "S",
        "save_picture",
        "Save picture",
        show=False,
        id="share.picture",
        tooltip="What the screen shows, as an SVG file",
        group=SHARE,
    ),
)
