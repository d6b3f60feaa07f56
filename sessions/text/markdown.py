"""One Markdown table for all that is shared as text; foreign text can neither leave its cell nor become a link."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from kvdeck.sessions.host.escapes import visible

_SPECIAL = re.compile(r"([\\`|<\[*])")


def inline(text: str) -> str:
    """Foreign text within a line of Markdown."""
    return _SPECIAL.sub(r"\\\1", visible(text.strip()))


def table(titles: Sequence[str], rows: Iterable[Sequence[str]], right: int = 0) -> list[str]:
    """A table's lines, padded so that they read as text too.

    Args:
        titles: One for each column.
        rows: A cell for each column.
        right: Columns at the end that hold numbers.
    """
    lines = [tuple(map(inline, row)) for row in (titles, *rows)]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    first_right = len(titles) - right
    rule = "|".join("-" * (width + 1) + ("-" if place < first_right else ":") for place, width in enumerate(widths))
    head, *body = ("| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines)
    return [head, f"|{rule}|", *body]
