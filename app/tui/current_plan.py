"""The Plan screen's plan as the deck keeps it, for screens that turn counts of blocks into bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

KEPT = "plan"
"""What it is kept under in the deck's memory."""


@dataclass(frozen=True, slots=True)
class Planned:
    """What another screen may want of the plan."""

    title: str
    """Model and parallelism, in a few words."""
    block_bytes: int
    """One block over all ranks of a replica, as an engine's block manager counts it."""


def planned(memory: Mapping[str, Any]) -> Planned | None:
    """The plan that is kept; None where there is none, its blocks have several sizes, or it is no plan (a memory is a
    file that anyone may edit)."""
    kept = memory.get(KEPT)
    figures = kept.get("figures") if isinstance(kept, Mapping) else None
    if not isinstance(figures, Mapping):
        return None
    size = figures.get("block_bytes")
    if not isinstance(size, int) or isinstance(size, bool) or size <= 0:
        return None
    return Planned(str(figures.get("title")), size)
