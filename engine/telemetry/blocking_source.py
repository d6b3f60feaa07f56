"""Blocking calls of a source, run on a daemon thread so that a hanging one delays neither other sources nor exit."""

from __future__ import annotations

import asyncio
import functools
import queue
from collections.abc import Callable
from typing import Any, TypeVar

from kvdeck.engine.threads import start_thread

Value = TypeVar("Value")


class Aside:
    """Runs blocking calls one at a time on one daemon thread, started by the first call.

    The caller checks `busy` first: while a call hangs, no further call or thread is started.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._work: queue.SimpleQueue[Callable[[], None] | None] | None = None
        self._busy = False

    @property
    def busy(self) -> bool:
        """True while a call runs, also after its future was cancelled."""
        return self._busy

    def call(self, function: Callable[[], Value]) -> asyncio.Future[Value]:
        """Return a future for `function()`, which runs on the thread; it raises what the function raises."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Value] = loop.create_future()
        if self._work is None:
            self._work = queue.SimpleQueue()
            start_thread(f"watch-{self._name}", functools.partial(_serve, self._work))
        self._busy = True

        def done(value: Any, error: BaseException | None) -> None:
            self._busy = False
            if future.done():
                return
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)

        def work() -> None:
            value, error = None, None
            try:
                value = function()
            except Exception as raised:
                error = raised
            if not loop.is_closed():
                loop.call_soon_threadsafe(done, value, error)

        self._work.put(work)
        return future

    def close(self) -> None:
        """End the thread after its current call."""
        if self._work is not None:
            self._work.put(None)
            self._work = None


def _serve(work: queue.SimpleQueue[Callable[[], None] | None]) -> None:
    while (item := work.get()) is not None:
        item()
