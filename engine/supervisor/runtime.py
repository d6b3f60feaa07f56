"""Where the engine lives on this host: its home, its runtime folder, its lock, and who holds it."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import orjson

from kvdeck.sessions.errors import EngineError
from kvdeck.sessions.records import from_json, to_json
from kvdeck.sessions.store import write_atomically

_OTHER_RUNTIME = "set KVDECK_RUNTIME to a folder of yours"
MAX_SOCKET_PATH = 107
"""Bytes that `sockaddr_un` takes, its closing NUL not counted."""


def runtime_folder() -> Path:
    """`$KVDECK_RUNTIME`, or `kvdeck-<uid>` in the temp folder; it need not be there yet."""
    chosen = os.environ.get("KVDECK_RUNTIME")
    if chosen:
        return Path(os.path.realpath(Path(chosen).expanduser()))
    import tempfile

    return Path(tempfile.gettempdir()) / f"kvdeck-{os.geteuid()}"


def prepare_home(home: Path) -> Path:
    """Make the home where it is missing.

    Raises:
        EngineError: It can't be made or written.
    """
    try:
        (home / "sessions").mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise EngineError(f"can't make {home}: {error.strerror}", "set KVDECK_HOME to a folder of yours") from error
    if not os.access(home, os.W_OK | os.X_OK):
        raise EngineError(f"{home} is not writable", "set KVDECK_HOME to a folder of yours")
    return home


def prepare_runtime(folder: Path) -> Path:
    """Make the runtime folder where it is missing, and refuse one that others could have prepared.

    Raises:
        EngineError: It is a link, another user's, open to others, or too long for a socket's path.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = folder.lstat()
    except OSError as error:
        raise EngineError(
            f"can't make {folder}: {error.strerror}", "set KVDECK_RUNTIME to a folder of yours"
        ) from error
    if not stat.S_ISDIR(status.st_mode):
        raise EngineError(f"{folder} is not a folder", "remove it, or set KVDECK_RUNTIME to a folder of yours")
    if status.st_uid != os.geteuid():
        raise EngineError(f"{folder} belongs to user {status.st_uid}", _OTHER_RUNTIME)
    if status.st_mode & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        raise EngineError(f"{folder} is open to other users (mode {mode:04o})", f"run `chmod 700 {folder}`")
    length = len(os.fsencode(socket_path(folder)))
    if length > MAX_SOCKET_PATH:
        raise EngineError(
            f"{folder} is too long for a socket's path ({length} bytes of {MAX_SOCKET_PATH})",
            "set KVDECK_RUNTIME to a shorter folder",
        )
    return folder


def socket_path(folder: Path) -> Path:
    return folder / "engine.sock"


def log_path(home: Path) -> Path:
    """The engine's own log; a session's is in its folder."""
    return home / "engine.log"


def take_lock(folder: Path) -> int | None:
    """Lock the runtime folder for this process's life.

    Returns:
        The lock's file descriptor, or null when another engine holds it.
    """
    fd = os.open(folder / "engine.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


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


class Peer(NamedTuple):
    """Who is at the other end of a Unix socket."""

    pid: int
    uid: int
    gid: int


def peer(connected: socket.socket) -> Peer:
    """Ask the kernel, not the peer. To a client, the pid is the one that listens."""
    size = struct.calcsize("3i")
    return Peer(*struct.unpack("3i", connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)))


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


@dataclass(frozen=True, slots=True)
class EngineRecord:
    """`engine.json` in the runtime folder: who serves the socket beside it."""

    process: ProcessIdentity
    started: float
    home: str
    kvdeck: str


def write_record(folder: Path, record: EngineRecord) -> None:
    write_atomically(folder / "engine.json", orjson.dumps(to_json(record), option=orjson.OPT_APPEND_NEWLINE))


def read_record(folder: Path) -> EngineRecord | None:
    """The record of the last engine here, alive or not; null where there is none that can be read."""
    try:
        return from_json(EngineRecord, orjson.loads((folder / "engine.json").read_bytes()))
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def remove_runtime_files(folder: Path, socket_inode: int) -> None:
    """Remove the socket and the record at the engine's end, unless they are a later engine's already."""
    try:
        if socket_path(folder).lstat().st_ino != socket_inode:
            return
    except OSError:
        return
    socket_path(folder).unlink(missing_ok=True)
    (folder / "engine.json").unlink(missing_ok=True)
