"""Ends a process whose native call never comes back: NIXL's plugins have been seen to wait for ever inside one.

A thread looks once a second; a call that holds Python's lock stops that thread too, and is then ended by
`faulthandler`'s own, which needs no lock.
"""

from __future__ import annotations

import contextlib
import faulthandler
import sys
import threading
import time
from collections.abc import Callable, Iterator

from kvdeck.engine.io.exit import leave
from kvdeck.sessions.units import number_text

_LEAST_SECONDS = 60.0
"""Time that every watched call has; a request by itself is given up after half of it."""
_TIMES_EXPECTED = 20


class _Watch:
    """What is watched now; only one call at a time is."""

    def __init__(self, ended: Callable[[str], None], least_s: float) -> None:
        self.least_s = least_s
        self._ended = ended
        self._pause_s = min(1.0, least_s / 4)
        self._lock = threading.Lock()
        self._doing = ""
        self._limit_s = 0.0
        self._since = 0.0
        """When the call began or last showed that it is alive, on the monotonic clock; 0 while nothing is watched."""
        self._armed_since = 0.0

    def begin(self, doing: str, limit_s: float) -> bool:
        """Watch from now on; false where something is watched already."""
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
        """For ever: see whether what is watched takes too long."""
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
        faulthandler.dump_traceback_later(self._limit_s + 4 * self._pause_s, exit=True, file=sys.stderr)


_watch: _Watch | None = None


def start(ended: Callable[[str], None], least_s: float = _LEAST_SECONDS) -> None:
    """Watch this process from now on.

    Args:
        ended: Told what hangs, in an operator's words, before the process is left with status 0.
        least_s: Seconds that every watched call has.
    """
    global _watch
    _watch = _Watch(ended, least_s)
    threading.Thread(target=_watch.look, name="hang", daemon=True).start()


@contextlib.contextmanager
def watched(doing: str, expected_s: float = 0.0) -> Iterator[None]:
    """Let what happens within be ended if it takes far longer than expected; nothing unless `start` was called."""
    watch = _watch
    if watch is None or not watch.begin(doing, watch.least_s + _TIMES_EXPECTED * expected_s):
        yield
        return
    try:
        yield
    finally:
        watch.end()


def alive() -> None:
    """What is watched waits, and not in one call: its time begins anew."""
    if _watch is not None:
        _watch.alive()
