"""Figures keep their width, names are the field's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvdeck.app.words import clock, interval, layout_slug, micros, path_slug
from kvdeck.engine.kv.layout import FULLY_CONTIGUOUS, LAYER_SEPARATE, LAYER_SEPARATE_OUTER, LayoutPair


@given(st.floats(0, 9.99e11))
def test_a_figure_has_at_most_seven_columns(value: float):
    assert len(micros(value)) <= 7


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.5, "0.500"),
        (2.4, "2.400"),
        (99.994, "99.99"),
        (99.996, "100.0"),
        (999.96, "1,000"),
        (25_273, "25,273"),
    ],
)
def test_figures(value: float | None, text: str):
    assert micros(value) == text


def test_a_layout_has_a_colour_of_its_own():
    layouts = (FULLY_CONTIGUOUS, LAYER_SEPARATE, LAYER_SEPARATE_OUTER, LayoutPair(LAYER_SEPARATE, FULLY_CONTIGUOUS))
    assert len({layout_slug(str(layout)) for layout in layouts}) == 4


def test_small_words():
    assert path_slug("HostToDisk") == "host-to-disk"
    assert [clock(s) for s in (None, 0, 61, 3723)] == ["–:––", "0:00", "1:01", "1:02:03"]
    assert interval(1.31, 1.28, 1.35) == "1.31 [1.28 1.35]"
    assert interval(None, None, None) == "–"
