"""Chart of GB/s over time in braille dots, one line per layout."""

from __future__ import annotations

from math import floor, log10
from typing import TYPE_CHECKING

from kvdeck.app.tui.widgets.lines import Lines, Row, Span, cell, heading
from kvdeck.sessions.units import clock_text, figure, number_text, plain_text, short_layout_name

if TYPE_CHECKING:
    from kvdeck.app.tui.export import Table
    from kvdeck.sessions.model.run_state import RunState, StepState

SPANS_S = (5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 43200, 86400)
"""Lengths of the time axis in s: it grows in jumps, so that between them only new dots are painted."""
_ROUND = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_LEFT, _RIGHT = 7, 11
RULE_DOTS = 6
"""Dots between those of a median's rule."""


def ceiling(value: float) -> float:
    """Return the next round number at or above a value; 1.0 for zero or less."""
    if value <= 0:
        return 1.0
    unit = 10.0 ** floor(log10(value))
    return next((step * unit for step in _ROUND if value <= step * unit * 1.0000001), 10 * unit)


def span(seconds: float) -> int:
    """Return the shortest time axis in s that holds this many seconds, at most the longest one."""
    return next((width for width in SPANS_S if seconds <= width), SPANS_S[-1])


class Canvas:
    """`width × height` braille cells, each two dots wide and four high."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._dots = [[0] * width for _ in range(height)]
        self._styles = [[""] * width for _ in range(height)]

    def dot(self, x: int, y: int, style: str) -> None:
        """Set a dot; y counts from the bottom. Dots outside the canvas are ignored."""
        column, row = x // 2, self.height - 1 - y // 4
        if 0 <= column < self.width and 0 <= row < self.height:
            self._dots[row][column] |= _DOTS[3 - y % 4][x % 2]
            self._styles[row][column] = style

    def line(self, start: tuple[int, int], end: tuple[int, int], style: str) -> None:
        """Set the dots from start to end, both included."""
        (x0, y0), (x1, y1) = start, end
        steps = max(abs(x1 - x0), abs(y1 - y0), 1)
        for i in range(steps + 1):
            self.dot(x0 + round((x1 - x0) * i / steps), y0 + round((y1 - y0) * i / steps), style)

    def row(self, y: int) -> Row:
        """Return one row of cells, runs of a style merged."""
        spans: list[Span] = []
        for dots, style in zip(self._dots[y], self._styles[y], strict=True):
            character = chr(0x2800 + dots) if dots else " "
            if spans and (spans[-1][1] == style or not dots):
                spans[-1] = (spans[-1][0] + character, spans[-1][1])
            else:
                spans.append((character, style))
        return tuple(spans)


class Plot(Lines):
    """GB/s of the step's trial: all its layouts over the same time."""

    _trial: tuple[StepState, ...] = ()

    def apply(self, run: RunState | None, step: int | None) -> None:
        """Show the trial of a step; None for the running step."""
        self._trial = () if run is None else run.trial_of(run.current if step is None else step)
        self.redraw()

    def points(self) -> Table | None:
        from kvdeck.app.tui.export import Table

        first = min((point.t for step in self._trial for point in step.points), default=0)
        rows = tuple(
            (step.plan.path, step.plan.layout, plain_text((t - first) / 1e9, 6), plain_text(rate, 6))
            for step in self._trial
            for t, rate in step.rates()
        )
        return Table("bandwidth", ("path", "layout", "seconds", "gb_per_s"), rows)

    def rows(self, width: int, height: int) -> list[Row]:
        path = self._trial[0].plan.path if self._trial else ""
        head = heading(f"GB/s {path}".strip(), width)
        times = [point.t for step in self._trial for point in step.points]
        if not times or width < _LEFT + _RIGHT + 8 or height < 3:
            return [head, (cell("" if times else " one line per layout, from the first round on", width, "dim"),)]
        canvas = Canvas(width - _LEFT - _RIGHT, height - 2)
        first = min(times)
        seconds = span((max(times) - first) / 1e9)
        lines = [(step, step.rates(seconds * 1e9 / canvas.width)) for step in self._trial]
        top = ceiling(max((rate for _, rates in lines for _, rate in rates), default=0.0))
        for step in self._trial:
            _rule(canvas, step, top)
        for step, rates in lines:
            _draw(
                canvas, f"layout:{step.plan.layout}", [((t - first) / 1e9 / seconds, rate / top) for t, rate in rates]
            )
        labels = _labels(self._trial, canvas.height, top)
        body = [(_axis(y, canvas.height, top), *canvas.row(y), _label(labels, y)) for y in range(canvas.height)]
        ticks = cell(" " * _LEFT + "0:00", width - _RIGHT - 6, "dim")
        return [head, *body, (ticks, cell(clock_text(seconds), 6, "dim", right=True), cell("", _RIGHT))]


def _draw(canvas: Canvas, style: str, line: list[tuple[float, float]]) -> None:
    """Draw one line of points whose coordinates are fractions of the canvas."""
    wide, high = canvas.width * 2 - 1, canvas.height * 4 - 1
    dots = [(round(x * wide), round(y * high)) for x, y in line]
    for start, end in zip(dots, dots[1:] or dots, strict=False):
        canvas.line(start, end, style)


def _rule(canvas: Canvas, step: StepState, top: float) -> None:
    """Draw a dotted rule at the median of a step that has ended."""
    if step.result is not None and step.gb_per_s is not None:
        y = round(min(1.0, step.gb_per_s / top) * (canvas.height * 4 - 1))
        for x in range(0, canvas.width * 2, RULE_DOTS):
            canvas.dot(x, y, f"layout:{step.plan.layout}")


def _labels(trial: tuple[StepState, ...], height: int, top: float) -> dict[int, Span]:
    """Return the layouts' labels with their GB/s by row, at the height of their means, the fastest on top.

    At the lines' last points the labels would jump.
    """
    labels: dict[int, Span] = {}
    ordered = sorted((step for step in trial if step.gb_per_s is not None), key=lambda s: -(s.gb_per_s or 0.0))
    row = -1
    for left, step in zip(range(len(ordered), 0, -1), ordered, strict=True):
        wanted = round((1 - min(1.0, (step.gb_per_s or 0.0) / top)) * (height - 1))
        row = max(row + 1, min(wanted, height - left))
        labels[row] = (f" {short_layout_name(step.plan.layout)} {figure(step.gb_per_s)}", f"layout:{step.plan.layout}")
    return labels


def _label(labels: dict[int, Span], y: int) -> Span:
    text, style = labels.get(y, ("", ""))
    return cell(text, _RIGHT, style)


def _axis(y: int, height: int, top: float) -> Span:
    value = {0: top, height - 1: 0.0}.get(y, top / 2 if height >= 5 and height % 2 and y == height // 2 else None)
    return cell("" if value is None else f"{number_text(value)} ", _LEFT, "dim", right=True)
