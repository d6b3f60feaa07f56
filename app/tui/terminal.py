"""The terminal: whether it accepts more output, and whether it is still connected."""

from __future__ import annotations

import errno
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from kvdeck.app.tui import glyphs, theme

if TYPE_CHECKING:
    from textual.driver import Driver

    from kvdeck.app.config import Config

CHECK_S = 0.5
GRACE_S = 3.0
HUNG_UP = 128 + signal.SIGHUP
KEEP_TITLE, GIVE_TITLE_BACK = "\x1b[22;2t", "\x1b[23;2t"


def title(text: str) -> str:
    """Return the sequence that sets the terminal's title; control characters are removed, so that they can't end it
    early."""
    return f"\x1b]2;{''.join(c for c in text if c.isprintable())}\x07"


def fitted(config: Config, environ: Mapping[str, str] = os.environ) -> Config:
    """Return the config with theme and ASCII mode, where not set, chosen by what this terminal can draw.

    NO_COLOR overrides the theme.
    """
    encoding = None if sys.__stderr__ is None else sys.__stderr__.encoding
    if environ.get("NO_COLOR") or (config.theme is None and theme.few_colours(environ)):
        config = replace(config, theme=theme.ANSI)
    return config if config.ascii is not None else replace(config, ascii=glyphs.wanted(environ, encoding))


def counting(driver: type[Driver], wrote: Callable[[int], None]) -> type[Driver]:
    """Return a subclass of the driver that passes the number of bytes of each write to `wrote`."""

    class Counting(driver):  # type: ignore[valid-type, misc]
        def write(self, data: str) -> None:
            # `isascii` reads a flag of the text; encoding would copy every frame a second time.
            wrote(len(data) if data.isascii() else len(data.encode()))
            super().write(data)

    return Counting


def can_take_more(fd: int) -> bool:
    """True if a write would go through now; False if the link lags or `fd` is invalid."""
    try:
        return bool(select.select((), (fd,), (), 0)[1])
    except (OSError, ValueError):
        return False


def is_gone(fd: int) -> bool:
    """True if the terminal behind `fd` has hung up, or `fd` is invalid."""
    poll = select.poll()
    try:
        # No event requested: hang-ups and errors are reported in any case.
        poll.register(fd, 0)
        events = poll.poll(0)
    except (OSError, ValueError):
        return True
    if any(mask & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _, mask in events):
        return True
    try:
        # A hung-up terminal doesn't always poll as one; its ioctls fail with EIO then.
        os.tcgetpgrp(fd)
    except OSError as error:
        return error.errno == errno.EIO
    return False


def end_when_gone(fd: int) -> threading.Thread:
    """Start the thread that ends this process, with status HUNG_UP, once its terminal is gone.

    The event loop may be blocked in a write that never ends, so the thread doesn't rely on it.
    """

    def watch() -> None:
        while not is_gone(fd):
            time.sleep(CHECK_S)
        _end_at_last()

    thread = threading.Thread(target=watch, name="kvdeck-terminal", daemon=True)
    thread.start()
    return thread


def end_at_last() -> None:
    """Force-exit after GRACE_S with status HUNG_UP; restoring a stalled terminal may block."""
    threading.Thread(target=_end_at_last, name="kvdeck-end", daemon=True).start()


def _end_at_last() -> None:
    time.sleep(GRACE_S)
    os._exit(HUNG_UP)
