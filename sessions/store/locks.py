"""One at a time: what reads a file, changes it and writes it back, in several processes at once."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
"""What a file system without locks says."""


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Wait until no other process is in here for this folder, which keeps an empty `.lock`.

    A file and not the folder itself, because over NFS only what is open for writing can be locked. A file system
    without locks lets everybody in: there two changes in the same instant can lose one of the two.

    Raises:
        OSError: The folder can't be written.
    """
    fd = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        yield
    finally:
        os.close(fd)
