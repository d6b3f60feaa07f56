"""Preflight: compare a run's needs with this host's resources before anything is allocated."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from kvdeck.engine.host.facts import MEMORY_FILESYSTEMS, FolderFacts, HostFacts
from kvdeck.engine.host.folder import folder_facts, mount_of
from kvdeck.sessions.errors import UnavailableError
from kvdeck.sessions.units import count_text, many, size_text

_SPARE = 0.9
"""Share of the available memory or disk that a run may use; the rest is left to the host."""
_OWN_FILES = 64
"""File descriptors used by Python, NIXL and the engine's channels, in addition to a run's files."""


@dataclass(frozen=True, slots=True)
class Part:
    """`count` buffers, or files, of `bytes` each."""

    count: int
    bytes: int

    @property
    def total(self) -> int:
        return self.count * self.bytes


@dataclass(frozen=True, slots=True)
class Needs:
    """Peak resource needs of one run."""

    host: tuple[Part, ...] = ()
    """Host memory, one part per kind of buffer."""
    device: tuple[Part, ...] = ()
    """GPU memory, all on `device_index`."""
    disk: tuple[Part, ...] = ()
    device_index: int = 0
    blocks: int | None = None
    """Blocks in the working set, from which the suggested `--blocks` is computed."""
    open_files: int = 0
    locked_bytes: int = 0
    """Locked memory: registered with a NIC, or pinned without CUDA."""
    aio_slots: int = 0
    """Kernel AIO events: `kernel_queue_size`, summed over all initiators."""
    request_descriptors: int = 0
    """Descriptors that one initiator has in flight: those of its largest request times its pipeline depth."""
    request_limit: int | None = None
    """Limit of descriptors in flight per initiator: the POSIX plugin refuses more than its `ios_pool_size`."""


def check_room(needs: Needs, host: HostFacts) -> None:
    """Return if the run fits this host.

    Raises:
        UnavailableError: It doesn't fit; one line with the need, the available amount, and the fix.
    """
    _fits(needs.host, host.memory_available_bytes, "memory", needs.blocks)
    if needs.device:
        gpu = next((gpu for gpu in host.gpu.gpus if gpu.index == needs.device_index), None)
        if gpu is not None and gpu.memory_bytes > 0:
            _fits(needs.device, gpu.memory_free_bytes, f"memory on GPU {gpu.index}", needs.blocks)
    if needs.disk and host.folder is not None:
        _fits_disk(needs, host, host.folder)
    _fits_limits(needs, host)


def _fits_disk(needs: Needs, host: HostFacts, folder: FolderFacts) -> None:
    _fits(needs.disk, folder.free_bytes, f"disk space in {folder.path}", needs.blocks)
    if folder.in_memory:
        _fits(needs.host + needs.disk, host.memory_available_bytes, f"memory, {folder.path} included", needs.blocks)


def _fits(parts: tuple[Part, ...], available: int, what: str, blocks: int | None) -> None:
    total, allowed = sum(part.total for part in parts), int(available * _SPARE)
    if total <= allowed:
        return
    summands = " + ".join(
        f"{count_text(part.count)} × {size_text(part.bytes)}" if part.count > 1 else size_text(part.bytes)
        for part in parts
    )
    needed = summands if len(parts) == 1 and parts[0].count == 1 else f"{summands} = {size_text(total)}"
    fitting = 0 if blocks is None else blocks * allowed // total
    fix = f"lower --blocks to {fitting}" if fitting else "free some, or lower --blocks or the block size"
    raise UnavailableError(f"needs {needed} of {what}, but {size_text(available)} are available", fix)


def _fits_limits(needs: Needs, host: HostFacts) -> None:
    files = needs.open_files + _OWN_FILES
    if needs.open_files and host.open_files is not None and files > host.open_files:
        raise UnavailableError(
            f"needs {count_text(needs.open_files)} + {_OWN_FILES} = {count_text(files)} open files, but "
            f"{count_text(host.open_files)} are allowed",
            f"lower --files, or: ulimit -n {files}",
        )
    if host.memlock_bytes is not None and needs.locked_bytes > host.memlock_bytes:
        raise UnavailableError(
            f"needs {size_text(needs.locked_bytes)} of locked memory, but {size_text(host.memlock_bytes)} are allowed",
            "raise it: ulimit -l unlimited (in a container: --ulimit memlock=-1), or lower --blocks",
        )
    used = host.aio_used or 0
    if host.aio_max is not None and needs.aio_slots > host.aio_max - used:
        raise UnavailableError(
            f"needs {count_text(needs.aio_slots)} kernel AIO events, but {count_text(host.aio_max - used)} "
            f"of {count_text(host.aio_max)} are free",
            f"use --api URING, or: sudo sysctl fs.aio-max-nr={used + needs.aio_slots}",
        )
    if needs.request_limit is not None and needs.request_descriptors > needs.request_limit:
        raise UnavailableError(
            f"needs {many(needs.request_descriptors, 'descriptor')} in flight, but the plugin takes "
            f"{count_text(needs.request_limit)}",
            f"lower --batch, or raise it: --param ios_pool_size={needs.request_descriptors}",
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
