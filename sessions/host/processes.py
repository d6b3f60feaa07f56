"""Processes of this host: who runs under a pid, and whether one that was noted earlier still does."""

from __future__ import annotations

import os
import signal
import socket
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process that no later one can be mistaken for: a pid alone comes round again."""

    pid: int
    start: int
    """Start time in clock ticks since boot, as in /proc."""
    boot: str
    namespace: str
    """The pid namespace: the same number means another process in another container."""
    host: str

    @property
    def here(self) -> bool:
        """Whether its pid can be looked up by this process."""
        return self.boot == _boot_id() and self.namespace == _pid_namespace()

    @property
    def alive(self) -> bool:
        return self.here and process_start(self.pid) == self.start

    @property
    def gone(self) -> bool:
        """Whether it has surely ended; of a process on another host nothing is sure."""
        return not self.alive and (self.here or self.host == socket.gethostname())


def identity(pid: int) -> ProcessIdentity | None:
    """Who runs under that pid now, or null when none does."""
    start = process_start(pid)
    if start is None:
        return None
    return ProcessIdentity(pid, start, _boot_id(), _pid_namespace(), socket.gethostname())


def own_identity() -> ProcessIdentity:
    """Who this process is."""
    return ProcessIdentity(
        os.getpid(), process_start(os.getpid()) or 0, _boot_id(), _pid_namespace(), socket.gethostname()
    )


def process_start(pid: int) -> int | None:
    """Start time of a process in ticks since boot; null when it is not there or a zombie."""
    fields = _stat(pid)
    return None if fields is None or fields[0] in ("Z", "X") else int(fields[19])


def group_members(group: int) -> list[int]:
    """Pids of the process group's members, zombies left out."""
    found = []
    for entry in os.listdir("/proc"):  # noqa: PTH208
        if entry.isdigit() and (fields := _stat(int(entry))) and int(fields[2]) == group and fields[0] not in "ZX":
            found.append(int(entry))
    return found


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat from the state on: the name before it may hold anything."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].decode().split()
    except OSError:
        return None


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _pid_namespace() -> str:
    return str(Path("/proc/self/ns/pid").readlink())


def signal_name(number: int) -> str:
    """A signal's name, such as `SIGKILL`; real-time signals by their distance from the first, `SIGRTMIN+1`."""
    try:
        return signal.Signals(number).name
    except ValueError:
        pass
    if signal.SIGRTMIN < number < signal.SIGRTMAX:
        return f"SIGRTMIN+{number - signal.SIGRTMIN}"
    return f"signal {number}"
