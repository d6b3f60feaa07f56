"""Every theme has every colour that a screen may ask for."""

from __future__ import annotations

import pytest
from textual.color import Color

from kvdeck.app.tui import theme
from kvdeck.app.tui.form_fields import LAYOUTS
from kvdeck.sessions.model.records import PATHS

STYLES = (
    *theme._VARIABLES,
    *(f"path:{p}" for p in PATHS),
    *(f"tier:{tier}" for tier in ("G1", "G2", "G3", "G4", "remote")),
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


TEXT, DIM = 4.5, 3.0
"""WCAG 2: text against what it stands on, and text that says what is less important."""
GROUNDS = ("background", "deck-bar", "deck-cursor")


@pytest.mark.parametrize("name", [name for name in theme.names() if name != theme.ANSI])
def test_text_stands_out_from_whatever_it_may_stand_on(name: str):
    loaded = theme.load(name)
    variables = {**loaded.to_color_system().generate(), **loaded.variables}
    tiers = {f"tier-g{number}": f"tier-g{number}" for number in (1, 2, 3, 4)}
    colours = {style: theme.variable(style) for style in STYLES if style not in ("rule", "letter")} | tiers
    for style, variable in colours.items():
        for ground in GROUNDS:
            found = _contrast(Color.parse(variables[variable]), Color.parse(variables[ground]))
            assert found >= (DIM if style == "dim" and ground != "background" else TEXT), (style, ground, found)
    assert _contrast(Color.parse(variables["deck-letter"]), Color.parse(str(loaded.warning))) >= TEXT


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
