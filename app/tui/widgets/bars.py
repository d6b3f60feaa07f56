"""Ratio bars around 1, and histograms and curves in braille."""

from __future__ import annotations

import math
from collections.abc import Sequence

from kvdeck.app.tui.widgets.charts import Canvas, ceiling
from kvdeck.app.tui.widgets.lines import Row, cell
from kvdeck.sessions.units import number_text, percent_text, size_text, time_text

OCTAVES = 2.0
"""Range of a bar each way, in octaves: from a quarter of the time to four times it; beyond, an arrow."""
_LEFT = 7
Line = tuple[str, Sequence[tuple[float, float]]]
"""A style, and (x, y) points."""


def ratio_bar(ratio: float | None, low: float | None, high: float | None, width: int) -> str:
    """Return a bar: `━` over the interval, `●` at the ratio, `│` at 1, on a logarithmic scale; blank without a
    ratio."""
    if ratio is None or ratio <= 0:
        return " " * width
    cells = [" "] * width
    middle = _column(1.0, width)
    cells[middle] = "│"
    if low and high:
        for column in range(_column(low, width), _column(high, width) + 1):
            cells[column] = "┿" if column == middle else "━"
    else:
        for column in range(min(middle, _column(ratio, width)), max(middle, _column(ratio, width)) + 1):
            cells[column] = "┼" if column == middle else "╌"
    beyond = abs(math.log2(ratio)) > OCTAVES
    cells[_column(ratio, width)] = ("▸" if ratio > 1 else "◂") if beyond else "●"
    return "".join(cells)


def _column(ratio: float, width: int) -> int:
    place = (math.log2(ratio) / OCTAVES + 1) / 2
    return max(0, min(width - 1, round(place * (width - 1))))


def spread_rows(lines: Sequence[Line], width: int, height: int) -> list[Row]:
    """Return histograms over each other: time on the x axis (logarithmic), share of the requests on the y axis.

    Args:
        lines: For each, a style, and lower edges in s with counts.
    """
    shares = [(style, _shares(points)) for style, points in lines]
    edges = [edge for _, points in shares for edge, _ in points if edge > 0]
    if not edges or width < 24 or height < 3:
        return [(cell(" no times to draw", width, "dim"),)] if not edges else []
    least, most = math.log2(min(edges)), math.log2(max(edges)) + 1 / 16
    top = max(share for _, points in shares for _, share in points)
    canvas = Canvas(width - _LEFT, height - 1)
    wide, high = canvas.width * 2 - 1, canvas.height * 4 - 1
    for style, points in shares:
        dots = [
            (round((math.log2(edge) - least) / (most - least) * wide), round(share / top * high))
            for edge, share in points
            if edge > 0
        ]
        for (x0, y0), (x1, y1) in zip(dots, dots[1:] or dots, strict=False):
            canvas.line((x0, y0), (x1, y1), style)
    rows = [
        (cell(f"{percent_text(top)} " if y == 0 else "", _LEFT, "dim", right=True), *canvas.row(y))
        for y in range(height - 1)
    ]
    left, right = time_text(2**least * 1e6), time_text(2**most * 1e6)
    return [*rows, _axis(left, right, width)]


def _shares(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the counts as shares of their sum, in bins of 1/8 octave, empty bins included."""
    counts: dict[int, float] = {}
    for edge, count in points:
        if edge > 0:
            place = math.floor(math.log2(edge) * 8)
            counts[place] = counts.get(place, 0) + count
    total = sum(counts.values())
    if not total:
        return []
    return [(2 ** (place / 8), counts.get(place, 0) / total) for place in range(min(counts) - 1, max(counts) + 2)]


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
