"""Requests of the screens to the deck: runs, sessions and plans.

A reply is posted as a message to the requesting widget if that still exists; the widget decides whether it still uses
it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvdeck.app.tui.messages import ReplayAsked

if TYPE_CHECKING:
    from textual.message import Message
    from textual.message_pump import MessagePump

    from kvdeck.app.tui.connection import Feed
    from kvdeck.engine.client.client import Client
    from kvdeck.sessions.model.records import Session


def answers_to(asker: MessagePump) -> Callable[[Message], object]:
    """Return a thread-safe function that posts to `asker`, and drops messages once that is closed."""

    def post(message: Message) -> bool:
        return asker.is_running and asker.post_message(message)

    return post


class Asking:
    """Mixin of the app: requests to its Feed. With `connect=False` there is no Feed, and requests are dropped."""

    feed: Feed | None
    connect: bool
    _early: list[Callable[[Feed], None]]
    host: str
    readonly: bool
    notify: Callable[..., None]
    switch_mode: Callable[[str], Any]
    deck_screens: Any

    def _with_feed(self, work: Callable[[Feed], None]) -> None:
        """Call `work` with the feed now, or once there is one: a screen may make requests while the deck still
        opens."""
        if self.feed is not None:
            work(self.feed)
        elif self.connect:
            self._early.append(work)

    def _ask_early(self) -> None:
        """Make the requests that came before there was a feed."""
        early, self._early = self._early, []
        for work in early:
            self._with_feed(work)

    def cancel(self, session: str) -> None:
        """Cancel a run; its results so far are saved."""
        if self.may_command():
            self._with_feed(lambda feed: feed.cancel(session))

    def cancel_submitted(self) -> None:
        """Cancel the run submitted last, even if the engine has not queued it yet."""
        if self.may_command():
            self._with_feed(lambda feed: feed.cancel_submitted())

    def follow(self, session: str) -> None:
        """Follow another run of the queue."""
        self._with_feed(lambda feed: feed.follow(session))

    def look(self) -> None:
        """Run doctor on this host again."""
        self._with_feed(lambda feed: feed.look())

    def list_sessions(self, asker: MessagePump) -> None:
        """Read the list of sessions; answered by `SessionsListed`."""
        self._keep(asker, lambda post, keeping: keeping.listed(post))

    def look_for_changes(self, asker: MessagePump, names: tuple[str, ...]) -> None:
        """Check whether other processes changed these sessions; answered by `SessionsStirred`."""
        self._keep(asker, lambda post, keeping: keeping.stirred(post, names))

    def read_session(self, asker: MessagePump, name: str) -> None:
        """Read one session; answered by `SessionRead`."""
        self._keep(asker, lambda post, keeping: keeping.read(post, name))

    def measure_paths(self, asker: MessagePump) -> None:
        """Read the bandwidth of each path from the stored sessions; answered by `PathsMeasured`."""
        self._with_feed(lambda feed: feed.measure_paths(self.host, answers_to(asker)))

    def plans_folder(self) -> Path:
        """Return the folder of the saved plans."""
        from kvdeck.engine.client.client import home

        return home() / "plans"

    def preview_session(self, asker: MessagePump, name: str) -> None:
        """Read the session under the cursor; answered by `SessionPreviewed`."""
        self._keep(asker, lambda post, keeping: keeping.preview(post, name))

    def compare_sessions(self, asker: MessagePump, names: tuple[str, ...]) -> None:
        """Read the sessions to compare, the baseline first; answered by `SessionsCompared`."""
        self._keep(asker, lambda post, keeping: keeping.compare(post, names))

    def read_spreads(self, asker: MessagePump, a: Session, b: Session) -> None:
        """Read the request-time histograms of two sessions; answered by `SpreadsRead`."""
        self._keep(asker, lambda post, keeping: keeping.spreads(post, a, b), apart=True)

    def change_session(self, asker: MessagePump, what: str, name: str, value: str = "", before: str = "") -> None:
        """Rename, tag, note, export or delete a session, unless read-only; answered by `SessionChanged`."""
        if self.may_command():
            self._keep(asker, lambda post, keeping: keeping.change(post, what, name, value, before))

    def _keep(self, asker: MessagePump, work: Callable[[Any, Any], None], apart: bool = False) -> None:
        from kvdeck.app.tui import session_requests

        post = answers_to(asker)
        self._with_feed(lambda feed: feed.do(lambda: work(post, session_requests), apart))

    def find_sources(self, asker: MessagePump) -> None:
        """Search this host for telemetry sources; answered by `SourcesFound`."""
        from kvdeck.app.tui.modes.monitor import source_search

        post = answers_to(asker)
        self._with_feed(lambda feed: feed.do(lambda: source_search.look(post), apart=True))

    def command(self, work: Callable[[Client], object]) -> None:
        """Send the engine a screen's own command, unless read-only; a refusal is shown as a toast."""
        if self.may_command():
            self._with_feed(lambda feed: feed.ask(work))

    async def replay(self, name: str) -> None:
        """Open a recording in the Monitor."""
        await self.switch_mode("monitor")
        self.deck_screens[0].post_message(ReplayAsked(name))

    def may_command(self) -> bool:
        """Return False, and show a warning, if the deck is read-only."""
        if self.readonly:
            self.notify("this deck is read-only: it can't start or cancel runs", severity="warning")
        return not self.readonly
