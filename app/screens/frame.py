"""What every mode has: the status line above, the key bar below, and a kind word where there is no room."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.screen import Screen

from kvdeck.app.widgets.keys import KeyBar
from kvdeck.app.widgets.lines import Lines, Row, cell
from kvdeck.app.widgets.status import StatusBar

if TYPE_CHECKING:
    from kvdeck.app.snapshot import Doctor, Snapshot
    from kvdeck.app.tui import Deck

MIN_WIDTH, MIN_HEIGHT = 80, 24
SHORT = 36
"""Below so many rows a screen shows one of its views at a time."""


class Small(Lines):
    """Says what the deck needs."""

    def rows(self, width: int, height: int) -> list[Row]:
        said = (
            f"kvdeck needs {MIN_WIDTH}×{MIN_HEIGHT};",
            f"this is {self.app.size.width}×{self.app.size.height}.",
            "A larger window, please,",
            "or a smaller font.",
        )
        return [(cell(f" {line}", width),) for line in said]


class DeckScreen(Screen[None]):
    """A mode's screen; subclasses give the body and take the snapshots."""

    HORIZONTAL_BREAKPOINTS = [(0, "-too-narrow"), (80, "-narrow"), (110, "-wide")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-too-low"), (24, "-short"), (SHORT, "-tall")]  # noqa: RUF012
    AUTO_FOCUS = ""
    app: Deck

    def compose(self) -> ComposeResult:
        yield StatusBar(id="status")
        yield Small(id="small")
        yield from self.body()
        yield KeyBar(id="keys")

    def body(self) -> ComposeResult:
        """The panes between the bars."""
        raise NotImplementedError

    @property
    def ready(self) -> bool:
        """Whether its panes are there to be drawn in."""
        return self.is_mounted and bool(self.query("#keys"))

    def on_mount(self) -> None:
        self.refresh_from_app()

    def on_screen_resume(self) -> None:
        self.refresh_from_app()

    def refresh_from_app(self) -> None:
        """Take whatever came while another screen was in front."""
        if self.ready:
            self.apply(self.app.snapshot)
            self.apply_doctor(self.app.doctor)

    def apply(self, snapshot: Snapshot) -> None:
        """Show a snapshot."""
        self.query_one(StatusBar).apply(snapshot, self.app.host, self.app.paused, self.app.readonly)

    def apply_doctor(self, doctor: Doctor) -> None:
        """Take doctor's newest word."""
