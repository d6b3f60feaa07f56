"""A foreign program run under a guard: its output lines, and its end when `kvdeck` ends."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from collections.abc import Iterator, Sequence
from types import FrameType

from kvdeck.engine.children import guard
from kvdeck.engine.children.child import PIPE, Child, shell_status
from kvdeck.engine.lines import LineBuffer
from kvdeck.sessions.host import umask

ENDING_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
_LOOK_S = 0.1
_PATIENCE_S = 3.0
"""Seconds for the guard to end the program and its descendants."""


class Signals:
    """Termination signals received by this process, in order of arrival."""

    def __init__(self, wakes: int) -> None:
        self.wakes = wakes
        """File descriptor that becomes readable when a signal arrives."""
        self.came: list[signal.Signals] = []


@contextlib.contextmanager
def noted_signals() -> Iterator[Signals]:
    """Collect SIGHUP, SIGINT and SIGTERM in the context instead of being ended by them."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signals = Signals(reading)

    def note(number: int, _frame: FrameType | None) -> None:
        signals.came.append(signal.Signals(number))

    wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    before = {number: signal.signal(number, note) for number in ENDING_SIGNALS}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
        os.close(reading)
        os.close(writing)


class Program:
    """A running program under a guard (see `guard`), in its own process group."""

    def __init__(self, argv: Sequence[str], signals: Signals) -> None:
        """Start the guard, which starts the program.

        Raises:
            OSError: The guard can't be started.
        """
        self._signals = signals
        self._guard = Child(
            [sys.executable, "-I", "-S", guard.__file__, *argv], stdin=PIPE, stdout=PIPE, umask=umask.given()
        )

    def lines(self) -> Iterator[str]:
        """Yield the program's output lines until it ends or a signal arrives."""
        fd, buffer = self._guard.stdout.fileno(), LineBuffer()
        while not self._signals.came:
            ready, _, _ = select.select([fd, self._signals.wakes], [], [], _LOOK_S)
            if fd not in ready:
                if not ready and self._guard.poll() is not None:
                    return  # the guard was killed; its program may still hold the pipe open
                continue
            data = os.read(fd, 65536)
            lines = buffer.take(data) if data else list(filter(None, [buffer.rest()]))
            for line in lines:
                yield line.decode(errors="replace")
            if not data:
                return

    def end(self) -> int:
        """End the program and its descendants if they still run; return its exit status."""
        self._guard.close()
        if self._guard.wait(_PATIENCE_S) is None:  # the guard was stopped (SIGSTOP)
            self._guard.signal(signal.SIGKILL)
        status = self._guard.wait()
        assert status is not None
        guard.end_marked(self._guard.pid)
        return shell_status(status)

    def wait(self) -> int:
        """Wait for the program or a signal; return the exit status, 128 plus the signal's number after a signal."""
        while not self._signals.came and self._guard.poll() is None:
            select.select([self._signals.wakes], [], [], _LOOK_S)
        return self.end()
