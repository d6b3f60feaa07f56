"""The deck's Textual application: modes, keys, and the path from an engine snapshot to the screen."""

from __future__ import annotations

import asyncio
import os
import platform
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.events import CursorPosition
from textual.reactive import var
from textual.screen import Screen

from kvdeck.app.config import Config
from kvdeck.app.tui import glyphs, hyperlinks, modes, notifications, palette, terminal, theme
from kvdeck.app.tui.bindings import EVERYWHERE, OPENING
from kvdeck.app.tui.messages import CommandRefused, DoctorReported, RunSubmitted, SnapshotTaken
from kvdeck.app.tui.pacing import Link, has_other_between
from kvdeck.app.tui.requests import Asking
from kvdeck.app.tui.state import Doctor, Snapshot
from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.host import umask
from kvdeck.sessions.host.escapes import visible
from kvdeck.sessions.host.user_home import ensure_home

if TYPE_CHECKING:
    from textual.driver import Driver
    from textual.filter import LineFilter
    from textual.notifications import SeverityLevel
    from textual.widget import Widget

    from kvdeck.app.tui.connection import Feed
    from kvdeck.app.tui.modes.base import DeckScreen

RETRY_S = 0.25
_NAMED_KEYS = ("enter", "up", "down", "left", "right", "tab", "space", "backspace")
_ASCII = glyphs.Ascii()
_OBEYED = glyphs.Obeyed()


class Deck(Asking, App[None], inherit_bindings=False):
    """The Textual app. It draws the messages that a Feed posts; with `connect=False` there is no Feed, and tests
    post them."""

    TITLE = "kvdeck"
    CSS_PATH = str(theme.STYLE_SHEET)
    MODES: ClassVar = {mode.id: mode.open for mode in modes.MODES}
    DEFAULT_MODE = "run"
    BINDINGS: ClassVar[list[BindingType]] = [*OPENING, *EVERYWHERE]

    snapshot: var[Snapshot] = var(Snapshot(), init=False)
    doctor: var[Doctor] = var(Doctor(), init=False)
    paused: var[bool] = var(False, init=False)

    def __init__(
        self,
        *,
        readonly: bool = False,
        connect: bool = True,
        config: Config | None = None,
        memory: dict[str, Any] | None = None,
    ) -> None:
        self.config = config or Config()
        self.memory: dict[str, Any] = {} if memory is None else memory
        """UI state, saved in `deck.json` when the deck closes; each screen stores its part under its own key."""
        if self.memory.get("view") in self.MODES:
            self.DEFAULT_MODE = self.memory["view"]  # type: ignore[misc]
        name = self.config.theme or theme.chosen()
        super().__init__(ansi_color=True if name == theme.ANSI else None)
        self.register_theme(theme.load(name))
        self.theme = name
        self.animation_level = "none"
        self.ascii = bool(self.config.ascii)
        self.set_class(self.ascii, "-ascii")
        self.set_keymap(dict(self.config.keymap))
        self.host = platform.node()
        self.readonly = readonly
        self.connect = connect
        self.feed: Feed | None = None
        self._early = []
        self.links = False
        """Whether OSC 8 hyperlinks are sent to the terminal."""
        self.link = Link(other_between=has_other_between(os.environ))
        self.replayed = ""
        """Name of a recording to open in the Monitor at start; empty for none."""
        self._newest: Snapshot | None = None
        self._states: dict[str, str] = {}
        self._title = ""
        self._unsent = 0
        self._unseen = ""
        """Session of the run queued last; `unsent` stays True until a snapshot contains it."""

    def get_driver_class(self) -> type[Driver]:
        return terminal.counting(super().get_driver_class(), lambda count: self.link.wrote(count, time.monotonic()))

    def get_line_filters(self) -> Sequence[LineFilter]:
        filters = [*super().get_line_filters(), _OBEYED]
        return [*filters, _ASCII] if self.ascii else filters

    def notify(
        self,
        message: str,
        *,
        title: str = "",
        severity: SeverityLevel = "information",
        timeout: float | None = None,
        markup: bool = False,
    ) -> None:
        """Show a toast. Foreign text is safe: control characters are made visible, and markup is off by default."""
        super().notify(
            visible(message, lines=True), title=visible(title), severity=severity, timeout=timeout, markup=markup
        )

    def on_mount(self) -> None:
        self.link.asks = not (self.is_headless or self.is_web)
        self.link.paces = not self.is_headless
        if not self.is_headless:
            for end in (signal.SIGHUP, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(end, self._hang_up)
            if not self.is_web:
                self.links = hyperlinks.wanted(self.config)
                terminal.end_when_gone(sys.__stdin__.fileno() if sys.__stdin__ is not None else 0)
                self._tell(terminal.KEEP_TITLE)
            # Leaving the alternate screen clears it, and Textual paints only differences: repaint everything on return.
            self.app_resume_signal.subscribe(self, self._come_back)
        for problem in self.config.problems:
            self.notify(problem, title="config", severity="warning", markup=False, timeout=15)
        if self.connect:
            self.call_after_refresh(self._start_feed)
        if self.replayed:
            self.call_after_refresh(self.replay, self.replayed)

    def _come_back(self, _: object) -> None:
        self.link.forget()
        self.refresh(layout=True)

    def _hang_up(self) -> None:
        terminal.end_at_last()
        self.exit()

    def _start_feed(self) -> None:
        from kvdeck.app.tui.connection import Feed

        self.feed = Feed(self.post_message, readonly=self.readonly, tick_s=1 / self.config.hz)
        self.feed.start()
        self._ask_early()

    def on_unmount(self) -> None:
        self.memory["view"] = self.current_mode
        if self.link.asks:
            self._tell(terminal.GIVE_TITLE_BACK)
        if self.feed is not None:
            self.feed.stop()

    def _tell(self, sequence: str) -> None:
        """Write an escape sequence to the terminal, in order with what is painted; nothing if headless or in a
        browser."""
        if self._driver is not None and not self.is_headless and not self.is_web:
            self._driver.write(sequence)

    # --- data ---

    def on_snapshot_taken(self, message: SnapshotTaken) -> None:
        self._newest = message.snapshot
        self._tell_endings(message.snapshot)
        self._paint_newest()

    def _tell_endings(self, snapshot: Snapshot) -> None:
        """Report each run that has ended: a toast, the bell if configured, and the terminal's title."""
        before, self._states = self._states, notifications.states(snapshot)
        for name, state in notifications.ended(before, self._states):
            self.notify(f"{name} is {state}", severity="information" if state == "done" else "warning", markup=False)
            if self.config.bell:
                self.bell()
        if (title := notifications.title(self._states)) != self._title:
            self._title = title
            self._tell(terminal.title(title))

    def _paint_newest(self) -> None:
        """Show the newest snapshot unless paused; if the terminal lags, try again after RETRY_S."""
        if self.paused or self._newest is None:
            return
        if not self.may_paint():
            if not self._retrying:
                self._retrying = True
                self.set_timer(RETRY_S, self._paint_again)
            return
        self.snapshot, self._newest = self._newest, None
        self.has_painted()

    def may_paint(self) -> bool:
        """True if the terminal can take a frame now. Everything that updates periodically checks this first."""
        return self._terminal_ready() and self.link.may_paint(time.monotonic())

    def has_painted(self) -> None:
        """Record a painted frame, and query the cursor position so that the next frame waits until this one is
        drawn."""
        if question := self.link.painted(time.monotonic()):
            self.call_after_refresh(self._ask, question)

    def _ask(self, question: str) -> None:
        self._tell(question)
        self.link.asked()

    _retrying = False

    def _paint_again(self) -> None:
        self._retrying = False
        self._paint_newest()

    def on_cursor_position(self, event: CursorPosition) -> None:
        self.link.answered((event.x, event.y), time.monotonic())
        self._paint_newest()

    def _terminal_ready(self) -> bool:
        return self.is_headless or sys.__stderr__ is None or terminal.can_take_more(sys.__stderr__.fileno())

    def watch_snapshot(self, snapshot: Snapshot) -> None:
        for screen in self.deck_screens:
            screen.apply(snapshot)

    def on_doctor_reported(self, message: DoctorReported) -> None:
        self.doctor = message.doctor

    def watch_doctor(self, doctor: Doctor) -> None:
        for screen in self.deck_screens:
            screen.apply_doctor(doctor)

    def watch_paused(self) -> None:
        self._paint_newest()
        self.watch_snapshot(self.snapshot)

    @property
    def unsent(self) -> bool:
        """True if a submitted run has no reply yet, or is not in a snapshot yet."""
        known = {run.session for run in self.snapshot.runs}
        return self._unsent > 0 or bool(self._unseen and self._unseen not in known)

    @property
    def deck_screens(self) -> list[DeckScreen]:
        """The current mode's screens that are ready, the mode's own first, without the dialogs over them."""
        from kvdeck.app.tui.modes.base import DeckScreen

        return [screen for screen in self.screen_stack if isinstance(screen, DeckScreen) and screen.ready]

    # --- commands ---

    def submit(self, spec: dict[str, Any]) -> None:
        """Submit a run, unless read-only. It counts as unsent from here on, so that the next key can cancel it.

        The result is posted as RunSubmitted or CommandRefused.
        """
        if self.may_command():
            self._unsent += 1
            self._with_feed(lambda feed: feed.submit(spec))

    def on_run_submitted(self, message: RunSubmitted) -> None:
        self._unsent = max(0, self._unsent - 1)
        self._unseen = message.session
        self.notify(f"{message.session} queued", markup=False)

    def on_command_refused(self, message: CommandRefused) -> None:
        self._unsent = 0
        said = f"{message.what} · fix: {message.fix}" if message.fix else message.what
        self.notify(said, severity="error", markup=False)

    # --- keys ---

    def get_key_display(self, binding: Binding) -> str:
        if self.ascii and binding.key_display is None and binding.key in _NAMED_KEYS:
            return binding.key.capitalize()
        return super().get_key_display(binding)

    def action_pause(self) -> None:
        self.paused = not self.paused

    def action_keys(self) -> None:
        from kvdeck.app.tui.dialogs.help import Help, key_rows

        self.push_screen(Help(key_rows(self.screen)))

    def action_jump(self) -> None:
        from kvdeck.app.tui.dialogs.jump import Jump, places

        def chosen(pane: Widget | None) -> None:
            if pane is not None:
                pane.focus()

        screen: Screen[Any] = self.screen
        if screen in self.deck_screens:
            self.push_screen(Jump(places(screen)), chosen)

    def action_leave(self) -> None:
        if lost := self._would_lose():
            from kvdeck.app.tui.dialogs.confirm import Ask

            self.push_screen(Ask("Close the deck?", lost), lambda yes: self._leave() if yes else None)
        else:
            self._leave()

    def _would_lose(self) -> str:
        """Return what closing the deck would lose, in one sentence, or "". Runs continue in the engine and aren't
        lost."""
        if self._unsent:
            return "A submitted run is not in the queue yet."
        return next((lost for screen in self.deck_screens if (lost := screen.would_lose())), "")

    def _leave(self) -> None:
        going = sum(run.state in ("running", "queued") for run in self.snapshot.runs)
        word, it = ("The run continues", "it") if going == 1 else (f"{going} runs continue", "them")
        self.exit(message=f"{word} in the engine; `kvdeck` shows {it} again." if going else None)

    def action_share(self, what: str) -> None:
        from kvdeck.app.tui import export

        export.share(self, what)

    def action_theme(self, name: str) -> None:
        self.register_theme(theme.load(name))
        self.theme = name

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        return palette.commands(self, screen)


def run_deck(readonly: bool = False, config: Config | None = None, replay: str = "") -> int:
    """Open the deck, block until it is closed, and return the exit status.

    Args:
        replay: Name of a recording to open in the Monitor.

    Raises:
        UsageError: stderr is not a terminal, or TERM is missing, `dumb` or `unknown`; neither is checked if
            TEXTUAL_DRIVER is set (the deck then runs in a browser).
    """
    in_browser = "TEXTUAL_DRIVER" in os.environ
    if not in_browser and (sys.__stderr__ is None or not sys.__stderr__.isatty()):
        raise UsageError("the deck draws on stderr, which is not a terminal", "don't redirect stderr")
    if not in_browser and os.environ.get("TERM", "").strip().lower() in ("", "dumb", "unknown"):
        said = os.environ.get("TERM")
        raise UsageError(
            f"the deck can't draw on a terminal of type {said!r}" if said else "TERM is not set: the deck can't draw",
            "set TERM to the terminal's type, such as xterm-256color; `kvdeck --help` lists commands that "
            "need no terminal",
        )
    from kvdeck.app.config import load
    from kvdeck.app.tui import ui_state

    umask.make_private()
    ensure_home()
    known = ui_state.recall()
    config = load() if config is None else config
    deck = Deck(readonly=readonly, config=config if in_browser else terminal.fitted(config), memory=dict(known))
    deck.replayed = replay
    deck.run()
    if deck.memory != known and not readonly:
        ui_state.keep(deck.memory)
    return deck.return_code or 0


if __name__ == "__main__":
    sys.exit(run_deck(readonly="--readonly" in sys.argv[1:]))
