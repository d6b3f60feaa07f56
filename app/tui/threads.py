"""Blocking work off the screen's loop, in daemon threads: the deck closes at once, whatever they still wait for."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")
Job = Callable[[], None]


def _job(work: Callable[[], T]) -> tuple[Job, asyncio.Future[T]]:
    """Return a function for another thread, and the future of this loop that gets its result or exception."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(give: Callable[[Any], None], value: object) -> None:
        if not future.done():
            give(value)

    def run() -> None:
        # Its screen is gone: what it asked for needn't be read any more.
        if future.cancelled():
            return
        give: Callable[[Any], None] = future.set_result
        try:
            value: object = work()
        except Exception as error:
            give, value = future.set_exception, error
        with contextlib.suppress(RuntimeError):  # the deck has closed its loop meanwhile
            loop.call_soon_threadsafe(settle, give, value)

    return run, future


async def in_thread(work: Callable[[], T], name: str = "kvdeck-work") -> T:
    """Return the result of `work`, run in a thread of its own; its exception is raised here."""
    run, future = _job(work)
    threading.Thread(target=run, name=name, daemon=True).start()
    return await future


class WorkThread:
    """One thread that does one job after another; a job whose caller was cancelled before its turn is skipped."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def do(self, work: Callable[[], T]) -> T:
        """Return the result of `work` when its turn has come; its exception is raised here."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        run, future = _job(work)
        self._jobs.put(run)
        return await future

    def _run(self) -> None:
        while True:
            self._jobs.get()()
