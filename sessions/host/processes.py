"""Identity of processes on this host, safe against reuse of pids."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

from msgspec import Struct


class ProcessIdentity(Struct, frozen=True):
    """Identifies a process beyond its pid, because pids are reused."""

    pid: int
    start: int
    """Start time in clock ticks since boot, as in /proc."""
    boot: str
    namespace: str
    """The pid namespace: in another container the same pid is another process."""
    host: str

    @property
    def here(self) -> bool:
        """True if this process can look up its pid: same boot, same pid namespace."""
        return self.boot == _boot_id() and self.namespace == _pid_namespace()

    @property
    def alive(self) -> bool:
        return self.here and process_start(self.pid) == self.start

    @property
    def gone(self) -> bool:
        """True only if it certainly exited; False for processes on other hosts."""
        # The same host after a reboot: the boot id differs, the name does not.
        return not self.alive and (self.here or self.host == socket.gethostname())


def identity(pid: int) -> ProcessIdentity | None:
    """Return the identity of the process with that pid; None if there is none."""
    start = process_start(pid)
    if start is None:
        return None
    return ProcessIdentity(pid, start, _boot_id(), _pid_namespace(), socket.gethostname())


def own_identity() -> ProcessIdentity:
    """Return the identity of this process."""
    return ProcessIdentity(
        os.getpid(), process_start(os.getpid()) or 0, _boot_id(), _pid_namespace(), socket.gethostname()
    )


def process_start(pid: int) -> int | None:
    """Return a process's start time in ticks since boot; None if it doesn't exist or is a zombie."""
    fields = _stat(pid)
    return None if fields is None or fields[0] in ("Z", "X") else int(fields[19])


def group_members(group: int) -> list[int]:
    """Return the pids of a process group, zombies excluded."""
    found = []
    for entry in os.listdir("/proc"):  # noqa: PTH208
        if entry.isdigit() and (fields := _stat(int(entry))) and int(fields[2]) == group and fields[0] not in "ZX":
            found.append(int(entry))
    return found


def _stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat after the name, which may hold any character; None if unreadable."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The last parenthesis: a process may name itself `a) Z 1`.
            return file.read().rpartition(b")")[2].decode().split()
    except OSError:
        return None


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _pid_namespace() -> str:
    return str(Path("/proc/self/ns/pid").readlink())


def signal_name(number: int) -> str:
    """Return a signal's name, such as `SIGKILL`; real-time signals relative to the first: `SIGRTMIN+1`."""
    try:
        return signal.Signals(number).name
    except ValueError:
        pass
    if signal.SIGRTMIN < number < signal.SIGRTMAX:
        return f"SIGRTMIN+{number - signal.SIGRTMIN}"
    return f"signal {number}"
