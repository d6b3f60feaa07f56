"""Lines that a worker prints beside its events: written to its log without holding up the event loop."""

from __future__ import annotations

import asyncio
import contextlib
from typing import IO

MOST_PENDING = 1 << 20
"""Bytes that wait while the log's disk is slow; what comes after them is dropped, and counted in the log."""


class StrayLines:
    """Writes lines to a log in a thread, in their order. A log that can't be written loses them, and ends nothing."""

    def __init__(self, log: IO[bytes]) -> None:
        self._log = log
        self._pending = bytearray()
        self._dropped = 0
        self._closed = False
        self._wake = asyncio.Event()

    def add(self, lines: list[bytes]) -> None:
        """Let `run` write the lines, given without their newlines."""
        for line in lines:
            if len(self._pending) + len(line) < MOST_PENDING:
                self._pending += line + b"\n"
            else:
                self._dropped += 1
        self._wake.set()

    def close(self) -> None:
        """Let `run` return once everything is written."""
        self._closed = True
        self._wake.set()

    async def run(self) -> None:
        """Write what `add` gets until `close`."""
        while self._pending or not self._closed:
            await self._wake.wait()
            self._wake.clear()
            due, self._pending, dropped, self._dropped = bytes(self._pending), bytearray(), self._dropped, 0
            if dropped:
                due += b"kvdeck: %d lines that followed were dropped: the log is too slow\n" % dropped
            if due:
                await asyncio.to_thread(self._write, due)

    def _write(self, data: bytes) -> None:
        with contextlib.suppress(OSError, ValueError):  # a full disk; a log that was closed because it hangs
            self._log.write(data)
