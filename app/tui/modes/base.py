"""Base screen of every mode: status line, key bar, and a notice if the terminal is too small."""

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
from kvdeck.app.tui.workers import worker_of

if TYPE_CHECKING:
    from kvdeck.app.tui.app import Deck
    from kvdeck.app.tui.requests import Request
    from kvdeck.app.tui.state import Doctor, EngineState

MIN_WIDTH, MIN_HEIGHT = 80, 24
OPENING = "opening"
"""Group of the workers that open a screen."""
SHORT = 36
"""Below this many rows a screen shows one of its views at a time."""


class Small(Lines):
    """Notice with the terminal size that the deck needs."""

    def rows(self, width: int, height: int) -> list[Row]:
        said = (
            f"kvdeck needs {MIN_WIDTH}×{MIN_HEIGHT};",
            f"this is {self.app.size.width}×{self.app.size.height}.",
            "Enlarge the window",
            "or reduce the font.",
        )
        return [(cell(f" {line}", width),) for line in said]


class DeckScreen(Screen[None]):
    """Base of a mode's screen. Subclasses implement `body` and extend `apply`."""

    HORIZONTAL_BREAKPOINTS = [(0, "-too-narrow"), (80, "-narrow"), (110, "-wide")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-too-low"), (24, "-short"), (SHORT, "-tall")]  # noqa: RUF012
    AUTO_FOCUS = ""
    PANES: ClassVar[dict[str, str]] = {}
    """Panes that may be hidden: id to display name."""
    app: Deck
    focused: Reactive[Widget | None] = Reactive(None, repaint=False)
    """Panes draw their focus themselves; Textual's reactive would repaint the whole screen at each change."""

    def compose(self) -> ComposeResult:
        yield StatusBar(id="status")
        yield Small(id="small")
        yield from self.body()
        yield KeyBar(id="keys")

    def body(self) -> ComposeResult:
        """Yield the panes between the bars."""
        raise NotImplementedError

    @property
    def is_current(self) -> bool:
        """True if this screen is in front.

        A covered screen doesn't update: each change would repaint the screen in front as a whole. It catches up on
        resume. While the deck closes, no screen is in front, and timers still tick.
        """
        return self.app.screen_stack[-1:] == [self]

    @property
    def ready(self) -> bool:
        """True if its panes exist and can be drawn."""
        return self.is_mounted and bool(self.query("#keys"))

    def on_mount(self) -> None:
        for pane in self.hidden.intersection(self.PANES):
            self.query_one(f"#{pane}").add_class("-hidden")
        self.refresh_from_app()

    def on_screen_resume(self) -> None:
        self.refresh_from_app()

    def on_screen_suspend(self) -> None:
        self.workers.cancel_group(self, OPENING)

    def ask(self, work: Request, group: str = "default", exclusive: bool = False) -> None:
        """Run `work`, which awaits a request, in a worker of this screen; a KvdeckError is shown as a toast.

        Args:
            group: With OPENING, `work` opens a screen, and is cancelled when this one is no longer in front.
            exclusive: Cancel what still runs in the group.
        """
        self.run_worker(worker_of(self, work), group=group, exclusive=exclusive)

    def refresh_from_app(self) -> None:
        """Apply the state that arrived while another screen was in front."""
        if self.ready:
            self.apply(self.app.engine)
            self.apply_doctor(self.app.doctor)

    def apply(self, engine: EngineState) -> None:
        """Show the state."""
        self.query_one(StatusBar).apply(engine, self.app.host, self.app.paused, self.app.readonly, self.app.link.text)

    def apply_doctor(self, doctor: Doctor) -> None:
        """Show doctor's newest report; does nothing by default."""

    def would_lose(self) -> str:
        """Return what closing the deck now would lose, in one sentence; "" by default."""
        return ""

    def session_shown(self) -> str:
        """Return the session shown, by default the followed run's; "" if there is none."""
        run = self.app.engine.run
        return "" if run is None else run.session

    def link_to(self, session: str) -> str:
        """Return the URI of a session's folder or file; "" if the terminal takes no links or the session has no
        path."""
        from kvdeck.app.tui import export, hyperlinks

        place = export.place_of(session) if self.app.links else None
        return "" if place is None else hyperlinks.uri(place)

    # --- hideable panes ---

    @property
    def hidden(self) -> set[str]:
        """The ids of the panes that the operator has hidden, from the UI state."""
        found = self.app.memory.get("hidden")
        return {str(pane) for pane in found} if isinstance(found, list) else set()

    def pane_commands(self) -> Iterator[tuple[str, str, Callable[[], None]]]:
        """Yield (title, help, callback) for each pane that may be hidden."""
        for pane, name in self.PANES.items():
            verb = "show" if pane in self.hidden else "hide"
            yield f"panes: {verb} {name}", "Stored until you change it", partial(self.switch_pane, pane)

    def switch_pane(self, pane: str) -> None:
        """Hide a pane or show it again; the choice is saved in the UI state."""
        now = self.hidden ^ {pane}
        self.app.memory["hidden"] = sorted(now)
        self.query_one(f"#{pane}").set_class(pane in now, "-hidden")
