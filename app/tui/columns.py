"""Text by the columns that it takes at a terminal, counted as Textual counts them: by graphemes, not characters."""

from __future__ import annotations

from functools import lru_cache
from typing import TypeVar

from rich.cells import split_graphemes

Look = TypeVar("Look")


@lru_cache(maxsize=4096)
def columns(text: str) -> tuple[str, tuple[str, ...]]:
    """Return what joins the column before the text, and the text of each of its columns.

    The right half of a wide character is an empty text. What joins the column before are marks at the start.
    """
    if text.isascii():
        return "", tuple(text)
    joins = ""
    found: list[str] = []
    for start, end, width in split_graphemes(text)[0]:
        if width:
            found += [text[start:end], *[""] * (width - 1)]
        else:  # only a first one has no width: later marks belong to the grapheme before them
            joins = text[start:end]
    return joins, tuple(found)


def join(cells: list[tuple[str, Look]], marks: str) -> None:
    """Add marks to the last character of a row's cells; a row's start has none that they could join."""
    place = next((i for i in range(len(cells) - 1, -1, -1) if cells[i][0]), None)
    if marks and place is not None:
        cells[place] = (cells[place][0] + marks, cells[place][1])
