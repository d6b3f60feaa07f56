"""Rates over time in braille: two time steps a column, four levels a row."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, log2

_LEFT, _RIGHT = (0x40, 0x04, 0x02, 0x01), (0x80, 0x20, 0x10, 0x08)
"""Dots of a cell's two columns, from the bottom."""
_BLANK = 0x2800


def scale(top: float) -> float:
    """Return the power of the root of 2 at or above a rate: in steps, so that a growing rate is seldom drawn anew."""
    return 2.0 ** (ceil(2 * log2(top)) / 2) if top > 0 else 1.0


def most(values: Sequence[float | None]) -> float | None:
    """Return the largest rate that is known; None without any."""
    return max((value for value in values if value is not None), default=None)


def spark(values: Sequence[float | None]) -> str:
    """Return one row of braille, two values a column: a dot at least where a rate is known, a space where none is."""
    return area(values, scale(most(values) or 0.0), 1)[0]


def area(values: Sequence[float | None], top: float, height: int, *, hangs: bool = False) -> list[str]:
    """Return `height` rows of braille filled up to each value.

    Args:
        values: Two for each column, in time order.
        top: Value that fills all rows.
        hangs: Fill from the upper edge down.
    """
    full = 4 * height
    dots = [0 if value is None else max(1, min(full, round(value / top * full))) for value in values]
    rows = []
    for row in range(height):
        below = 4 * (row if hangs else height - 1 - row)
        filled = [max(0, min(4, dot - below)) for dot in dots]
        rows.append(
            "".join(
                chr(_BLANK + bits) if bits else " "
                for bits in (
                    _bits(_LEFT, filled[place], hangs) | _bits(_RIGHT, filled[place + 1], hangs)
                    for place in range(0, len(filled) - 1, 2)
                )
            )
        )
    return rows


def _bits(column: tuple[int, ...], count: int, hangs: bool) -> int:
    return sum(column[4 - count :] if hangs else column[:count])
