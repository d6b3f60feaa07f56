"""References for a step's rate: a limit of which it reaches a part, or other means to compare it with."""

from __future__ import annotations

from kvdeck.sessions.units import UNKNOWN, percent_text, ratio_text

MEMCPY, CUDA_MEMCPY, PINNED_CUDA_MEMCPY = "memcpy", "cudaMemcpy", "pinned cudaMemcpy"
MEMCPY_BY_BOTH = "memcpy on 2 cores"
"""memcpy by the initiator's and the target's core together, where that is faster than by one."""
PREAD, PWRITE, IO_SUBMIT = "pread", "pwrite", "io_submit"
PROCESS_VM_READV, PROCESS_VM_WRITEV = "process_vm_readv", "process_vm_writev"
TCP_STREAM = "TCP stream"

LIMIT_FROM = 256 << 10
"""Block size in bytes from which copies that are started one by one are a limit. Below, call overhead counts, and many
small requests in flight exceed them."""
_SAME_UP_TO = 1.05
_ONE_BY_ONE = (MEMCPY, MEMCPY_BY_BOTH, PINNED_CUDA_MEMCPY)
_TOGETHER = (IO_SUBMIT, PROCESS_VM_READV, PROCESS_VM_WRITEV)
"""Means that move all blocks of a request by one or two system calls."""


def reference_of(path: str) -> str:
    """Return the means that moved a path's bytes in versions that don't name it when a step starts."""
    if path == "HostToHost":
        return MEMCPY
    if "Disk" in path:
        return PWRITE if path.endswith("ToDisk") else PREAD
    return CUDA_MEMCPY


def bounds(reference: str | None, block_bytes: int) -> bool:
    """True if the reference can't well be exceeded by a transfer of the same bytes in the same memory.

    pread, pwrite and cudaMemcpy calls from memory that isn't pinned are made one at a time, each awaited: means with
    several operations in flight exceed them, so they are a comparison.
    """
    return reference in _TOGETHER or (reference in _ONE_BY_ONE and block_bytes >= LIMIT_FROM)


def is_limit(reference: str | None, block_bytes: int, ratio: float) -> bool:
    """True if the reference is an upper limit for the same bytes on that path: one that was exceeded is none."""
    return bounds(reference, block_bytes) and ratio <= 1


def exceeded_text(reference: str | None, block_bytes: int, ratio: float | None) -> str:
    """Return what is to be said of a limit that a transfer exceeded; empty if it didn't."""
    if ratio is None or ratio <= 1 or not bounds(reference, block_bytes):
        return ""
    if ratio <= _SAME_UP_TO:
        return f"{ratio_text(ratio)} {reference}: at the limit, within what these rates can show"
    return f"{ratio_text(ratio)} {reference}: the limit is wrong here, since the transfer was faster"


def against_text(ratio: float | None, limit: bool | None) -> str:
    """Format a ratio to a reference without its name: `64 %` of a limit, `1.60×` of anything else; `–` for None."""
    return UNKNOWN if ratio is None else percent_text(ratio) if limit else ratio_text(ratio)


def reference_text(ratio: float | None, reference: str | None, limit: bool | None) -> str:
    """Format a ratio to a reference: `64 % memcpy` (a limit) or `1.60× pread` (no limit); `–` for None."""
    if ratio is None or reference is None:
        return UNKNOWN
    return f"{against_text(ratio, limit)} {reference}"
