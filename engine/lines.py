"""Lines in the bytes that arrive from a pipe or a socket."""

from __future__ import annotations

from kvdeck.engine.protocol import MAX_LINE


class LineBuffer:
    """Splits arriving bytes into lines. A line longer than `most` bytes is dropped as a whole and counted."""

    def __init__(self, most: int = MAX_LINE) -> None:
        self._most = most
        self._rest = b""
        self._skipping = False
        self.dropped = 0
        """Number of lines that were too long."""

    def take(self, data: bytes) -> list[bytes]:
        """Return the lines that `data` completes, without their newlines."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if self._skipping and lines:
            del lines[0]
            self._skipping = False
        fitting = [line for line in lines if len(line) <= self._most]
        self.dropped += len(lines) - len(fitting)
        if len(self._rest) > self._most:
            self.dropped += not self._skipping
            self._skipping = True
        if self._skipping:
            self._rest = b""
        return fitting

    def rest(self) -> bytes:
        """Return the last line, which has no newline yet, and forget it."""
        rest, self._rest = self._rest, b""
        return rest
