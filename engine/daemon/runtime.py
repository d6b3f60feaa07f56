"""The engine's home, its runtime folder with socket, record and lock, and the process that holds the lock."""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
from pathlib import Path
from typing import NamedTuple

from msgspec import Struct

from kvdeck.sessions.errors import EngineError
from kvdeck.sessions.host.files import read_regular, replace_file
from kvdeck.sessions.host.processes import ProcessIdentity
from kvdeck.sessions.host.user_home import expanded
from kvdeck.sessions.model.encoding import decode, encode_line
from kvdeck.sessions.store.locks import lock

_OTHER_RUNTIME = "set KVDECK_RUNTIME to a folder you own"
MAX_SOCKET_PATH = 107
"""Longest path in `sockaddr_un` in bytes, without the closing NUL."""


def runtime_folder() -> Path:
    """Return `$KVDECK_RUNTIME`, or `kvdeck-<uid>` in the temporary folder; it may not exist yet."""
    chosen = os.environ.get("KVDECK_RUNTIME")
    if chosen:
        # Resolved, since the engine and its clients may start in different folders.
        return Path(os.path.realpath(expanded(chosen)))
    import tempfile

    return Path(tempfile.gettempdir()) / f"kvdeck-{os.geteuid()}"


def prepare_home(home: Path) -> Path:
    """Create the home if missing, and return it.

    Raises:
        EngineError: The home can't be created or is not writable.
    """
    try:
        (home / "sessions").mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise EngineError(f"can't create {home}: {error.strerror}", "set KVDECK_HOME to a folder you own") from error
    if not os.access(home, os.W_OK | os.X_OK):
        raise EngineError(f"{home} is not writable", "set KVDECK_HOME to a folder you own")
    return home


def prepare_runtime(folder: Path) -> Path:
    """Create the runtime folder if missing, and return it; refuse one that another user could have prepared.

    Raises:
        EngineError: It can't be created, is not a folder (a link, too), belongs to another user, is accessible to
            others, or its path is too long for a socket.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Not `stat`: a link that another user put there would lead to a folder of theirs or of ours.
        status = folder.lstat()
    except OSError as error:
        raise EngineError(
            f"can't create {folder}: {error.strerror}", "set KVDECK_RUNTIME to a folder you own"
        ) from error
    if not stat.S_ISDIR(status.st_mode):
        raise EngineError(f"{folder} is not a folder", "remove it, or set KVDECK_RUNTIME to a folder you own")
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
    """Return the path of the engine's log; a session's log is in the session's folder."""
    return home / "engine.log"


def take_lock(folder: Path) -> int | None:
    """Lock the runtime folder until this process ends or closes the lock.

    Returns:
        The lock's file descriptor, or None if another engine holds it.

    Raises:
        OSError: The file system has no locks, or the folder is not writable.
    """
    fd = os.open(folder / "engine.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        found = lock(fd)
        if found == "unsupported":
            raise OSError(errno.ENOLCK, "the file system has no locks", str(folder))
    except OSError:
        os.close(fd)
        raise
    if found == "busy":
        os.close(fd)
        return None
    return fd


def lock_holder(folder: Path) -> int | None:
    """Return the pid of the engine that holds the folder's lock (from /proc/locks); None if none, or unknown."""
    try:
        status = (folder / "engine.lock").stat()
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return None
    file = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    for line in lines:
        fields = line.split()
        # A holder in another pid namespace has no pid here.
        if len(fields) > 5 and fields[1] == "FLOCK" and fields[5] == file and int(fields[4]) > 0:
            return int(fields[4])
    return None


class Peer(NamedTuple):
    """Credentials of the process at the other end of a Unix socket."""

    pid: int
    uid: int
    gid: int


def peer(connected: socket.socket) -> Peer:
    """Return the peer's credentials from the kernel (SO_PEERCRED). On a client's socket, the pid is the listener's."""
    size = struct.calcsize("3i")
    return Peer(*struct.unpack("3i", connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)))


class EngineRecord(Struct, frozen=True):
    """`engine.json` in the runtime folder: the process that serves the socket there; `started` in Unix time."""

    process: ProcessIdentity
    started: float
    home: str
    kvdeck: str


def write_record(folder: Path, record: EngineRecord) -> None:
    replace_file(folder / "engine.json", encode_line(record), durable=True)


def read_record(folder: Path) -> EngineRecord | None:
    """Return the record of the last engine, alive or not; None if missing or unreadable."""
    try:
        return decode(EngineRecord, read_regular(folder / "engine.json", shared=True))
    except (OSError, ValueError):
        return None


def remove_runtime_files(folder: Path, socket_inode: int) -> None:
    """Remove the ending engine's socket and record, unless a later engine has replaced them."""
    try:
        if socket_path(folder).lstat().st_ino != socket_inode:
            return
    except OSError:
        return
    socket_path(folder).unlink(missing_ok=True)
    (folder / "engine.json").unlink(missing_ok=True)
