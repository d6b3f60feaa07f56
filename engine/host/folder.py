"""Facts of a target folder: filesystem, free space, and whether O_DIRECT works."""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import tempfile
from pathlib import Path

from kvdeck.engine.host.facts import FolderFacts

_ALIGNMENTS = (512, 4096, 65536)


def folder_facts(folder: Path) -> FolderFacts:
    """Return a folder's facts; writes up to 64 KiB to a temporary file in it. An unusable folder doesn't raise."""
    path = Path(os.path.realpath(folder))
    mount, filesystem, device = mount_of(path)
    free = 0
    with contextlib.suppress(OSError):
        status = os.statvfs(path)
        free = status.f_bavail * status.f_frsize
    try:
        alignment, reason = _direct_alignment(path), None
    except OSError as error:
        alignment, reason = None, (error.strerror or str(error)).lower()
    return FolderFacts(
        path=str(path),
        filesystem=filesystem,
        mount=mount,
        device=device,
        free_bytes=free,
        writable=reason is None,
        direct_alignment=alignment,
        reason=reason,
    )


def mount_of(path: Path, mountinfo: Path = Path("/proc/self/mountinfo")) -> tuple[str, str, str]:
    """Return mount point, filesystem type and device of an absolute path, from the kernel's mount table.

    Type and device are `unknown` if the table can't be read.
    """
    best = ("/", "unknown", "unknown")
    try:
        lines = mountinfo.read_text(errors="replace").splitlines()
    except OSError:
        return best
    for line in lines:
        left, _, right = line.partition(" - ")
        mount = _unescaped(left.split()[4])
        kind, device = right.split()[:2]
        # A later mount on the same mount point covers the earlier one.
        if path.is_relative_to(mount) and len(mount) >= len(best[0]):
            best = (mount, kind, _unescaped(device))
    return best


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _direct_alignment(folder: Path) -> int | None:
    """Return the smallest O_DIRECT write in bytes that works in the folder; None if none does.

    Raises:
        OSError: No file can be created or written in the folder.
    """
    descriptor, name = tempfile.mkstemp(prefix=".kvdeck-probe-", dir=folder)
    try:
        os.write(descriptor, b"kvdeck")
        try:
            direct = os.open(name, os.O_RDWR | os.O_DIRECT)
        except OSError:
            return None
        try:
            return next((size for size in _ALIGNMENTS if _takes(direct, size)), None)
        finally:
            os.close(direct)
    finally:
        os.close(descriptor)
        Path(name).unlink()


def _takes(descriptor: int, size: int) -> bool:
    with mmap.mmap(-1, _ALIGNMENTS[-1]) as page:
        try:
            return os.pwrite(descriptor, memoryview(page)[:size], 0) == size
        except OSError:
            return False
