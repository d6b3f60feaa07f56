"""Recordings on the Sessions screen: shown as what they are, and set against each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from kvdeck.app.tui import session_requests
from kvdeck.app.tui.messages import SessionsListed
from kvdeck.app.tui.modes.sessions.diff_telemetry import RecordingsScreen
from kvdeck.app.tui.modes.sessions.screen import SessionsScreen
from kvdeck.app.tui.widgets.lines import Lines
from kvdeck.sessions.store.catalogue import catalogue
from kvdeck.sessions.store.store import Store
from tests.sessions.test_watched_summary import rates, recorded

from .conftest import DeckOfFiles
from .test_sessions_screen import until


class DeckOfRecordings(DeckOfFiles):
    """Reads real recordings from a home of the test's own."""

    def __init__(self, home: Path, count: int = 2) -> None:
        super().__init__()
        self.store = Store(home)
        self.store.sessions.mkdir(parents=True)
        for number in range(count):
            recorded(self.store, ("before", "after", "later")[number], rates(1e9 * (1 + number), number))

    def list_sessions(self, asker) -> None:
        asker.post_message(SessionsListed(tuple(catalogue(self.store))))

    def preview_session(self, asker, name: str) -> None:
        session_requests.preview(asker.post_message, name)

    def compare_sessions(self, asker, names: Sequence[str]) -> None:
        session_requests.compare(asker.post_message, tuple(names))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KVDECK_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    return tmp_path


def plain(deck: DeckOfFiles, selector: str) -> str:
    return deck.screen.query_one(selector, Lines).plain


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
async def test_before_and_after_on_the_screen(home: Path, size: tuple[int, int]) -> None:
    deck = DeckOfRecordings(home)
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
    deck = DeckOfRecordings(home)
    async with deck.run_test(size=(120, 40)) as pilot:
        await pilot.press("4")
        await until(pilot, lambda: "telemetry of 59 s" in plain(deck, "#preview"))
        shown = plain(deck, "#preview")
        assert "while moving" in shown
        assert "load started" in shown


async def test_three_recordings_are_too_many(home: Path) -> None:
    deck = DeckOfRecordings(home, 3)
    async with deck.run_test(size=(120, 40), notifications=True) as pilot:
        await pilot.press("4")
        await until(pilot, lambda: "later" in plain(deck, "#list"))
        await pilot.press("space", "space", "space", "d")
        await until(pilot, lambda: any("two at a time" in n.message for n in deck._notifications))
        assert isinstance(deck.screen, SessionsScreen)
