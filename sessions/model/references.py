"""References for a step's rate: a limit of which it reaches a part, or other means to compare it with."""

from __future__ import annotations

from kvdeck.sessions.units import UNKNOWN, percent_text, ratio_text

LIMIT_FROM = 256 << 10
"""Block size in bytes from which memcpy is a limit. Below, call overhead counts, and many small requests in flight
exceed memcpy."""


def reference_of(path: str) -> str:
    """Return the plain means that moves a path's bytes as reference."""
    if path == "HostToHost":
        return "memcpy"
    if "Disk" in path:
        return "pwrite" if path.endswith("ToDisk") else "pread"
    return "cudaMemcpy"


def is_limit(reference: str | None, block_bytes: int, ratio: float) -> bool:
    """True if the reference is an upper limit for the same bytes on that path.

    memcpy occupies a core with the copy alone. pread, pwrite and cudaMemcpy calls are made one at a time, each awaited:
    means with several operations in flight exceed them, so they are a comparison, not a limit. A reference that was
    exceeded (`ratio` above 1) is no limit either.
    """
    return reference == "memcpy" and block_bytes >= LIMIT_FROM and ratio <= 1


def against_text(ratio: float | None, limit: bool | None) -> str:
    """Format a ratio to a reference without its name: `64 %` of a limit, `1.60×` of anything else; `–` for None."""
    return UNKNOWN if ratio is None else percent_text(ratio) if limit else ratio_text(ratio)


def reference_text(ratio: float | None, reference: str | None, limit: bool | None) -> str:
    """Format a ratio to a reference: `64 % memcpy` (a limit) or `1.60× pread` (no limit); `–` for None."""
    if ratio is None or reference is None:
        return UNKNOWN
    return f"{against_text(ratio, limit)} {reference}"
