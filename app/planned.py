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

    model: str
    """A catalogue name, or the path of the model's file."""
    block_bytes: int
    """One block on one rank, of the stage with the most bytes; full attention's where there are several kinds."""
    token_bytes: int
    """One token in the whole model, nothing replicated."""
    page_size: int
    """Tokens in a block."""


def planned(memory: Mapping[str, Any]) -> Planned | None:
    """The plan that is kept; None where there is none, or it is no plan (a memory is a file that anyone may edit)."""
    kept = memory.get(KEPT)
    figures = kept.get("figures") if isinstance(kept, Mapping) else None
    if not isinstance(kept, Mapping) or not isinstance(figures, Mapping):
        return None
    names = ("block_bytes", "token_bytes", "page_size")
    numbers = [figures.get(name) for name in names]
    if not all(isinstance(number, int) and not isinstance(number, bool) and number > 0 for number in numbers):
        return None
    return Planned(str(kept.get("model")), **{name: int(figures[name]) for name in names})
