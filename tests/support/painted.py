"""What the deck paints, as plain text with a few lines of styles below, and the files that it is compared with."""

from __future__ import annotations

import asyncio
import difflib
import os
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path

import pytest
from rich.segment import Segment
from textual.app import App
from textual.pilot import Pilot
from textual.strip import Strip
from textual.widgets import Input

from kvdeck.app.config import Config
from kvdeck.app.tui import theme
from tests.app.conftest import Answered, DeckOfFiles

Size = tuple[int, int]
SMALL, BIG, HUGE = (80, 24), (120, 40), (200, 60)
EVERY = (SMALL, BIG, HUGE)
LIGHT = "kvdeck-light"
THREE = (theme.DEFAULT, LIGHT, theme.ANSI)
GOLDENS = Path(__file__).parents[1] / "app" / "goldens"
ROUNDS = 400
"""Rounds of messages after which a picture that still changes, or lacks what it waits for, is an error."""
GROUNDS = {"deck-cursor": "cursor", "foreground": "reverse", "primary": "key", "warning": "warn", "error": "bad"}
INKS = {"state-bad": "bad", "state-warn": "warn"}


@dataclass(frozen=True, slots=True)
class Scene:
    """A state of the deck, and the pictures that are taken of it.

    Attributes:
        show: Brings a deck that was just opened into the state.
        open: Makes the deck, given its config.
        waits_for: Text that is on the screen, from 120×40 on, once the state is reached.
        themes: Those in which a picture with all its colours is kept too, at 120×40.
        anew: Open a deck for each size: what has the focus, or lies over a screen, depends on the size it began with.
    """

    show: Callable[[Pilot[None]], Awaitable[None]]
    open: Callable[..., Answered] = DeckOfFiles
    sizes: Sequence[Size] = EVERY
    waits_for: str = ""
    themes: Sequence[str] = ()
    anew: bool = False
    ascii: bool = False

    def names(self) -> list[str]:
        """The pictures' names, less the scene's: `80x24.txt`, `120x40-light.svg`."""
        texts = [f"{width}x{height}.txt" for width, height in self.sizes]
        return texts + [f"{BIG[0]}x{BIG[1]}-{name.removeprefix('kvdeck-')}.svg" for name in self.themes]

    async def pictures(self) -> dict[str, str]:
        """Take all pictures of the scene, by `names`."""
        found: dict[str, str] = {}
        for size in self.sizes if self.anew else self.sizes[:1]:
            deck = self.open(config=Config(ascii=self.ascii))
            async with deck.run_test(size=size, notifications=True) as pilot:
                await self.show(pilot)
                for other in [size] if self.anew else self.sizes:
                    if other != deck.size:
                        await pilot.resize_terminal(*other)
                    found[f"{other[0]}x{other[1]}.txt"] = await settle(pilot, "" if other < BIG else self.waits_for)
                    if other == BIG:
                        found |= await self._in_colour(pilot, deck)
        return found

    async def _in_colour(self, pilot: Pilot[None], deck: Answered) -> dict[str, str]:
        found = {}
        for name in self.themes:
            if name != deck.theme:
                deck.ansi_color = name == theme.ANSI
                deck.action_theme(name)
                await settle(pilot)
            found[f"{BIG[0]}x{BIG[1]}-{name.removeprefix('kvdeck-')}.svg"] = svg(deck)
        return found


async def settle(pilot: Pilot[None], waits_for: str = "") -> str:
    """Wait until nothing changes any more on the screen, and the text is there; what is painted then."""
    before, same = "", 0
    for _ in range(ROUNDS):
        await pilot.pause(0 if same or waits_for in before else 0.01)
        for field in pilot.app.screen.query(Input):
            field.cursor_blink, field._cursor_visible = False, True
        now = painted(pilot.app)
        same = same + 1 if now and now == before else 0
        if same == 3 and waits_for in now:
            return now
        before = now
    raise AssertionError(f"the screen does not come to rest with {waits_for!r} on it:\n{before}")


def svg(app: App[object]) -> str:
    """The screen with all its colours, the same for the same screen."""
    return re.sub(r"\bterminal-\d+-", "terminal-", app.export_screenshot(title="kvdeck", simplify=True))


def painted(app: App[object]) -> str:
    """Every row of the screen as its compositor paints it, and below it what only a style says.

    Those are: which mode is in front (bold in the first row), columns with a ground of their own (the cursor's row, an
    entry that is edited), and text in the colours for warnings and failures. Rows and columns count from 1.
    """
    update = app.screen._compositor.render_update(full=True, screen_stack=app._background_screens)
    rows = [list(Strip.join(row)) for row in update.strips]  # type: ignore[union-attr]
    if not rows:
        return ""  # a dialog that has no size yet
    lines = ["".join(segment.text for segment in row).rstrip() for row in rows]
    return "\n".join([*lines, "-- styles --", *_styles(rows, app.theme_variables), ""])


def _styles(rows: Sequence[Sequence[Segment]], variables: Mapping[str, str]) -> Iterator[str]:
    grounds = {variables[name].lower(): word for name, word in reversed(GROUNDS.items())}
    inks = {variables[name].lower(): word for name, word in INKS.items()}
    plain = {variables[name].lower() for name in ("background", "panel", "surface")}
    first, last = rows[0], rows[-1]
    yield from _texts(1, ((segment, "bold" if segment.style and segment.style.bold else "") for segment in first))
    for number, row in enumerate(rows, 1):
        if row is not first and row is not last:
            yield from _columns(number, ((segment, _ground(segment, grounds, plain)) for segment in row))
        yield from _texts(number, ((segment, inks.get(_hex(segment, "color"), "")) for segment in row))


def _ground(segment: Segment, grounds: Mapping[str, str], plain: set[str]) -> str:
    if segment.style is not None and segment.style.reverse:
        return "reverse"
    colour = _hex(segment, "bgcolor")
    return "" if colour in plain else grounds.get(colour, colour)


def _hex(segment: Segment, which: str) -> str:
    colour = getattr(segment.style, which, None)
    return "" if colour is None or colour.triplet is None else colour.triplet.hex.lower()


def _columns(number: int, words: Iterable[tuple[Segment, str]]) -> Iterator[str]:
    column, found = 1, []
    for word, group in groupby(words, key=lambda pair: pair[1]):
        end = column + sum(segment.cell_length for segment, _ in group)
        if word:
            found.append(f"{word} {column}" if end == column + 1 else f"{word} {column}-{end - 1}")
        column = end
    if found:
        yield f"{number}: {', '.join(found)}"


def _texts(number: int, words: Iterable[tuple[Segment, str]]) -> Iterator[str]:
    found: dict[str, list[str]] = {}
    for word, group in groupby(words, key=lambda pair: pair[1]):
        text = " ".join("".join(segment.text for segment, _ in group).split())
        if word and text:
            found.setdefault(word, []).append(text)
    for word, texts in found.items():
        yield f"{number}: {word} {' | '.join(texts)}"


def golden_tests(scenes: Mapping[str, Scene], folder: Path) -> tuple[Callable[..., None], Callable[[], None]]:
    """Return the test of every picture of these scenes against its file, and that the folder holds no other file."""
    pictures = [(name, picture) for name, scene in scenes.items() for picture in scene.names()]

    @cache
    def taken(name: str) -> dict[str, str]:
        return asyncio.run(scenes[name].pictures())

    @pytest.mark.parametrize(("name", "picture"), pictures, ids=map("-".join, pictures))
    def test_picture(name: str, picture: str, update_goldens: bool, tmp_path: Path) -> None:
        compare(folder / f"{name}-{picture}", taken(name)[picture], update_goldens, tmp_path)

    def test_every_golden_has_its_picture() -> None:
        assert {file.name for file in folder.iterdir()} == set(map("-".join, pictures))

    return test_picture, test_every_golden_has_its_picture


def compare(file: Path, now: str, update: bool, kept: Path) -> None:
    """Fail where a picture differs from its file; with `--update-goldens` write the file.

    Args:
        kept: A folder in which a picture that differs is kept, to be looked at.
    """
    if update:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(now)
        return
    before = file.read_text() if file.exists() else ""
    if now == before:
        return
    (kept / file.name).write_text(now)
    if file.suffix == ".svg":
        pytest.fail(f"colours differ: compare {file} with {kept / file.name}; --update-goldens takes it", pytrace=False)
    lines = difflib.unified_diff(before.split("\n"), now.split("\n"), str(file), "painted now", lineterm="", n=2)
    pytest.fail("\n".join([*lines, f"{os.linesep}--update-goldens takes what is painted now"]), pytrace=False)
