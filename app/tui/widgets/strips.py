"""Request times as strips of dots with a box, and as curves of the share of requests done within a time."""

from __future__ import annotations

import math
from collections.abc import Sequence

from kvdeck.app.tui.widgets.cells import Cells
from kvdeck.app.tui.widgets.charts import Canvas
from kvdeck.app.tui.widgets.lines import Row, cell
from kvdeck.sessions.units import time_text

LEFT = 6
Histogram = Sequence[tuple[float, float]]
"""Lower edges of bins of 1/16 octave in s, with their counts."""
Line = tuple[str, str, Histogram]
"""A name, a style and the request times."""
_DENSITY = ((0.6, "█"), (0.3, "▓"), (0.15, "⁘"), (0.05, "∷"), (0.0, "∙"))
_FEW = " ∙∷⁘"
_BIN = 2 ** (1 / 16)


class LogScale:
    """Columns of a logarithmic axis over all times of some lines."""

    def __init__(self, lines: Sequence[Line], width: int) -> None:
        edges = _edges(lines)
        self.width = width
        self.least, self.most = (min(edges), max(edges) * _BIN) if edges else (1.0, _BIN)

    def column(self, seconds: float) -> int:
        """Return the column of a time, clipped to the axis."""
        place = math.log(max(seconds, self.least) / self.least) / math.log(self.most / self.least)
        return min(self.width - 1, int(place * self.width))

    def axis(self) -> Row:
        """Return the times at the ends and in the middle."""
        cells = Cells(LEFT + self.width)
        middle = math.sqrt(self.least * self.most)
        cells.put(LEFT, time_text(self.least * 1e6), "dim")
        cells.middle(LEFT + self.width // 2, time_text(middle * 1e6), "dim")
        cells.right(LEFT + self.width, time_text(self.most * 1e6), "dim")
        return cells.row()


def _edges(lines: Sequence[Line]) -> list[float]:
    """Return the edges of the bins that hold requests; a logarithmic axis has no place for a time of 0."""
    return [edge for _, _, points in lines for edge, count in points if edge > 0 and count > 0]


def quantile(points: Histogram, share: float) -> float | None:
    """Return the time within which that share of the requests is done, by the middle of its bin; None without any."""
    total = sum(count for _, count in points)
    done = 0.0
    for edge, count in sorted(points):
        done += count
        if total and done >= share * total:
            return edge * math.sqrt(_BIN)
    return None


def strip_rows(lines: Sequence[Line], width: int) -> list[Row]:
    """Return for each line a strip of its requests and a box from p25 to p75 with the median; the axis above."""
    if width < LEFT + 20 or not _edges(lines):
        return [(cell(" no times to draw", width, "dim"),)]
    scale = LogScale(lines, width - LEFT)
    rows = [scale.axis()]
    for name, style, points in lines:
        counts: dict[int, float] = {}
        for edge, count in points:
            if edge > 0 and count > 0:
                place = scale.column(edge * math.sqrt(_BIN))
                counts[place] = counts.get(place, 0) + count
        rows += [_dots(name, style, counts, scale.width), _box(style, points, scale)]
    return rows


def _dots(name: str, style: str, counts: dict[int, float], width: int) -> Row:
    most = max(counts.values(), default=0.0)
    cells = Cells(LEFT + width)
    cells.put(1, name, f"!{style}")
    for place, count in counts.items():
        few = most <= len(_FEW) - 1
        cells.put(LEFT + place, _FEW[int(count)] if few else _glyph(count / most), style)
    return cells.row()


def _glyph(share: float) -> str:
    return next(glyph for least, glyph in _DENSITY if share >= least)


def _box(style: str, points: Histogram, scale: LogScale) -> Row:
    quarters = [quantile(points, share) for share in (0.25, 0.5, 0.75)]
    cells = Cells(LEFT + scale.width)
    if None not in quarters:
        left, middle, right = (LEFT + scale.column(q or 0.0) for q in quarters)
        cells.put(left, "═" * (right - left + 1), style)
        cells.put(left, "╞", style)
        cells.put(right, "╡", style)
        cells.put(middle, "╪", f"!{style}")
    return cells.row()


def share_rows(lines: Sequence[Line], width: int, height: int) -> list[Row]:
    """Return curves of the share of requests done within a time; empty with too little room."""
    if width < LEFT + 20 or height < 4 or not _edges(lines):
        return []
    scale = LogScale(lines, width - LEFT)
    canvas = Canvas(scale.width, height - 1)
    high = canvas.height * 4 - 1
    for _, style, points in lines:
        total = sum(count for _, count in points)
        done, before = 0.0, None
        for edge, count in sorted(points):
            done += count
            dot = (2 * scale.column(edge * _BIN), round(done / total * high) if total else 0)
            canvas.line(before or dot, dot, style)
            before = dot
    labels = {0: "100 %", canvas.height // 2: "50 %", canvas.height - 1: "0 %"}
    rows = [
        (cell(labels.get(y, ""), LEFT - 1, "dim", right=True), (" ", ""), *canvas.row(y)) for y in range(canvas.height)
    ]
    return [*rows, scale.axis()]
