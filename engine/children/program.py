"""Foreign programs run under a guard: their output lines, and their end when `kvdeck` ends."""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from types import FrameType

from kvdeck.engine.children import guard
from kvdeck.engine.children.child import PIPE, Child, shell_status
from kvdeck.engine.lines import LineBuffer
from kvdeck.sessions.host import umask

ENDING_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
_LOOK_S = 0.1
_AFTER_S = 3.0
"""Seconds that further programs may run on after the first has ended."""
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
        # Before the pipe is closed: a signal now would write to whatever has its descriptor next.
        signal.set_wakeup_fd(wakeup)
        os.close(reading)
        os.close(writing)


def lines_of(programs: Sequence[Program], signals: Signals) -> Iterator[tuple[int, str]]:
    """Yield the output lines of programs, with the index of each, until all have ended or a signal arrives.

    The list may grow meanwhile. Once the first program has ended, the others have `_AFTER_S` seconds to end too. While
    no line arrives, an index of -1 is yielded with an empty line every 0.1 s.
    """
    deadline = math.inf
    while not signals.came and time.monotonic() < deadline:
        open_now = [program for program in programs if not program.drained]
        if not open_now:
            return
        if programs[0].drained and deadline == math.inf:
            deadline = time.monotonic() + _AFTER_S
        ready, _, _ = select.select([*(program.fileno() for program in open_now), signals.wakes], [], [], _LOOK_S)
        if not ready:
            yield -1, ""
        for index, program in enumerate(programs):
            if not program.drained and program.fileno() in ready:
                yield from ((index, line) for line in program.read())
            elif not ready and not program.drained and program.lost():
                program.drained = True


class Program:
    """A running program under a guard (see `guard`), in its own process group."""

    def __init__(self, argv: Sequence[str], signals: Signals) -> None:
        """Start the guard, which starts the program.

        Raises:
            OSError: The guard can't be started.
        """
        self._signals = signals
        self._guard = Child(
            # With the user's umask: the program's files aren't kvdeck's private ones.
            [sys.executable, "-I", "-S", guard.__file__, *argv],
            stdin=PIPE,
            stdout=PIPE,
            umask=umask.given(),
        )
        self._buffer = LineBuffer()
        self.drained = False
        """True once its output has ended."""

    def lines(self) -> Iterator[str]:
        """Yield the program's output lines until it ends or a signal arrives."""
        return (line for index, line in lines_of([self], self._signals) if index >= 0)

    def fileno(self) -> int:
        """Return the file descriptor of the program's output."""
        return self._guard.stdout.fileno()

    def read(self) -> list[str]:
        """Return the lines that have arrived, of a readable output; sets `drained` at its end."""
        data = os.read(self.fileno(), 65536)
        self.drained = not data
        lines = self._buffer.take(data) if data else list(filter(None, [self._buffer.rest()]))
        return [line.decode(errors="replace") for line in lines]

    def lost(self) -> bool:
        """Return True if the guard has ended: the program may still hold the pipe open if the guard was killed."""
        return self._guard.poll() is not None

    def end(self) -> int:
        """End the program and its descendants if they still run; return its exit status."""
        # The guard takes the end of file on its stdin for the end of kvdeck.
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
