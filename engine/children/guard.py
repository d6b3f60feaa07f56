"""Guard process that runs a foreign program so that it can't outlive `kvdeck`: `python -I -S guard.py PROGRAM …`.

Its stdin is a pipe that `kvdeck` holds open. When the pipe closes, the guard ends the program and its descendants: all
processes in the guard's group, and those outside it with the guard's mark in their environment. It uses only the
standard library, to start in 20 ms.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

MARK = "KVDECK_GUARD"
GRACE_S = 1.0
"""Seconds between SIGTERM and SIGKILL."""


def main() -> int:
    """Run the program and return its exit status: 128 plus the number after a signal, 127 if it can't start."""
    # `kvdeck` decides when the program ends; a signal to the group must not end the guard before it.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    mark = f"{os.getpid()}-{time.monotonic_ns()}"
    try:
        child = subprocess.Popen(
            sys.argv[1:],
            stdin=subprocess.DEVNULL,
            env={**os.environ, MARK: mark},
            # An ignored signal stays ignored over exec.
            preexec_fn=_take_signals,
        )
    except OSError as error:
        print(f"{sys.argv[1]}: {error.strerror}", file=sys.stderr)
        return 127
    ended = _wait(child)
    if not ended:
        _signal(signal.SIGTERM, mark)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(GRACE_S)
    # Also after an orderly end: the program may have left descendants.
    _signal(signal.SIGKILL, mark)
    status = child.wait()
    return status if status >= 0 else 128 - status


def _take_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _wait(child: subprocess.Popen[bytes]) -> bool:
    """Wait for the end of the program (return True) or of kvdeck (False)."""
    reading, writing = os.pipe()
    os.set_inheritable(reading, False)
    # `set_wakeup_fd` takes no blocking descriptor.
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    # Without a handler, Python writes no byte for the signal.
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while child.poll() is None:
        ready, _, _ = select.select([0, reading], [], [])
        if reading in ready:
            os.read(reading, 4096)
        if 0 in ready and not os.read(0, 4096):
            return False
    return True


def end_marked(guard: int) -> None:
    """Kill the processes that a killed guard left, identified by its mark in their environment."""
    _signal_all(signal.SIGKILL, lambda pid: _has_mark(pid, f"{guard}-"))


def _signal(number: signal.Signals, mark: str) -> None:
    me, group = os.getpid(), os.getpgrp()
    _signal_all(number, lambda pid: pid != me and (_is_in(pid, group) or _has_mark(pid, mark)))


def _signal_all(number: signal.Signals, ours: Callable[[int], bool]) -> None:
    """Send a signal to all matching processes, repeated until no new one appears (they may fork meanwhile)."""
    sent: set[int] = set()
    # By group and mark: a descendant may start a session of its own, but inherits the environment.
    while found := {pid for pid in _pids() if pid not in sent and ours(pid)}:
        for pid in found:
            with contextlib.suppress(OSError):
                os.kill(pid, number)
        sent |= found


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208


def _is_in(pid: int, group: int) -> bool:
    try:
        # The name stands in parentheses, and may hold blanks and parentheses itself.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return False
    return fields[0] not in (b"Z", b"X") and int(fields[2]) == group


def _has_mark(pid: int, mark: str) -> bool:
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return any(variable.startswith(f"{MARK}={mark}".encode()) for variable in variables)


if __name__ == "__main__":
    sys.exit(main())
