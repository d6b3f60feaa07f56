"""Curves in braille."""

from __future__ import annotations

import math
from collections.abc import Sequence

from kvdeck.app.tui.widgets.charts import Canvas, ceiling
from kvdeck.app.tui.widgets.lines import Row, cell
from kvdeck.sessions.units import number_text, size_text

_LEFT = 7
Line = tuple[str, Sequence[tuple[float, float]]]
"""A style, and (x, y) points."""


def curve_rows(lines: Sequence[Line], width: int, height: int) -> list[Row]:
    """Return curves of GB/s by block size (logarithmic); empty for fewer than two sizes or too little room.

    Args:
        lines: For each, a style, and sizes in bytes with GB/s.
    """
    points = [point for _, line in lines for point in line]
    if len({size for size, _ in points}) < 2 or width < 24 or height < 3:
        return []
    least, most = math.log2(min(size for size, _ in points)), math.log2(max(size for size, _ in points))
    top = ceiling(max(rate for _, rate in points))
    canvas = Canvas(width - _LEFT, height - 1)
    wide, high = canvas.width * 2 - 1, canvas.height * 4 - 1
    for style, line in lines:
        dots = [(round((math.log2(x) - least) / (most - least) * wide), round(y / top * high)) for x, y in sorted(line)]
        for start, end in zip(dots, dots[1:] or dots, strict=False):
            canvas.line(start, end, style)
    labels = {0: number_text(top), height - 2: "0"}
    rows = [(cell(f"{labels.get(y, '')} ", _LEFT, "dim", right=True), *canvas.row(y)) for y in range(height - 1)]
    return [*rows, _axis(size_text(round(2**least)), size_text(round(2**most)), width)]


def _axis(left: str, right: str, width: int) -> Row:
    return (cell(" " * _LEFT + left, width - len(right), "dim"), (right, "dim"))
