"""What the forms of Plan and Run share: a field, its limits, and the layouts offered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kvdeck.engine.planning.layout import FULLY_CONTIGUOUS, LAYER_SEPARATE, LAYER_SEPARATE_OUTER
from kvdeck.sessions.units import count_text

LAYOUTS = tuple(str(layout) for layout in (FULLY_CONTIGUOUS, LAYER_SEPARATE, LAYER_SEPARATE_OUTER))
MAX_NUMBER = 1 << 40

Kind = Literal["toggle", "choice", "number", "text"]


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a form."""

    key: str
    label: str
    kind: Kind
    hint: str
    options: tuple[str, ...] = ()
    optional: bool = False
    """A number that may be left to the worker (auto)."""
    size: bool = False
    """A number of bytes, which may be typed as 64K."""


def not_taken(item: Field, text: str, least: int) -> str:
    """Return that a typed number isn't taken, and what is."""
    return (
        f"{item.label}: {text} is not a whole number from {least} to {count_text(MAX_NUMBER)} · Esc leaves it as it was"
    )
