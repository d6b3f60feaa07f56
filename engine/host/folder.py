"""The folder for test files: its filesystem, free space, whether O_DIRECT works, and the default one."""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import tempfile
from pathlib import Path

from kvdeck.engine.host.facts import MEMORY_FILESYSTEMS, FolderFacts
from kvdeck.sessions.errors import UnavailableError

_ALIGNMENTS = (512, 4096, 65536)


def folder_facts(folder: Path) -> FolderFacts:
    """Return a folder's facts; writes up to 64 KiB to a temporary file in it. An unusable folder doesn't raise."""
    # The link itself may be on another mount than the disk behind it.
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


def default_folder() -> Path:
    """Return the default folder for test files: `$KVDECK_SCRATCH`, else the first writable folder.

    Candidates are the temp dir, /var/tmp and the home folder; those on a disk come before those in memory.

    Raises:
        UnavailableError: `$KVDECK_SCRATCH`, or every candidate, isn't writable.
    """
    chosen = os.environ.get("KVDECK_SCRATCH")
    if chosen:
        return _writable(Path(chosen), "set KVDECK_SCRATCH to a folder you may write to")
    candidates = [Path(tempfile.gettempdir()), Path("/var/tmp"), Path.home()]
    on_disk = [folder for folder in candidates if not _in_memory(folder)]
    for folder in (*on_disk, *candidates):
        if folder_facts(folder).writable:
            return folder
    names = ", ".join(str(folder) for folder in candidates)
    raise UnavailableError(f"can't write a test file in {names}", "give a folder with --folder or KVDECK_SCRATCH")


def _in_memory(folder: Path) -> bool:
    return mount_of(Path(os.path.realpath(folder)))[1] in MEMORY_FILESYSTEMS


def _writable(folder: Path, fix: str) -> Path:
    facts = folder_facts(folder)
    if not facts.writable:
        raise UnavailableError(f"can't write a test file in {folder}: {facts.reason}", fix)
    return folder


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
            # Tested, not looked up: tmpfs, overlays and FUSE differ by kernel version and mount option.
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
