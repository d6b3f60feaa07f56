"""What every mode has: the status line above, the key bar below, and a kind word where there is no room."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.reactive import Reactive
from textual.screen import Screen
from textual.widget import Widget

from kvdeck.app.tui.widgets.key_bar import KeyBar
from kvdeck.app.tui.widgets.lines import Lines, Row, cell
from kvdeck.app.tui.widgets.status_bar import StatusBar

if TYPE_CHECKING:
    from kvdeck.app.tui.app import Deck
    from kvdeck.app.tui.state import Doctor, Snapshot

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
    PANES: ClassVar[dict[str, str]] = {}
    """Panes that may be hidden: their ids, and how they are called."""
    app: Deck
    focused: Reactive[Widget | None] = Reactive(None, repaint=False)
    """Panes show it themselves; Textual's own would paint the whole screen again at each change."""

    def compose(self) -> ComposeResult:
        yield StatusBar(id="status")
        yield Small(id="small")
        yield from self.body()
        yield KeyBar(id="keys")

    def body(self) -> ComposeResult:
        """The panes between the bars."""
        raise NotImplementedError

    @property
    def is_current(self) -> bool:
        """Whether it is in front. Under another screen or a panel it stands still: each change there would have the
        one in front painted whole, and what came meanwhile is taken when it is in front again."""
        return self.app.screen is self

    @property
    def ready(self) -> bool:
        """Whether its panes are there to be drawn in."""
        return self.is_mounted and bool(self.query("#keys"))

    def on_mount(self) -> None:
        for pane in self.hidden.intersection(self.PANES):
            self.query_one(f"#{pane}").add_class("-hidden")
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
        self.query_one(StatusBar).apply(snapshot, self.app.host, self.app.paused, self.app.readonly, self.app.link.text)

    def apply_doctor(self, doctor: Doctor) -> None:
        """Take doctor's newest word."""

    def would_lose(self) -> str:
        """What closing the deck now would lose, in one sentence; nothing, as a rule."""
        return ""

    def session_shown(self) -> str:
        """The session that the operator looks at: the followed run's, as a rule; nothing where there is none."""
        run = self.app.snapshot.run
        return "" if run is None else run.session

    def link_to(self, session: str) -> str:
        """A link to a session's folder or file, where the terminal takes links and there is one."""
        from kvdeck.app.tui import export, hyperlinks

        place = export.place_of(session) if self.app.links else None
        return "" if place is None else hyperlinks.uri(place)

    # --- panes that may be hidden ---

    @property
    def hidden(self) -> set[str]:
        """The ids of the panes that the operator has hidden, as they are remembered."""
        found = self.app.memory.get("hidden")
        return {str(pane) for pane in found} if isinstance(found, list) else set()

    def pane_commands(self) -> Iterator[tuple[str, str, Callable[[], None]]]:
        """(title, what it does, the deed) for each pane that may be hidden."""
        for pane, name in self.PANES.items():
            verb = "show" if pane in self.hidden else "hide"
            yield f"panes: {verb} {name}", "Remembered until it is changed again", partial(self.switch_pane, pane)

    def switch_pane(self, pane: str) -> None:
        """Hide a pane, or show it again."""
        now = self.hidden ^ {pane}
        self.app.memory["hidden"] = sorted(now)
        self.query_one(f"#{pane}").set_class(pane in now, "-hidden")
