"""Plain-text tables that drop their least important columns to fit a width."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

NO_BREAK = "\u00a0"


@dataclass(frozen=True, slots=True)
class TextColumn:
    """A table column: two header lines and one cell per row."""

    over: str
    head: str
    cells: tuple[str, ...]
    left: bool = False
    rank: int = 0
    """0: never dropped; of the others, the highest is dropped first."""

    width: int = field(init=False)
    """Characters of the column's widest text."""

    def __post_init__(self) -> None:
        widest = max(len(self.over), len(self.head), max(map(len, self.cells), default=0))
        object.__setattr__(self, "width", widest)


def fit(columns: Iterable[TextColumn], width: int) -> tuple[list[TextColumn], list[TextColumn]]:
    """Return the columns that fit into `width` characters, and the dropped ones.

    Columns of rank 0 are never dropped, so the result may still be too wide.
    """
    kept, dropped = list(columns), list[TextColumn]()
    needed = table_width(kept, 1)
    while needed > width and any(column.rank for column in kept):
        least = max(kept, key=lambda column: column.rank)
        kept.remove(least)
        needed -= least.width + 1
        dropped.append(least)
    return kept, dropped


def table_width(columns: Sequence[TextColumn], gap: int = 2) -> int:
    """Return a table's width in characters, with `gap` spaces before each column."""
    return sum(column.width + gap for column in columns)


def render(columns: Sequence[TextColumn], width: int = 80) -> list[str]:
    """Return the header lines (the upper one only if it isn't empty) and one line per row.

    The gap between columns is 2 spaces, or 1 if the table is wider than `width`.
    """
    gap = " " if table_width(columns) > width else "  "
    heads = [tuple(column.over for column in columns)] if any(column.over for column in columns) else []
    heads.append(tuple(column.head for column in columns))
    rows = zip(*(column.cells for column in columns), strict=True)
    shapes = [(column.left, column.width) for column in columns]
    return [_line(shapes, texts, gap) for texts in (*heads, *rows)]


def _line(shapes: Sequence[tuple[bool, int]], texts: Sequence[str], gap: str) -> str:
    cells = (
        text.ljust(width) if left else text.rjust(width) for (left, width), text in zip(shapes, texts, strict=True)
    )
    return (gap + gap.join(cells)).rstrip()


def joined(parts: Iterable[str], width: int, indent: str = "") -> list[str]:
    """Join the parts by ` · ` into lines of at most `width`, broken between parts if possible."""
    lines, line = [], indent
    for part in parts:
        longer = f"{line} · {part}" if line != indent else f"{indent}{part}"
        if len(longer) > width and line != indent:
            lines.append(line)
            longer = f"{indent}{part}"
        line = longer
    lines.append(line)
    return [piece for line in lines for piece in wrapped(line, width, indent)]


def wrapped(text: str, width: int, indent: str = "") -> list[str]:
    """Wrap text at plain spaces but not at no-break spaces; lines after the first start with `indent`.

    The width is 20 at least. No-break spaces become plain ones in the result.
    """
    words = text.lstrip(" ")
    lines = textwrap.wrap(
        words,
        max(width, 20),
        initial_indent=text[: len(text) - len(words)],
        subsequent_indent=indent,
        break_on_hyphens=False,
    )
    return [line.replace(NO_BREAK, " ") for line in lines] or [""]
