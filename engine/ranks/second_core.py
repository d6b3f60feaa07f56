"""A thread on another core of this process, which takes its part of a copy; it sleeps between two parts."""

from __future__ import annotations

import os
from collections.abc import Callable
from queue import SimpleQueue

from kvdeck.engine.threads import start_thread


class SecondCore:
    """The thread, pinned to one core until `close`."""

    def __init__(self, core: int) -> None:
        self._core = core
        self._parts: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._ends: SimpleQueue[Exception | None] = SimpleQueue()
        start_thread("second core", self._work, self._ends.put)

    def _work(self) -> None:
        os.sched_setaffinity(0, {self._core})  # of this thread only
        while (part := self._parts.get()) is not None:
            part()
            self._ends.put(None)

    def begin(self, part: Callable[[], None]) -> None:
        """Let the thread do a part."""
        self._parts.put(part)

    def wait(self) -> None:
        """Return when the part is done, or raise what ended the thread."""
        if (error := self._ends.get()) is not None:
            raise error

    def close(self) -> None:
        """End the thread once its part is done."""
        self._parts.put(None)
