"""Safe opening of files from untrusted folders (never blocks, regular files only, limited size), and atomic writes.

A name in a shared folder, or one typed by an operator, may be a FIFO, a device, a link, a folder, or endless.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

MAX_DOCUMENT = 16 << 20
"""Maximum bytes of a document written by a person or for one: a spec, a model, a configuration."""
MAX_RECORD = 256 << 20
"""Maximum bytes of a file written by kvdeck or by a program it counts in."""
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISLNK, "a link"),
)


_NO_ROOM = {
    errno.ENOSPC: ("the disk is full", "free disk space"),
    errno.EDQUOT: ("the disk quota is used up", "free disk space"),
    errno.EFBIG: (
        "the file size limit is reached",
        "run `ulimit -f unlimited` where the engine is started",
    ),
}


def no_room(error: OSError) -> tuple[str, str] | None:
    """Return (what is wrong, fix) if a file can't grow; None for any other error."""
    return _NO_ROOM.get(error.errno or 0)


class NotRegular(OSError):
    """The file exists but is not a regular file, or may not be read here; `strerror` gives the reason."""


def open_regular(path: str | os.PathLike[str], *, shared: bool = False) -> BinaryIO:
    """Open a regular file for reading.

    Args:
        path: The file.
        shared: Other users may create files in its folder: links are not followed, and the file must belong to this
            user or root.

    Raises:
        NotRegular: It is not a regular file, or belongs to another user.
        OSError: It doesn't exist or can't be opened.
    """
    # O_NONBLOCK: a FIFO without a writer would block. O_NOCTTY: a terminal must not become the controlling one.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY | (os.O_NOFOLLOW if shared else 0)
    try:
        fd = os.open(path, flags)
    except ValueError as error:  # a NUL in the name
        raise FileNotFoundError(errno.ENOENT, "it does not exist", os.fspath(path)) from error
    except OSError as error:
        if error.errno == errno.ELOOP and shared:
            raise _refused(path, "is a link") from error
        if error.errno == errno.ENXIO:
            raise _refused(path, "is a socket or a device, not a regular file") from error
        raise
    try:
        # On the open file: the name may be exchanged between a check by name and the opening.
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            kind = next((name for is_kind, name in _KINDS if is_kind(status.st_mode)), "of another type")
            raise _refused(path, f"is {kind}, not a regular file")
        if shared and status.st_uid not in (0, os.geteuid()):
            raise _refused(path, f"belongs to user {status.st_uid}")
        return open(fd, "rb")
    except BaseException:
        os.close(fd)
        raise


def read_regular(path: str | os.PathLike[str], limit: int = MAX_DOCUMENT, *, shared: bool = False) -> bytes:
    """Return the bytes of a regular file.

    Args:
        path: The file.
        limit: Maximum size in bytes.
        shared: As for `open_regular`.

    Raises:
        NotRegular: It is not a regular file, belongs to another user, or is longer than `limit`.
        OSError: It doesn't exist or can't be read.
    """
    with open_regular(path, shared=shared) as file:
        # The size in `fstat` isn't enough: the file may grow meanwhile, and files in /proc have none.
        data = file.read(limit + 1)
    if len(data) > limit:
        raise _refused(path, f"is longer than {limit >> 20} MiB" if limit >> 20 else f"is longer than {limit} bytes")
    return data


def read_text(path: str | os.PathLike[str], limit: int = MAX_DOCUMENT, *, shared: bool = False) -> str:
    """Return the text of a regular UTF-8 file; raises as `read_regular`, and UnicodeDecodeError."""
    return read_regular(path, limit, shared=shared).decode()


def replace_file(path: Path, data: bytes | Iterable[bytes], *, mode: int = 0o600, durable: bool = False) -> None:
    """Replace a file atomically: readers see the whole old or the whole new content.

    Args:
        path: The file.
        data: Its new content, whole or in pieces.
        mode: Of the new file, before the umask.
        durable: Also after a crash of the host: the file and its folder are fsynced.

    Raises:
        OSError: It can't be written; the old file remains. The same holds for what `data` raises.
    """
    # Other users may write in that folder: an unguessable name, and never through a link.
    fresh = path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(8).hex()}")
    try:
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        with open(fd, "wb") as file:
            for piece in (data,) if isinstance(data, bytes) else data:
                file.write(piece)
            if durable:
                file.flush()
                os.fsync(fd)
        fresh.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise
    if durable:
        # The new name is part of the folder, which has to reach the disk too.
        _sync_folder(path.parent)


def write_output(path: Path, data: bytes | Iterable[bytes], *, mode: int = 0o600, durable: bool = False) -> None:
    """Write a file that a person names as output: a regular file is replaced, a device or pipe is written to.

    Root could otherwise replace /dev/null, which every program of the host needs.

    Args:
        path: The file.
        data: What to write, whole or in pieces.
        mode: As for `replace_file`; likewise `durable`.

    Raises:
        OSError: It can't be written: also for a pipe without a reader, a socket, or a block device.
    """
    try:
        kind = path.stat().st_mode
    except OSError:
        kind = stat.S_IFREG
    if stat.S_ISREG(kind):
        replace_file(path, data, mode=mode, durable=durable)
        return
    if not (stat.S_ISCHR(kind) or stat.S_ISFIFO(kind)):
        raise OSError(errno.EINVAL, "it isn't a regular file", str(path))
    # Without O_NONBLOCK, opening a pipe without a reader would block.
    fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    os.set_blocking(fd, True)
    with open(fd, "wb") as file:
        for piece in (data,) if isinstance(data, bytes) else data:
            file.write(piece)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def is_regular(path: Path) -> bool:
    """True if the path is a regular file, through links; False for an invalid name."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """True if the path is a folder, through links; False for an invalid name."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def _refused(path: str | os.PathLike[str], why: str) -> NotRegular:
    return NotRegular(errno.EINVAL, why, os.fspath(path))
