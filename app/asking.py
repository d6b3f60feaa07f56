"""What screens may ask of the deck: runs, sessions and plans. Answers come as messages, to the screen in front."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvdeck.app.messages import ReplayAsked

if TYPE_CHECKING:
    from kvdeck.app.feed import Feed
    from kvdeck.app.messages import SourcesFound
    from kvdeck.engine.client import Client
    from kvdeck.sessions.records import Session


class Asking:
    """The deck's side of its feed. Without a feed nothing is asked."""

    feed: Feed | None
    host: str
    readonly: bool
    notify: Callable[..., None]
    switch_mode: Callable[[str], Any]
    deck_screens: Any

    def cancel(self, session: str) -> None:
        """Ask the engine to end a run; what it measured is kept."""
        if self.may_command() and self.feed is not None:
            self.feed.cancel(session)

    def follow(self, session: str) -> None:
        """Look at another run of the queue."""
        if self.feed is not None:
            self.feed.follow(session)

    def look(self) -> None:
        """Let doctor look at this host again."""
        if self.feed is not None:
            self.feed.look()

    def list_sessions(self) -> None:
        """Read the list of sessions; `SessionsListed` goes to the screen in front."""
        if self.feed is not None:
            self.feed.list_sessions()

    def look_for_changes(self, names: tuple[str, ...]) -> None:
        """Look whether others changed these sessions; `SessionsStirred` goes to the screen in front."""
        self._keep(lambda post, keeping: keeping.stirred(post, names))

    def read_session(self, name: str) -> None:
        """Read one session; `SessionRead` goes to the screen in front."""
        if self.feed is not None:
            self.feed.read_session(name)

    def measure_paths(self) -> None:
        """Look what the kept sessions say of each path; `PathsMeasured` goes to the screen in front."""
        if self.feed is not None:
            self.feed.measure_paths(self.host)

    def plans_folder(self) -> Path:
        """Where plans are saved."""
        from kvdeck.engine.client import home

        return home() / "plans"

    def preview_session(self, name: str) -> None:
        """Read what the cursor stands on; `SessionPreviewed` goes to the screen in front."""
        self._keep(lambda post, keeping: keeping.preview(post, name))

    def compare_sessions(self, names: tuple[str, ...]) -> None:
        """Read sessions to be compared, the baseline first; `SessionsCompared` goes to the screen in front."""
        self._keep(lambda post, keeping: keeping.compare(post, names))

    def read_spreads(self, a: Session, b: Session) -> None:
        """Read how request times spread; `SpreadsRead` goes to the screen in front."""
        self._keep(lambda post, keeping: keeping.spreads(post, a, b), apart=True)

    def change_session(self, what: str, name: str, value: str = "", before: str = "") -> None:
        """Rename, tag, note, export or delete; `SessionChanged` goes to the screen in front."""
        if self.may_command():
            self._keep(lambda post, keeping: keeping.change(post, what, name, value, before))

    def _keep(self, work: Callable[[Any, Any], None], apart: bool = False) -> None:
        from kvdeck.app import keeping

        if self.feed is not None:
            self.feed.do(lambda post: work(post, keeping), apart)

    def find_sources(self, post: Callable[[SourcesFound], object]) -> None:
        """Look what can be watched on this host; `post` gets what is found."""
        from kvdeck.app.monitoring import finding

        if self.feed is not None:
            self.feed.do(lambda _: finding.look(post), apart=True)

    def command(self, work: Callable[[Client], object]) -> None:
        """Give the engine a command of a screen's own; a refusal is told as any other."""
        if self.may_command() and self.feed is not None:
            self.feed.ask(work)

    async def replay(self, name: str) -> None:
        """Open a recording in the Monitor."""
        await self.switch_mode("monitor")
        self.deck_screens[0].post_message(ReplayAsked(name))

    def may_command(self) -> bool:
        if self.readonly:
            self.notify("this deck is read-only: it launches and cancels nothing", severity="warning")
        return not self.readonly
