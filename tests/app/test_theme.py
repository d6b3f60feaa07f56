"""Every theme has every colour that a screen may ask for."""

from __future__ import annotations

import pytest
from textual.color import Color

from kvdeck.app import theme
from kvdeck.app.form import LAYOUTS
from kvdeck.sessions.records import PATHS

STYLES = (
    *theme._VARIABLES,
    *(f"path:{p}" for p in PATHS),
    *(f"layout:{x}" for x in (*LAYOUTS, f"{LAYOUTS[0]} -> {LAYOUTS[1]}")),
)


@pytest.mark.parametrize("name", theme.names())
def test_every_style_has_a_colour(name: str):
    loaded = theme.load(name)
    variables = {**loaded.to_color_system().generate(), **loaded.variables}
    for style in STYLES:
        assert theme.style(variables, style).color is not None, style
    for tier in ("g1", "g2", "g3", "g4"):
        Color.parse(variables[f"tier-{tier}"])


@pytest.mark.parametrize("name", [name for name in theme.names() if name != theme.ANSI])
def test_text_stands_out_from_its_background(name: str):
    loaded = theme.load(name)
    variables = {**loaded.to_color_system().generate(), **loaded.variables}
    assert loaded.background is not None
    background = Color.parse(loaded.background)
    for style in STYLES:
        if style != "rule":
            colour = Color.parse(variables[theme.variable(style)])
            under = Color.parse(str(loaded.warning)) if style == "letter" else background
            assert _contrast(colour, under) >= 4.5, (style, variables[theme.variable(style)])


def _contrast(a: Color, b: Color) -> float:
    """WCAG 2 contrast ratio."""
    light, dark = sorted((_luminance(a), _luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: Color) -> float:
    parts = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in colour.normalized]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def test_no_color_wants_the_terminals_own_palette():
    assert theme.chosen({"NO_COLOR": "1", "KVDECK_THEME": "light"}) == theme.ANSI
    assert theme.chosen({"KVDECK_THEME": "light"}) == "kvdeck-light"
    assert theme.chosen({"KVDECK_THEME": "no such theme"}) == theme.DEFAULT
    assert theme.chosen({}) == theme.DEFAULT
