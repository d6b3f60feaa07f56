"""Locks between processes, on open files; a process that ends gives its locks back."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
"""Error numbers of file systems without locks."""

Lock = Literal["held", "busy", "unsupported"]
"""`busy`: another process has it. `unsupported`: the file system has no locks."""


def lock(fd: int, *, shared: bool = False, wait: bool = False) -> Lock:
    """Lock an open file until it is closed.

    Args:
        fd: Descriptor of the file; NFS can lock only files open for writing.
        shared: Others may hold shared locks too.
        wait: Wait while another process has it.

    Raises:
        OSError: It can't be locked, on a file system that has locks.
    """
    try:
        # Not `lockf`: its locks go when the process closes any descriptor of that file.
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return "busy"
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return "unsupported"
    return "held"


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold an exclusive lock on the folder; waits for other processes. Uses an empty file `.lock` in it.

    On a file system without locks there is no exclusion: one of two simultaneous changes can be lost.

    Raises:
        OSError: The folder is not writable.
    """
    # A file, since NFS doesn't lock a folder; it stays, since removing it would free a lock that is held.
    fd = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        lock(fd, wait=True)
        yield
    finally:
        os.close(fd)
