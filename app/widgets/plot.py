"""GB/s over time in braille dots, a line a layout."""

from __future__ import annotations

from math import floor, log10
from typing import TYPE_CHECKING

from kvdeck.app.widgets.lines import Lines, Row, Span, cell, heading
from kvdeck.app.words import clock, short_layout

if TYPE_CHECKING:
    from kvdeck.app.folding import RunView, StepView

SPANS_S = (5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 43200, 86400)
"""Widths of the time axis: it grows in jumps, so that between them only new dots are painted."""
_ROUND = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_LEFT, _RIGHT = 7, 9


def ceiling(value: float) -> float:
    """The next round number at or above a value."""
    if value <= 0:
        return 1.0
    unit = 10.0 ** floor(log10(value))
    return next((step * unit for step in _ROUND if value <= step * unit * 1.0000001), 10 * unit)


def span(seconds: float) -> int:
    """The narrowest time axis that holds so many seconds."""
    return next((width for width in SPANS_S if seconds <= width), SPANS_S[-1])


class Canvas:
    """Braille cells: `width × height` of them, two dots wide and four high each."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._dots = [[0] * width for _ in range(height)]
        self._styles = [[""] * width for _ in range(height)]

    def dot(self, x: int, y: int, style: str) -> None:
        """Set a dot; y counts from the bottom. Outside the canvas nothing happens."""
        column, row = x // 2, self.height - 1 - y // 4
        if 0 <= column < self.width and 0 <= row < self.height:
            self._dots[row][column] |= _DOTS[3 - y % 4][x % 2]
            self._styles[row][column] = style

    def line(self, start: tuple[int, int], end: tuple[int, int], style: str) -> None:
        """Dots from one to the other, both ends set."""
        (x0, y0), (x1, y1) = start, end
        steps = max(abs(x1 - x0), abs(y1 - y0), 1)
        for i in range(steps + 1):
            self.dot(x0 + round((x1 - x0) * i / steps), y0 + round((y1 - y0) * i / steps), style)

    def row(self, y: int) -> Row:
        """One row of cells, runs of a style merged."""
        spans: list[Span] = []
        for dots, style in zip(self._dots[y], self._styles[y], strict=True):
            character = chr(0x2800 + dots) if dots else " "
            if spans and (spans[-1][1] == style or not dots):
                spans[-1] = (spans[-1][0] + character, spans[-1][1])
            else:
                spans.append((character, style))
        return tuple(spans)


class Plot(Lines):
    """The trial of the step that is looked at: all its layouts over the same time."""

    _trial: tuple[StepView, ...] = ()

    def apply(self, run: RunView | None, step: int | None) -> None:
        """Show the trial of a step; None is the running one."""
        self._trial = () if run is None else run.trial_of(run.current if step is None else step)
        self.redraw()

    def rows(self, width: int, height: int) -> list[Row]:
        lines = [(step, step.rates()) for step in self._trial]
        starts = [rates[0][0] for _, rates in lines if rates]
        path = self._trial[0].plan.path if self._trial else ""
        head = heading(f"GB/s {path}".strip(), width, note="")
        if not starts or width < _LEFT + _RIGHT + 8 or height < 3:
            return [
                head,
                (cell(" a line for each layout, from the first round on" if not starts else "", width, "dim"),),
            ]
        first, last = min(starts), max(rates[-1][0] for _, rates in lines if rates)
        top = ceiling(max(rate for _, rates in lines for _, rate in rates))
        seconds = span((last - first) / 1e9)
        canvas = Canvas(width - _LEFT - _RIGHT, height - 2)
        labels = {}
        for step, rates in lines:
            end = _draw(canvas, step, rates, first, seconds, top)
            if end is not None:
                labels[_free(labels, end, canvas.height)] = (
                    f" {short_layout(step.plan.layout)}",
                    f"layout:{step.plan.layout}",
                )
        body = [(_axis(y, canvas.height, top), *canvas.row(y), _label(labels, y)) for y in range(canvas.height)]
        ticks = cell(" " * _LEFT + "0:00", width - _RIGHT - 6, "dim")
        return [head, *body, (ticks, cell(clock(seconds), 6, "dim", right=True), cell("", _RIGHT))]


def _draw(
    canvas: Canvas, step: StepView, rates: tuple[tuple[int, float], ...], first: int, seconds: int, top: float
) -> int | None:
    """Draw one line; the canvas row in which it ends."""
    style = f"layout:{step.plan.layout}"
    wide, high = canvas.width * 2 - 1, canvas.height * 4 - 1
    dots = [(round((t - first) / 1e9 / seconds * wide), round(rate / top * high)) for t, rate in rates]
    for start, end in zip(dots, dots[1:] or dots, strict=False):
        canvas.line(start, end, style)
    return canvas.height - 1 - min(dots[-1][1], high) // 4 if dots else None


def _free(taken: dict[int, Span], wanted: int, height: int) -> int:
    """The row nearest to the wanted one that has no label yet."""
    return min((y for y in range(height) if y not in taken), key=lambda y: abs(y - wanted), default=wanted)


def _label(labels: dict[int, Span], y: int) -> Span:
    text, style = labels.get(y, ("", ""))
    return cell(text, _RIGHT, style)


def _axis(y: int, height: int, top: float) -> Span:
    value = {0: top, height - 1: 0.0}.get(y, top / 2 if height >= 5 and height % 2 and y == height // 2 else None)
    return cell("" if value is None else f"{value:g} ", _LEFT, "dim", right=True)
