"""Strips and curves of request times are drawn from the counts alone."""

from __future__ import annotations

from kvdeck.app.tui.widgets.strips import LogScale, quantile, share_rows, strip_rows
from tests.support.builders import run as a_run

TIMES = next(iter(a_run.spreads(a_run.session()).values()))


def test_a_strip_has_its_requests_a_box_and_an_axis():
    rows = strip_rows([("A", "run", TIMES), ("B", "warn", [(2e-3, 1), (8e-3, 2)])], 80)
    texts = ["".join(text for text, _ in row) for row in rows]
    assert len(rows) == 5
    assert "╪" in texts[2]
    assert texts[3].count("∙") + texts[3].count("∷") == 2
    assert all(len(line) == 80 for line in texts)


def test_without_times_it_says_so():
    assert "no times" in strip_rows([("A", "run", ())], 80)[0][0][0]
    assert share_rows([("A", "run", ())], 80, 10) == []
    assert share_rows([("A", "run", TIMES)], 80, 3) == []
    assert "no times" in strip_rows([("A", "run", [(0.0, 3.0)])], 80)[0][0][0]
    assert share_rows([("A", "run", [(0.0, 3.0)])], 80, 10) == []


def test_times_of_nothing_stand_at_the_axis_begin():
    mixed = [("A", "run", [(0.0, 3.0), (1e-3, 1.0)])]
    assert "╪" in "".join(text for text, _ in strip_rows(mixed, 80)[2])
    assert len(share_rows(mixed, 80, 10)) == 10
    assert LogScale([("A", "run", [(0.0, 3.0)])], 80).column(0.0) == 0


def test_curves_end_at_all_requests():
    rows = share_rows([("A", "run", TIMES)], 80, 10)
    assert len(rows) == 10
    assert rows[0][0][0].strip() == "100 %"


def test_a_quantile_is_in_its_bin():
    assert quantile([(1.0, 1), (2.0, 3)], 0.25) == 1.0 * 2 ** (1 / 32)
    assert quantile([(1.0, 1), (2.0, 3)], 0.5) == 2.0 * 2 ** (1 / 32)
    assert quantile([], 0.5) is None
