"""Recordings on the Sessions screen: shown as what they are, and set against each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvdeck.app.tui.app import Deck
from kvdeck.app.tui.modes.sessions.diff_telemetry import RecordingsScreen
from kvdeck.app.tui.modes.sessions.screen import SessionsScreen
from kvdeck.app.tui.requests import Requests
from kvdeck.app.tui.widgets.lines import Lines
from kvdeck.sessions.store.store import Store
from tests.app.tui.modes.sessions.test_screen import until
from tests.sessions.store.test_telemetry_summary import rates, recorded


def deck_of_recordings(home: Path, count: int = 2) -> Deck:
    """The deck on real recordings in a home of the test's own, without an engine."""
    store = Store(home)
    store.sessions.mkdir(parents=True)
    for number in range(count):
        recorded(store, ("before", "after", "later")[number], rates(1e9 * (1 + number), number))
    return Deck(requests=Requests(live=False))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KVDECK_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    return tmp_path


def plain(deck: Deck, selector: str) -> str:
    return deck.screen.query_one(selector, Lines).plain


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
async def test_before_and_after_on_the_screen(home: Path, size: tuple[int, int]) -> None:
    deck = deck_of_recordings(home)
    async with deck.run_test(size=size) as pilot:
        await pilot.press("4")
        await until(pilot, lambda: "after" in plain(deck, "#list"))
        row = next(line for line in plain(deck, "#list").splitlines() if "after" in line)
        assert "0:59" in row
        if size[0] != 120:  # there the preview takes the room
            assert "telemetry" in row
        await pilot.press("down", "space", "up", "up", "space", "d")
        await until(pilot, lambda: isinstance(deck.screen, RecordingsScreen))
        shown = plain(deck, "#recordings")
        assert "A = before (59 s) · B = after (59 s)" in shown
        assert "B moves at" in shown
        assert "faster" in shown
        await pilot.press("x")
        assert "slower" in plain(deck, "#recordings")
        await pilot.press("escape")
        assert isinstance(deck.screen, SessionsScreen)


async def test_the_preview_says_what_moved(home: Path) -> None:
    deck = deck_of_recordings(home)
    async with deck.run_test(size=(120, 40)) as pilot:
        await pilot.press("4")
        await until(pilot, lambda: "telemetry of 59 s" in plain(deck, "#preview"))
        shown = plain(deck, "#preview")
        assert "while moving" in shown
        assert "load started" in shown


async def test_three_recordings_are_too_many(home: Path) -> None:
    deck = deck_of_recordings(home, 3)
    async with deck.run_test(size=(120, 40), notifications=True) as pilot:
        await pilot.press("4")
        await until(pilot, lambda: "later" in plain(deck, "#list"))
        await pilot.press("space", "space", "space", "d")
        await until(pilot, lambda: any("two at a time" in n.message for n in deck._notifications))
        assert isinstance(deck.screen, SessionsScreen)
