"""A foreign program and its output, line by line, with every way in which `kvdeck` itself may be ended."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from types import FrameType

from kvdeck.engine.children import guard
from kvdeck.sessions.host import umask

ENDING_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
_LOOK_S = 0.1
_PATIENCE_S = 3.0
"""For the guard to end everything below it."""


class Signals:
    """The signals that asked this process to end, in the order in which they came."""

    def __init__(self, wakes: int) -> None:
        self.wakes = wakes
        """Readable once one has come."""
        self.came: list[signal.Signals] = []


@contextlib.contextmanager
def noted_signals() -> Iterator[Signals]:
    """Note SIGHUP, SIGINT and SIGTERM instead of being ended by them."""
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
    """A running program below a guard (see `guard`), in a process group of its own."""

    def __init__(self, argv: Sequence[str], signals: Signals) -> None:
        """Start it.

        Raises:
            OSError: No process can be started.
        """
        self._signals = signals
        self._guard = subprocess.Popen(
            [sys.executable, "-I", "-S", guard.__file__, *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            umask=umask.given(),
        )

    def lines(self) -> Iterator[str]:
        """Its output, until it ends or a signal has come."""
        assert self._guard.stdout is not None
        fd, rest = self._guard.stdout.fileno(), b""
        while not self._signals.came:
            ready, _, _ = select.select([fd, self._signals.wakes], [], [], _LOOK_S)
            if fd not in ready:
                if not ready and self._guard.poll() is not None:
                    return  # it was killed, and what it guarded may hold the pipe open for long
                continue
            data = os.read(fd, 65536)
            *lines, rest = (rest + data).split(b"\n")
            for line in lines if data else [rest] if rest else []:
                yield line.decode(errors="replace")
            if not data:
                return

    def end(self) -> int:
        """End it where it still runs, with everything below it; its exit status."""
        assert self._guard.stdin is not None
        assert self._guard.stdout is not None
        with contextlib.suppress(OSError):
            self._guard.stdin.close()
        self._guard.stdout.close()
        try:
            self._guard.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:  # somebody has stopped the guard
            self._guard.kill()
        status = self._guard.wait()
        guard.end_marked(self._guard.pid)
        return status if status >= 0 else 128 - status

    def wait(self) -> int:
        """Its exit status once its output has ended; 128 and the signal's number where one ended it."""
        while not self._signals.came and self._guard.poll() is None:
            select.select([self._signals.wakes], [], [], _LOOK_S)
        return self.end()
