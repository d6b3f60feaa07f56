"""What screens may ask of the deck: runs, sessions and plans. An answer comes as a message to who asked, if it is
still there; whether it is still wanted in front is for the asker to say."""

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
    """Posts to who asked; to nobody once that is closed. Any thread may call it."""

    def post(message: Message) -> bool:
        return asker.is_running and asker.post_message(message)

    return post


class Asking:
    """The deck's side of its feed. Without a feed nothing is asked."""

    feed: Feed | None
    connect: bool
    _early: list[Callable[[Feed], None]]
    host: str
    readonly: bool
    notify: Callable[..., None]
    switch_mode: Callable[[str], Any]
    deck_screens: Any

    def _with_feed(self, work: Callable[[Feed], None]) -> None:
        """Ask the feed now, or as soon as there is one: a screen may ask while the deck still opens."""
        if self.feed is not None:
            work(self.feed)
        elif self.connect:
            self._early.append(work)

    def _ask_early(self) -> None:
        """Ask what was asked before there was a feed."""
        early, self._early = self._early, []
        for work in early:
            self._with_feed(work)

    def cancel(self, session: str) -> None:
        """Ask the engine to end a run; what it measured is kept."""
        if self.may_command():
            self._with_feed(lambda feed: feed.cancel(session))

    def cancel_submitted(self) -> None:
        """End the run that was asked for last, also while the engine has not yet queued it."""
        if self.may_command():
            self._with_feed(lambda feed: feed.cancel_submitted())

    def follow(self, session: str) -> None:
        """Look at another run of the queue."""
        self._with_feed(lambda feed: feed.follow(session))

    def look(self) -> None:
        """Let doctor look at this host again."""
        self._with_feed(lambda feed: feed.look())

    def list_sessions(self, asker: MessagePump) -> None:
        """Read the list of sessions; answered by `SessionsListed`."""
        self._keep(asker, lambda post, keeping: keeping.listed(post))

    def look_for_changes(self, asker: MessagePump, names: tuple[str, ...]) -> None:
        """Look whether others changed these sessions; answered by `SessionsStirred`."""
        self._keep(asker, lambda post, keeping: keeping.stirred(post, names))

    def read_session(self, asker: MessagePump, name: str) -> None:
        """Read one session; answered by `SessionRead`."""
        self._keep(asker, lambda post, keeping: keeping.read(post, name))

    def measure_paths(self, asker: MessagePump) -> None:
        """Look what the kept sessions say of each path; answered by `PathsMeasured`."""
        self._with_feed(lambda feed: feed.measure_paths(self.host, answers_to(asker)))

    def plans_folder(self) -> Path:
        """Where plans are saved."""
        from kvdeck.engine.client.client import home

        return home() / "plans"

    def preview_session(self, asker: MessagePump, name: str) -> None:
        """Read what the cursor stands on; answered by `SessionPreviewed`."""
        self._keep(asker, lambda post, keeping: keeping.preview(post, name))

    def compare_sessions(self, asker: MessagePump, names: tuple[str, ...]) -> None:
        """Read sessions to be compared, the baseline first; answered by `SessionsCompared`."""
        self._keep(asker, lambda post, keeping: keeping.compare(post, names))

    def read_spreads(self, asker: MessagePump, a: Session, b: Session) -> None:
        """Read how request times spread; answered by `SpreadsRead`."""
        self._keep(asker, lambda post, keeping: keeping.spreads(post, a, b), apart=True)

    def change_session(self, asker: MessagePump, what: str, name: str, value: str = "", before: str = "") -> None:
        """Rename, tag, note, export or delete; answered by `SessionChanged`."""
        if self.may_command():
            self._keep(asker, lambda post, keeping: keeping.change(post, what, name, value, before))

    def _keep(self, asker: MessagePump, work: Callable[[Any, Any], None], apart: bool = False) -> None:
        from kvdeck.app.tui import session_requests

        post = answers_to(asker)
        self._with_feed(lambda feed: feed.do(lambda: work(post, session_requests), apart))

    def find_sources(self, asker: MessagePump) -> None:
        """Look what can be watched on this host; answered by `SourcesFound`."""
        from kvdeck.app.tui.modes.monitor import source_search

        post = answers_to(asker)
        self._with_feed(lambda feed: feed.do(lambda: source_search.look(post), apart=True))

    def command(self, work: Callable[[Client], object]) -> None:
        """Give the engine a command of a screen's own; a refusal is told as any other."""
        if self.may_command():
            self._with_feed(lambda feed: feed.ask(work))

    async def replay(self, name: str) -> None:
        """Open a recording in the Monitor."""
        await self.switch_mode("monitor")
        self.deck_screens[0].post_message(ReplayAsked(name))

    def may_command(self) -> bool:
        if self.readonly:
            self.notify("this deck is read-only: it launches and cancels nothing", severity="warning")
        return not self.readonly
