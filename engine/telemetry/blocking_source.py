"""Calls that may block, each source's in a daemon thread of its own: one that hangs stops no other, and no exit."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

Value = TypeVar("Value")


class Aside:
    """Runs one call at a time on its own thread.

    While a call hangs, further ones are refused at once: the thread is not multiplied.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._work: queue.SimpleQueue[Callable[[], None] | None] | None = None
        self._busy = False

    @property
    def busy(self) -> bool:
        """A call goes on, wanted or not."""
        return self._busy

    def call(self, function: Callable[[], Value]) -> asyncio.Future[Value]:
        """A future of the function's value, from the thread."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Value] = loop.create_future()
        if self._work is None:
            self._work = queue.SimpleQueue()
            threading.Thread(target=_serve, args=(self._work,), name=f"watch-{self._name}", daemon=True).start()
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
        """End the thread once its call returns."""
        if self._work is not None:
            self._work.put(None)
            self._work = None


def _serve(work: queue.SimpleQueue[Callable[[], None] | None]) -> None:
    while (item := work.get()) is not None:
        item()
