"""Time in which a process was runnable but had no core: `/proc/PID/schedstat`, as the kernel's scheduler counts it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable


class RunDelays:
    """The summed run delay of some processes' main threads; files stay open, so that a reading takes microseconds.

    A reading is None if the kernel doesn't count (`CONFIG_SCHED_INFO`), or if a process isn't on this host (pid None).
    """

    def __init__(self, pids: Iterable[int | None]) -> None:
        self._files: list[int] = []
        self._known = True
        for pid in pids:
            try:
                self._files.append(os.open(f"/proc/{pid}/schedstat", os.O_RDONLY | os.O_CLOEXEC))
            except OSError:  # there is no /proc/None either
                self._known = False

    def read(self) -> int | None:
        """Return the delay so far in ns, 0 without processes; None if it isn't known, or a process is gone."""
        if not self._known:
            return None
        try:
            return sum(int(os.pread(file, 128, 0).split()[1]) for file in self._files)
        except (OSError, IndexError, ValueError):
            return None

    def close(self) -> None:
        while self._files:
            with contextlib.suppress(OSError):
                os.close(self._files.pop())


def gained(before: int | None, after: int | None) -> int | None:
    """Return the delay between two readings, in ns; None if one isn't known."""
    return None if before is None or after is None else after - before
