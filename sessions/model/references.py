"""What a step's rate is set against: a limit, of which it reaches a part, or other means that it is compared with."""

from __future__ import annotations

from kvdeck.sessions.units import UNKNOWN, percent_text, ratio_text

LIMIT_FROM = 256 << 10
"""Bytes of a block from which memcpy is a limit: below, the calls' own time counts, and many small requests in flight
overtake it."""


def reference_of(path: str) -> str:
    """The plain means that move a path's bytes beside it."""
    if path == "HostToHost":
        return "memcpy"
    if "Disk" in path:
        return "pwrite" if path.endswith("ToDisk") else "pread"
    return "cudaMemcpy"


def is_limit(reference: str | None, block_bytes: int, ratio: float) -> bool:
    """Whether a reference is what the same bytes can't well exceed by that path.

    memcpy keeps a core busy with nothing but the copy. pread, pwrite and cudaMemcpy are called one after the other,
    each waited for: means with several operations in flight exceed them, so they are a comparison. And what was
    exceeded was no limit.
    """
    return reference == "memcpy" and block_bytes >= LIMIT_FROM and ratio <= 1


def against_text(ratio: float | None, limit: bool | None) -> str:
    """A ratio to a reference without its name: `64 %` of a limit, `1.60×` of anything else; `–` for null."""
    return UNKNOWN if ratio is None else percent_text(ratio) if limit else ratio_text(ratio)


def reference_text(ratio: float | None, reference: str | None, limit: bool | None) -> str:
    """A ratio to a reference: `64 % memcpy`, which is a limit, or `1.60× pread`, which is none; `–` for null."""
    if ratio is None or reference is None:
        return UNKNOWN
    return f"{against_text(ratio, limit)} {reference}"
