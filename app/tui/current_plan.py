"""The Plan screen's current plan, as other modes use it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

KEPT = "plan"
"""Key of the plan in the deck's UI state."""


@dataclass(frozen=True, slots=True)
class Planned:
    """The values of the plan that other screens use."""

    title: str
    """Model and parallelism, short."""
    block_bytes: int
    """Bytes of one block over all ranks of a replica, as an engine's block manager counts it."""


@dataclass(frozen=True, slots=True)
class BlockChoice:
    """A plan's path, layouts and block for the Run form; `batch` and `blocks` are None if the worker sizes them."""

    path: str
    layouts: frozenset[str]
    layers: int
    outer_dims: int
    page_size: int
    inner_dim: int
    dtype: str
    batch: int | None
    """Blocks of one request."""
    blocks: int | None
    """Blocks of all requests: the working set."""


def planned(memory: Mapping[str, Any]) -> Planned | None:
    """Return the stored plan; None if there is none, its blocks have several sizes, or the entry is invalid (the UI
    state is a file that anyone may edit)."""
    kept = memory.get(KEPT)
    figures = kept.get("figures") if isinstance(kept, Mapping) else None
    if not isinstance(figures, Mapping):
        return None
    size = figures.get("block_bytes")
    if not isinstance(size, int) or isinstance(size, bool) or size <= 0:
        return None
    return Planned(str(figures.get("title")), size)
