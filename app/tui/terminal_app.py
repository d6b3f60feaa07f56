"""What the deck's app is to its terminal: bytes counted, foreign text safe, glyphs and key names that it can draw."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from textual._compositor import ChopsUpdate, LayoutUpdate
from textual.app import App

from kvdeck.app.tui import glyphs, terminal, theme
from kvdeck.app.tui.pacing import TerminalLink, has_other_between
from kvdeck.app.tui.terminal_picture import PictureUpdate, TerminalPicture
from kvdeck.sessions.host.escapes import visible

if TYPE_CHECKING:
    from rich.console import RenderableType
    from textual.binding import Binding
    from textual.driver import Driver
    from textual.events import Resize
    from textual.filter import LineFilter
    from textual.geometry import Size
    from textual.notifications import SeverityLevel
    from textual.screen import Screen

_NAMED_KEYS = ("enter", "up", "down", "left", "right", "tab", "space", "backspace")
_ASCII = glyphs.Ascii()
_OBEYED = glyphs.Obeyed()


class TerminalApp(App[None], inherit_bindings=False):
    """A Textual app that writes only what its terminal draws, and counts it.

    Args:
        theme_name: The theme to open with.
        ascii: Draw with ASCII characters only.
    """

    def __init__(self, theme_name: str, *, ascii: bool) -> None:
        super().__init__(ansi_color=True if theme_name == theme.ANSI else None)
        self.register_theme(theme.load(theme_name))
        self.theme = theme_name
        # Each step of an animation would be sent: over a slow link it hides what changed.
        self.animation_level = "none"
        self.ascii = ascii
        self.set_class(ascii, "-ascii")
        self.links = False
        """Whether OSC 8 hyperlinks are sent to the terminal."""
        self.link = TerminalLink(other_between=has_other_between(os.environ))
        self.picture = TerminalPicture()
        self._whole: Size | None = None
        """Size at which the screen was last painted as a whole."""
        self._resized = False
        """Whether the terminal was resized since."""

    def get_driver_class(self) -> type[Driver]:
        return terminal.counting(super().get_driver_class(), lambda count: self.link.wrote(count, time.monotonic()))

    def get_line_filters(self) -> Sequence[LineFilter]:
        filters = [*super().get_line_filters(), _OBEYED]
        return [*filters, _ASCII] if self.ascii else filters

    def _display(self, screen: Screen[object], renderable: RenderableType | None) -> None:
        if isinstance(renderable, LayoutUpdate) and (self._resized or renderable.region.size != self._whole):
            # What was painted between a resize and this lost cells at the terminal, or was wrapped.
            self.picture.forget()
            self._whole, self._resized = renderable.region.size, False
        if isinstance(renderable, (ChopsUpdate, LayoutUpdate)):
            renderable = PictureUpdate(self.picture, renderable)  # type: ignore[assignment]
        super()._display(screen, renderable)

    def action_repaint(self) -> None:
        """Paint the whole screen: another program may have written over it."""
        self.picture.forget()
        self.screen.refresh(layout=True)

    def on_resize(self, event: Resize) -> None:
        """Paint the whole screen; Textual doesn't if the size is what it was, such as after a zoom there and back."""
        self.picture.forget()
        self._resized = True
        if self._size is not None and event.size == self._whole:  # None: the first size, which Textual paints
            self.screen.refresh()

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

    def write_sequence(self, sequence: str) -> None:
        """Write an escape sequence to the terminal, in order with what is painted; nothing if headless or in a
        browser."""
        if self._driver is not None and not self.is_headless and not self.is_web:
            self._driver.write(sequence)

    def get_key_display(self, binding: Binding) -> str:
        if self.ascii and binding.key_display is None and binding.key in _NAMED_KEYS:
            return binding.key.capitalize()
        return super().get_key_display(binding)
