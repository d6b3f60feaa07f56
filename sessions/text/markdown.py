"""Markdown tables; foreign text is escaped, so that it can neither leave its cell nor become a link."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from kvdeck.sessions.host.escapes import visible

_SPECIAL = re.compile(r"([\\`|<\[*])")


def inline(text: str) -> str:
    """Escape foreign text for a line of Markdown."""
    return _SPECIAL.sub(r"\\\1", visible(text.strip()))


def table(titles: Sequence[str], rows: Iterable[Sequence[str]], right: int = 0) -> list[str]:
    """Return a table's lines, padded so that the source is readable too.

    Args:
        titles: One title per column.
        rows: One cell per column in each row.
        right: Number of columns at the end that are aligned right.
    """
    lines = [tuple(map(inline, row)) for row in (titles, *rows)]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    first_right = len(titles) - right
    rule = "|".join("-" * (width + 1) + ("-" if place < first_right else ":") for place, width in enumerate(widths))
    head, *body = ("| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines)
    return [head, f"|{rule}|", *body]
