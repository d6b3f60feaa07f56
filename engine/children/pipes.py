"""A child's output and its end, awaited on an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Callable
from typing import IO, Protocol, TypeVar

from kvdeck.engine.children.child import Child
from kvdeck.engine.lines import LineBuffer


class Abandonable(Protocol):
    """A process that can be left: killed, and its files closed."""

    def abandon(self) -> None: ...


Process = TypeVar("Process", bound=Abandonable)
PIPE_BYTES = 1 << 20
LOOK_SECONDS = 0.05


class PipeLines:
    """Reader of a child's stdout: passes whole lines, without their newlines, to `take`.

    To avoid a wake-up per line at hundreds of lines per second, it polls the pipe every `LOOK_SECONDS` while lines
    arrive that fast, and waits for the pipe again once a poll returns nothing.
    """

    def __init__(self, pipe: IO[bytes], take: Callable[[list[bytes]], None]) -> None:
        self._fd, self._take = pipe.fileno(), take
        self._buffer = LineBuffer()
        self._loop = asyncio.get_running_loop()
        self._next_look = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.ended = asyncio.Event()
        self.broken: Exception | None = None
        """Error of `take` that ended reading before the end of the pipe."""
        with contextlib.suppress(OSError):  # a larger pipe is only an optimization
            fcntl.fcntl(self._fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        os.set_blocking(self._fd, False)
        self._loop.add_reader(self._fd, self._on_readable)

    @property
    def dropped(self) -> int:
        """Number of lines that were too long."""
        return self._buffer.dropped

    def close(self) -> None:
        """Stop reading, even before the end of the pipe."""
        self._loop.remove_reader(self._fd)
        if self._timer is not None:
            self._timer.cancel()

    def _on_readable(self) -> None:
        now = self._loop.time()
        if now < self._next_look:
            self._loop.remove_reader(self._fd)
            self._timer = self._loop.call_at(self._next_look, self._look)
        else:
            self._next_look = _next_tick(now)
            self._read()

    def _look(self) -> None:
        found = self._read()
        if found == 0:
            self._loop.add_reader(self._fd, self._on_readable)
        elif found > 0:
            now = self._loop.time()
            # With so much in one look the pipe may fill before the next tick, and the child would have to wait.
            when = _next_tick(now) if found < PIPE_BYTES // 16 else now
            self._timer = self._loop.call_at(when, self._look)

    def _read(self) -> int:
        """Return the number of bytes read; 0 if none are available, -1 at the end or after an error."""
        try:
            data = os.read(self._fd, PIPE_BYTES // 4)
        except BlockingIOError:
            return 0
        if not data:
            self._end()
            return -1
        try:
            lines = self._buffer.take(data)
            if lines:
                self._take(lines)
        except Exception as error:
            # An event-loop callback has no caller to raise to: who waits for `ended` raises this error.
            self.broken = error
            self._end()
            return -1
        return len(data)

    def _end(self) -> None:
        self.close()
        self.ended.set()


def _next_tick(now: float) -> float:
    """Return the next poll time on the grid that clients' samples use too, so that one wake-up serves both."""
    return (now // LOOK_SECONDS + 1) * LOOK_SECONDS


async def started(make: Callable[[], Process]) -> Process:
    """Return the process that `make` starts, in a thread: exec reads files, which a slow disk delays.

    A process whose start is no longer awaited is abandoned once it has started.

    Raises:
        Exception: An error of `make`.
    """
    starting = asyncio.get_running_loop().run_in_executor(None, make)
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        starting.add_done_callback(_abandon)
        raise


def _abandon(starting: asyncio.Future[Process]) -> None:
    if not starting.cancelled() and starting.exception() is None:
        starting.result().abandon()


async def exit_of(child: Child) -> None:
    """Wait for a child's exit without reaping it, and without a thread, as the host may have none left."""
    try:
        fd = os.pidfd_open(child.pid)
    except (OSError, AttributeError):  # old kernel, seccomp filter, or Python built without it
        while not child.exited():
            await asyncio.sleep(LOOK_SECONDS)
        return
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(fd, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(fd)
        os.close(fd)
