"""The terminal itself: whether it can take more, and whether it is still there."""

from __future__ import annotations

import errno
import os
import select
import signal
import threading
import time

CHECK_S = 0.5
GRACE_S = 3.0
HUNG_UP = 128 + signal.SIGHUP


def can_take_more(fd: int) -> bool:
    """Whether a write would go through now; a link that lags behind says no."""
    try:
        return bool(select.select((), (fd,), (), 0)[1])
    except (OSError, ValueError):
        return False


def is_gone(fd: int) -> bool:
    """Whether the terminal behind a descriptor has hung up."""
    poll = select.poll()
    try:
        poll.register(fd, 0)
        events = poll.poll(0)
    except (OSError, ValueError):
        return True
    if any(mask & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _, mask in events):
        return True
    try:
        os.tcgetpgrp(fd)
    except OSError as error:
        return error.errno == errno.EIO
    return False


def end_when_gone(fd: int) -> threading.Thread:
    """Start the thread that ends this process once its terminal is gone.

    The event loop may be stuck in a write that never ends then, so it is not asked.
    """

    def watch() -> None:
        while not is_gone(fd):
            time.sleep(CHECK_S)
        _end_at_last()

    thread = threading.Thread(target=watch, name="kvdeck-terminal", daemon=True)
    thread.start()
    return thread


def end_at_last() -> None:
    """Let the orderly way out have its time, then end: restoring a terminal that takes no more can last for ever."""
    threading.Thread(target=_end_at_last, name="kvdeck-end", daemon=True).start()


def _end_at_last() -> None:
    time.sleep(GRACE_S)
    os._exit(HUNG_UP)
