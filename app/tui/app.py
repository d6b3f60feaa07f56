"""The deck's Textual application: modes, keys, and the path from the engine's state to the screen."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from textual._compositor import ChopsUpdate, LayoutUpdate
from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.events import CursorPosition
from textual.reactive import var
from textual.screen import ModalScreen

from kvdeck.app.config import Config
from kvdeck.app.tui import glyphs, modes, notifications, palette, terminal, terminal_hold, theme
from kvdeck.app.tui.bindings import EVERYWHERE, OPENING
from kvdeck.app.tui.frames import Frames
from kvdeck.app.tui.messages import EngineChanged, ReplayAsked
from kvdeck.app.tui.pacing import TerminalLink, has_other_between
from kvdeck.app.tui.requests import Request, Requests
from kvdeck.app.tui.state import Doctor, EngineState
from kvdeck.app.tui.submissions import Submissions
from kvdeck.app.tui.terminal_picture import PictureUpdate, TerminalPicture
from kvdeck.app.tui.workers import worker_of
from kvdeck.sessions.errors import KvdeckError
from kvdeck.sessions.host.escapes import visible

if TYPE_CHECKING:
    from rich.console import RenderableType
    from textual.driver import Driver
    from textual.events import Key
    from textual.filter import LineFilter
    from textual.message import Message
    from textual.notifications import SeverityLevel
    from textual.screen import Screen

    from kvdeck.app.tui.modes.base import DeckScreen

_NAMED_KEYS = ("enter", "up", "down", "left", "right", "tab", "space", "backspace")
_MODE_KEYS = frozenset(mode.key for mode in modes.MODES)
_ASCII = glyphs.Ascii()
_OBEYED = glyphs.Obeyed()


class Deck(App[None], inherit_bindings=False):
    """The Textual app. It draws the states that `requests` posts; its screens ask `requests` for all else."""

    TITLE = "kvdeck"
    CSS_PATH = str(theme.STYLE_SHEET)
    MODES: ClassVar = {mode.id: mode.open for mode in modes.MODES}
    DEFAULT_MODE = "run"
    BINDINGS: ClassVar[list[BindingType]] = [*OPENING, *EVERYWHERE]

    engine: var[EngineState] = var(EngineState(), init=False)
    doctor: var[Doctor] = var(Doctor(), init=False)
    paused: var[bool] = var(False, init=False)

    def __init__(
        self,
        *,
        readonly: bool = False,
        requests: Requests | None = None,
        config: Config | None = None,
        memory: dict[str, Any] | None = None,
    ) -> None:
        self.config = config or Config()
        self.memory: dict[str, Any] = {} if memory is None else memory
        """UI state, saved in `deck.json` when the deck closes; each screen stores its part under its own key."""
        # A deck.json of another version may name a mode that this one hasn't.
        if self.memory.get("view") in self.MODES:
            self.DEFAULT_MODE = self.memory["view"]  # type: ignore[misc]
        name = self.config.theme or theme.chosen()
        super().__init__(ansi_color=True if name == theme.ANSI else None)
        self.register_theme(theme.load(name))
        self.theme = name
        # Each step of an animation would be sent: over a slow link it hides what changed.
        self.animation_level = "none"
        self.ascii = bool(self.config.ascii)
        self.set_class(self.ascii, "-ascii")
        self.set_keymap(dict(self.config.keymap))
        self.host = platform.node()
        self.readonly = readonly
        self.requests = requests or Requests(readonly, 1 / self.config.hz)
        self.submissions = Submissions(self.requests)
        self.links = False
        """Whether OSC 8 hyperlinks are sent to the terminal."""
        self.link = TerminalLink(other_between=has_other_between(os.environ))
        self.announcer = notifications.Announcer(self)
        self.frames = Frames(self)
        self.picture = TerminalPicture()
        self.replayed = ""
        """Name of a recording to open in the Monitor at start; empty for none."""

    def get_driver_class(self) -> type[Driver]:
        return terminal.counting(super().get_driver_class(), lambda count: self.link.wrote(count, time.monotonic()))

    def get_line_filters(self) -> Sequence[LineFilter]:
        filters = [*super().get_line_filters(), _OBEYED]
        return [*filters, _ASCII] if self.ascii else filters

    def _display(self, screen: Screen[object], renderable: RenderableType | None) -> None:
        if isinstance(renderable, (ChopsUpdate, LayoutUpdate)):
            renderable = PictureUpdate(self.picture, renderable)  # type: ignore[assignment]
        super()._display(screen, renderable)

    def action_repaint(self) -> None:
        """Paint the whole screen: another program may have written over it."""
        self.picture.forget()
        self.screen.refresh(layout=True)

    def on_resize(self) -> None:
        self.picture.forget()

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
        terminal_hold.take(self)
        for problem in self.config.problems:
            self.notify(problem, title="config", severity="warning", markup=False, timeout=15)
        if self.requests.live:
            self.call_after_refresh(self._start)
        if self.replayed:
            self.call_after_refresh(self.replay, self.replayed)

    def _start(self) -> None:
        self.run_worker(self.requests.run(self.post_message), name="engine")
        self.run_doctor()

    def on_unmount(self) -> None:
        self.memory["view"] = self.current_mode
        terminal_hold.give_back(self)

    def write_sequence(self, sequence: str) -> None:
        """Write an escape sequence to the terminal, in order with what is painted; nothing if headless or in a
        browser."""
        if self._driver is not None and not self.is_headless and not self.is_web:
            self._driver.write(sequence)

    # --- data ---

    def on_engine_changed(self, message: EngineChanged) -> None:
        self.submissions.see(message.state)
        self.announcer.see(message.state)
        self.frames.show(message.state)

    def on_cursor_position(self, event: CursorPosition) -> None:
        self.frames.answered(event)

    def watch_engine(self, engine: EngineState) -> None:
        for screen in self.deck_screens:
            screen.apply(engine)

    def watch_doctor(self, doctor: Doctor) -> None:
        for screen in self.deck_screens:
            screen.apply_doctor(doctor)

    def watch_paused(self) -> None:
        self.frames.paint()
        self.watch_engine(self.engine)

    @property
    def deck_screens(self) -> list[DeckScreen]:
        """The current mode's screens that are ready, the mode's own first, without the dialogs over them."""
        from kvdeck.app.tui.modes.base import DeckScreen

        return [screen for screen in self.screen_stack if isinstance(screen, DeckScreen) and screen.ready]

    # --- what outlives the screen that asked ---

    def ask(self, work: Request) -> None:
        """Run `work` in a worker of the app; a KvdeckError is shown as a toast."""
        self.run_worker(worker_of(self, work))

    def may_command(self) -> bool:
        """Return False, and show a warning, if the deck is read-only."""
        if self.readonly:
            self.notify("this deck is read-only: it launches and cancels nothing", severity="warning")
        return not self.readonly

    def command(self, work: Request) -> None:
        """As `ask`, unless the deck is read-only."""
        if self.may_command():
            self.ask(work)

    def submit(self, spec: dict[str, Any], kind: str | None = None) -> None:
        """Submit a job, unless read-only, and show a toast with the result. From here on the next key can cancel it.

        Args:
            spec: What its kind's parser takes.
            kind: Kind of the job; None for a transfer.
        """
        if self.may_command():
            self.ask(partial(self._queued, self.submissions.submit(spec, kind)))

    async def _queued(self, reply: Awaitable[str]) -> None:
        self.notify(f"{await reply} queued", markup=False)

    def run_doctor(self) -> None:
        """Run doctor on this host, unless it is already running."""
        if not self.doctor.looking:
            self.doctor = replace(self.doctor, looking=True, error="")
            self.ask(self._run_doctor)

    async def _run_doctor(self) -> None:
        try:
            self.doctor = await self.requests.run_doctor()
        except KvdeckError as error:
            self.doctor = replace(self.doctor, looking=False, error=str(error))

    async def open_mode(self, mode: str, message: Message) -> None:
        """Switch to a mode and post a message to its screen."""
        await self.switch_mode(mode)
        self.deck_screens[0].post_message(message)

    async def replay(self, name: str) -> None:
        """Open a recording in the Monitor."""
        await self.open_mode("monitor", ReplayAsked(name))

    # --- keys ---

    def on_key(self, event: Key) -> None:
        """Say why a mode's key does nothing: a dialog in front takes no mode keys, and none uses it otherwise."""
        if isinstance(self.screen, ModalScreen) and event.key in _MODE_KEYS:
            self.notify("close this dialog first: Esc", timeout=3)

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
        from kvdeck.app.tui.dialogs.jump import open_jump

        open_jump(self)

    def action_leave(self) -> None:
        from kvdeck.app.tui.exit_check import leave

        leave(self)

    def action_share(self, what: str) -> None:
        from kvdeck.app.tui import export

        export.share(self, what)

    def action_theme(self, name: str) -> None:
        self.register_theme(theme.load(name))
        self.theme = name

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        return palette.commands(self, screen)
