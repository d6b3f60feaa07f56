"""ASCII for every glyph that a screen draws, column for column."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import pytest
from rich.cells import cell_len
from textual.binding import Binding
from textual.pilot import Pilot

import kvdeck.app
from kvdeck.app.config import Config
from kvdeck.app.tui import glyphs
from kvdeck.app.tui.bindings import OPENING
from kvdeck.app.tui.messages import EngineChanged
from tests.app.conftest import Answered, DeckOfFiles
from tests.app.tui import test_pictures
from tests.support.builders import run as a_run
from tests.support.painted import BIG

APP = Path(kvdeck.app.__path__[0])


def test_the_table_has_every_glyph_of_the_source_in_its_own_width():
    missing = {}
    for file in APP.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                for character in node.value:
                    if not character.isascii() and "?" in glyphs.in_ascii(character):
                        missing[character] = file.name
    assert not missing, "add these to app/tui/glyphs.py"
    for glyph, plain in glyphs.ASCII.items():
        assert cell_len(glyph) == cell_len(plain) == 1, glyph
        assert plain.isascii(), glyph


def test_unknown_letters_keep_their_width():
    assert glyphs.in_ascii("é 日 😀 x⠿⠃⠤ ") == "e ?? ?? x:'. "


@pytest.mark.parametrize(
    ("environ", "encoding", "ascii_only"),
    [
        ({"TERM": "xterm-256color"}, "utf-8", False),
        ({"TERM": "xterm-256color"}, "ANSI_X3.4-1968", True),
        ({"TERM": "xterm"}, "iso8859-1", True),
        ({"TERM": "linux"}, "UTF-8", True),
        ({}, None, True),
    ],
)
def test_who_gets_ascii_unasked(environ: dict[str, str], encoding: str | None, ascii_only: bool):
    assert glyphs.wanted(environ, encoding) is ascii_only


SCENES = ("", "x", "n", "question_mark", "escape", "w", "escape", "4", "enter", "escape", "9", "colon")


async def test_every_screen_is_drawn_in_ascii_and_nothing_moves():
    for scene, rich, plain in zip(SCENES, await pictures(False), await pictures(True), strict=True):
        assert not rich.isascii()
        assert plain.isascii(), (scene, sorted({c for c in plain if not c.isascii()}))
        if scene not in ("question_mark", "colon"):  # there names of keys are words
            assert [len(line) for line in plain.splitlines()] == [cell_len(line) for line in rich.splitlines()]


async def pictures(ascii_only: bool) -> list[str]:
    deck = DeckOfFiles(config=Config(ascii=ascii_only))
    found = []
    async with deck.run_test(size=(120, 40)) as pilot:
        await show(pilot)
        for key in SCENES:
            await pilot.press(*filter(None, (key,)))
            await pilot.pause()
            found.append("\n".join(strip.text for strip in deck.screen._compositor.render_strips()))
    return found


async def show(pilot: Pilot[None]) -> None:
    pilot.app.doctor = a_run.doctor()
    pilot.app.post_message(EngineChanged(a_run.live()))
    await pilot.pause()
    pilot.app.notify("café × 日本")
    await pilot.pause()


def not_ascii(deck: Answered) -> set[str]:
    """Every character on the screen that an ASCII terminal can't draw."""
    return {c for strip in deck.screen._compositor.render_strips() for c in strip.text if not c.isascii()}


@pytest.mark.parametrize("name", [name for name, scene in test_pictures.SCENES.items() if not scene.ascii])
async def test_no_scene_has_another_character_than_ascii(name: str):
    (picture,) = (await replace(test_pictures.SCENES[name], ascii=True, sizes=(BIG,), themes=()).pictures()).values()
    assert {character for character in picture if not character.isascii()} == set()


@pytest.mark.parametrize("mode", OPENING, ids=lambda binding: binding.description)
async def test_no_mode_has_one_and_nothing_that_lies_over_it(mode: Binding):
    deck = DeckOfFiles(config=Config(ascii=True))
    async with deck.run_test(size=(80, 24)) as pilot:
        await show(pilot)
        await pilot.press(mode.key)
        await pilot.pause(0.2)
        for keys in ((), ("question_mark",), ("escape", "colon"), ("escape", "w")):
            await pilot.press(*keys)
            await pilot.pause()
            assert not_ascii(deck) == set(), keys
