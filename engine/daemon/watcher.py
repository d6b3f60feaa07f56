"""One telemetry request of a client: what it is due, past samples first, then the newest one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kvdeck.engine.protocol import VERSION


class Watcher:
    """Queue of one request's samples. A slow client gets only the newest, and the number of those it missed.

    Args:
        request: The client's number of the request, which its samples repeat.
        wake: Called when a line is due.
    """

    def __init__(self, request: int, wake: Callable[[], None]) -> None:
        self._request, self._wake = request, wake
        self._past: Iterator[bytes] = iter(())
        self._newest: bytes | None = None
        self._missed = 0

    def sampled(self, snapshot: bytes) -> None:
        """Send a sample (JSON) unless a newer one arrives before the socket accepts it."""
        self._missed += self._newest is not None
        self._newest = snapshot
        self._wake()

    def catch_up(self, lines: Iterator[bytes]) -> None:
        """Send these lines, one after the other, before the next sample."""
        self._past = lines
        self._wake()

    def clear(self) -> None:
        """Drop what was not sent yet."""
        self._past, self._newest, self._missed = iter(()), None, 0

    def take(self) -> bytes | None:
        """Return the next line that is due; None if none is."""
        past = next(self._past, None)
        if past is not None or self._newest is None:
            return past
        line = watch_line(self._newest, self._missed, self._request)
        self._newest, self._missed = None, 0
        return line


def watch_line(snapshot: bytes, missed: int, request: int = 0) -> bytes:
    """Return a `watch_sample` line around an encoded sample, which the engine forwards without decoding it."""
    head = b'{"v":%d,"type":"watch_sample","missed":%d,"request":%d,"snapshot":' % (VERSION, missed, request)
    return head + snapshot + b"}\n"
