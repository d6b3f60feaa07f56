"""Mode 3: KV bytes between the tiers, live, beside the sources that say so and what they say together."""

from __future__ import annotations

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical

from kvdeck.app.messages import MomentSeen
from kvdeck.app.screens.frame import DeckScreen
from kvdeck.app.snapshot import Snapshot
from kvdeck.app.watching import WatchFeed
from kvdeck.app.widgets.tiers import Checks, Numbers, Past, Sources, Tiers


class MonitorScreen(DeckScreen):
    """The engine samples while this screen is in front, and only then."""

    CSS_PATH = "monitor.tcss"

    def __init__(self) -> None:
        super().__init__()
        self._past = Past()
        self._newest: MomentSeen | None = None
        self._watching: WatchFeed | None = None

    def body(self) -> ComposeResult:
        with Horizontal(id="monitor"):
            with Vertical(id="moving"):
                yield Tiers(id="tiers")
                yield Checks(id="checks")
            with Vertical(id="told"):
                yield Sources(id="sources")
                yield Numbers(id="numbers")

    def on_screen_resume(self) -> None:
        super().on_screen_resume()
        if self.app.connect and self._watching is None:
            self._watching = WatchFeed(self.post_message)

    def on_screen_suspend(self) -> None:
        self._stop()

    def on_unmount(self) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._watching is not None:
            self._watching.stop()
            self._watching = None

    @on(MomentSeen)
    def note_moment(self, message: MomentSeen) -> None:
        self._newest = message
        self._past.note(message.moment)
        self._show()

    def apply(self, snapshot: Snapshot) -> None:
        super().apply(snapshot)
        self._show()

    def _show(self) -> None:
        """Draw the newest moment; while paused the picture stays and the past goes on."""
        newest = self._newest
        if newest is None or self.app.paused or not self.ready:
            return
        self.query_one(Tiers).apply(newest.moment, self._past, newest.error)
        self.query_one(Sources).apply(newest.moment)
        self.query_one(Numbers).apply(newest.moment)
        self.query_one(Checks).apply(newest.moment)
