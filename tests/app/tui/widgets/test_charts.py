"""Dots land where their figures say, and the axes move in jumps only."""

from __future__ import annotations

import pytest

from kvdeck.app.tui.widgets.charts import SPANS_S, Canvas, ceiling, span


def test_dots_count_from_the_lower_left():
    canvas = Canvas(2, 1)
    canvas.dot(0, 0, "a")
    canvas.dot(3, 3, "b")
    assert canvas.row(0) == (("⡀", "a"), ("⠈", "b"))


def test_outside_the_canvas_nothing_happens():
    canvas = Canvas(1, 1)
    for x, y in ((-1, 0), (2, 0), (0, 4), (0, -1)):
        canvas.dot(x, y, "a")
    assert canvas.row(0) == ((" ", ""),)


def test_a_line_reaches_both_ends():
    canvas = Canvas(4, 2)
    canvas.line((0, 0), (7, 7), "a")
    assert canvas.row(0)[-1][0][-1] != " "
    assert canvas.row(1)[0][0][0] != " "


@pytest.mark.parametrize(("value", "top"), [(0, 1), (0.9, 1), (1, 1), (1.01, 1.2), (2.6, 3), (8.1, 10), (47, 50)])
def test_the_ceiling_is_round(value: float, top: float):
    assert ceiling(value) == pytest.approx(top)


def test_the_time_axis_grows_in_jumps():
    assert [span(s) for s in (0, 5, 5.1, 59, 61)] == [5, 5, 10, 60, 120]
    assert span(1e9) == SPANS_S[-1]
