"""Watchdog that ends a process whose native call never returns; calls into NIXL's plugins have hung permanently.

A Python thread checks once a second. A native call that holds the GIL stops that thread too; then `faulthandler`'s
own thread, which doesn't need the GIL, ends the process.
"""

from __future__ import annotations

import contextlib
import faulthandler
import sys
import threading
import time
from collections.abc import Callable, Iterator

from kvdeck.engine.io.exit import leave
from kvdeck.engine.threads import start_thread
from kvdeck.sessions.units import number_text

_LEAST_SECONDS = 60.0
"""Minimum time limit of a watched call; a single request fails after half of it (`COMPLETION_SECONDS`)."""
_TIMES_EXPECTED = 20
"""Factor from a call's expected time to the time added to its limit."""


class _Watch:
    """The call watched now, if any; one call at a time."""

    def __init__(self, ended: Callable[[str], None], least_s: float) -> None:
        self.least_s = least_s
        self._ended = ended
        self._pause_s = min(1.0, least_s / 4)
        self._lock = threading.Lock()
        self._doing = ""
        self._limit_s = 0.0
        self._since = 0.0
        """Monotonic time (s) when the call began or last reported progress; 0 while no call is watched."""
        self._armed_since = 0.0

    def begin(self, doing: str, limit_s: float) -> bool:
        """Watch a call from now on; False if another call is watched already."""
        if self._since:
            return False
        with self._lock:
            self._doing, self._limit_s, self._since = doing, limit_s, time.monotonic()
            self._arm()
        return True

    def end(self) -> None:
        with self._lock:
            self._since = 0.0
            faulthandler.cancel_dump_traceback_later()

    def alive(self) -> None:
        if self._since:
            self._since = time.monotonic()

    def look(self) -> None:
        """Check repeatedly whether the watched call exceeds its limit; never returns."""
        while True:
            time.sleep(self._pause_s)
            with self._lock:
                waited_s = time.monotonic() - self._since if self._since else 0.0
                if waited_s > self._limit_s:
                    faulthandler.dump_traceback(file=sys.stderr)
                    self._ended(
                        f"{self._doing}: a native call has not returned for {number_text(round(waited_s, 1))} s"
                    )
                    leave(0)
                if self._since > self._armed_since:
                    self._arm()

    def _arm(self) -> None:
        self._armed_since = self._since
        # Later than `look`, which can also report the hang: this can only end the process.
        faulthandler.dump_traceback_later(self._limit_s + 4 * self._pause_s, exit=True, file=sys.stderr)


_watch: _Watch | None = None


def start(ended: Callable[[str], None], least_s: float = _LEAST_SECONDS) -> None:
    """Start the watchdog of this process.

    Args:
        ended: Called with a message that describes the hang, before the process exits with status 0.
        least_s: Minimum time limit of a watched call, in seconds.
    """
    global _watch
    _watch = _Watch(ended, least_s)
    start_thread("hang", _watch.look)


@contextlib.contextmanager
def watched(doing: str, expected_s: float = 0.0) -> Iterator[None]:
    """End the process if the body takes longer than the minimum limit plus 20 × `expected_s`.

    Has no effect before `start`, or inside another watched call.
    """
    watch = _watch
    if watch is None or not watch.begin(doing, watch.least_s + _TIMES_EXPECTED * expected_s):
        yield
        return
    try:
        yield
    finally:
        watch.end()


def alive() -> None:
    """Report progress: the watched code still returns to Python, so its time limit starts again."""
    if _watch is not None:
        _watch.alive()
