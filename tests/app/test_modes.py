"""Modes in every order, answers to who asked, threads that outlive errors, and a deck that may only look."""

from __future__ import annotations

import itertools
import os
import re
import time
from pathlib import Path

import orjson
import pytest
from textual.widget import Widget

from kvdeck.app.tui import session_requests
from kvdeck.app.tui.app import Deck
from kvdeck.app.tui.messages import RunSubmitted, SessionRead, SessionsListed, SnapshotTaken
from kvdeck.app.tui.modes.sessions.screen import SessionsScreen
from kvdeck.app.tui.state import Snapshot
from kvdeck.sessions.model.records import Session
from kvdeck.sessions.store.store import Store

from . import a_run
from .a_terminal import Terminal
from .conftest import DeckOfFiles

KEYS = {"plan": "1", "run": "2", "monitor": "3", "sessions": "4", "doctor": "9"}
MODES = Path(__file__).parents[2] / "app" / "tui" / "modes"


def regions(deck: Deck) -> dict[str, tuple[int, ...]]:
    """Where each pane of the screen in front stands."""
    screen = deck.screen
    return {
        f"{type(pane).__name__}#{pane.id}": (*pane.region, pane.display)
        for pane in screen.walk_children(Widget)
        if pane.id and pane.id != "keys"
    }


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_each_mode_looks_the_same_whatever_was_visited_before(size: tuple[int, int]):
    first = {}
    for mode, key in KEYS.items():
        deck = DeckOfFiles(memory={"view": mode})
        async with deck.run_test(size=size) as pilot:
            await pilot.press(key)
            await pilot.pause()
            first[mode] = regions(deck)
            assert first[mode]
    for order in itertools.permutations(KEYS, 3):
        if order[0] == "doctor" or order[2] in ("monitor", "run"):
            continue  # enough of the sixty: every pair, and Doctor and Sessions before every other
        deck = DeckOfFiles(memory={"view": order[0]})
        async with deck.run_test(size=size) as pilot:
            for mode in (*order, *order):
                await pilot.press(KEYS[mode])
                await pilot.pause()
                assert regions(deck) == first[mode], (order, mode)


@pytest.mark.parametrize("file", sorted(MODES.rglob("*.tcss")), ids=lambda path: path.stem)
def test_every_style_rule_is_its_screens_own(file: Path):
    text = re.sub(r"/\*.*?\*/", "", file.read_text(), flags=re.DOTALL)
    for selectors, _ in re.findall(r"([^{}]+)\{([^}]*)\}", text):
        for selector in selectors.split(","):
            assert selector.strip().startswith(f"{file.stem.capitalize()}Screen"), selector


class Late(DeckOfFiles):
    """Answers a question only when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[tuple[object, SessionRead]] = []

    def read_session(self, asker, name: str) -> None:
        self.waiting.append((asker, SessionRead(name, a_run.session(name))))


async def test_an_answer_reaches_who_asked_and_opens_nothing_over_another_mode():
    deck = Late()
    async with deck.run_test(size=(120, 40)) as pilot:
        deck.post_message(SnapshotTaken(a_run.finished()))
        await pilot.pause()
        await pilot.press("2", "d", "4")
        await pilot.pause()
        ((asker, answer),) = deck.waiting
        assert type(asker).__name__ == "RunScreen"
        asker.post_message(answer)
        await pilot.pause()
        assert isinstance(deck.screen, SessionsScreen)
        assert len(deck.screen_stack) == 1


async def test_an_answer_to_a_screen_that_was_closed_reaches_nobody(deck: DeckOfFiles):
    from kvdeck.app.tui.modes.sessions.report import ResultScreen
    from kvdeck.app.tui.requests import answers_to

    async with deck.run_test(size=(120, 40)) as pilot:
        screen = ResultScreen(a_run.session("x"))
        await deck.push_screen(screen)
        post = answers_to(screen)
        await pilot.press("escape")
        await pilot.pause()
        assert not post(SessionsListed(()))


@pytest.mark.parametrize(
    "memory",
    ["{}", '{"view":"sessions"}', '{"view":"monitor"}', '{"view":5,"sort":[],"hidden":{}}', "[1]", "\xff{", ""],
)
def test_whatever_the_deck_remembers_it_opens_and_loads(tmp_path: Path, memory: str):
    home = tmp_path / "home"
    Store(home).keep(Session("kept-one", "done", time.time()))
    (home / "deck.json").write_bytes(memory.encode("latin-1"))
    environ = {"KVDECK_HOME": str(home), "KVDECK_RUNTIME": str(tmp_path / "rt"), "HOME": str(tmp_path)}
    deck = Terminal((120, 40), "from kvdeck.app.tui.app import run_deck; run_deck(readonly=True)", **environ)
    try:
        if "sessions" not in memory:
            assert deck.shows("Run")
            os.write(deck.master, b"4")
        assert deck.shows("kept-one"), "\n".join(deck.screen.display)
    finally:
        deck.close()


async def test_what_is_asked_before_there_is_a_feed_is_asked_then():
    deck = Deck(connect=True, memory={"view": "sessions"})
    deck.connect = True
    asked = []
    deck._with_feed(asked.append)
    assert not asked
    deck.feed = object()  # type: ignore[assignment]
    deck._ask_early()
    assert asked == [deck.feed]


def test_an_unexpected_error_is_the_answer_and_not_the_end(monkeypatch: pytest.MonkeyPatch):
    got = []

    def broken(*_: object) -> None:
        raise LookupError("no such thing")

    monkeypatch.setattr(session_requests, "catalogue", broken)
    monkeypatch.setattr(session_requests, "find", broken)
    monkeypatch.setattr(session_requests, "find_part", broken)
    monkeypatch.setitem(session_requests._CHANGES, "tag", broken)
    session_requests.listed(got.append)
    session_requests.read(got.append, "x")
    session_requests.preview(got.append, "x")
    session_requests.compare(got.append, ("x", "y"))
    session_requests.change(got.append, "tag", "x", "", "")
    assert [message.error for message in got] == ["unexpected LookupError: no such thing"] * 5


BROKEN_FEED = """
import sys
from kvdeck.app.tui import connection as feed, app as tui
real, count = feed.fold, 0
def broken(*given):
    global count
    count += 1
    if count == 3:
        raise LookupError("no such thing")
    return real(*given)
feed.fold = broken
tui.run_deck()
"""


def test_a_thread_that_meets_an_unexpected_error_says_so_and_goes_on(tmp_path: Path):
    environ = {"KVDECK_HOME": str(tmp_path / "home"), "KVDECK_RUNTIME": str(tmp_path / "rt"), "HOME": str(tmp_path),
               "KVDECK_IDLE_EXIT": "2"}  # fmt: skip
    deck = Terminal((120, 40), BROKEN_FEED, **environ)
    try:
        assert deck.shows("HostToHost")
        os.write(deck.master, b"2a")
        assert deck.shows("is done"), "\n".join(deck.screen.display)
    finally:
        deck.close()


READONLY_KEYS = "1rms\x1b2rax\x1b3Ra\x1bb\x1b4 dn\x1bt\x1be\x1bD\x1b9r"


def test_a_read_only_deck_starts_no_engine_and_writes_nothing(tmp_path: Path):
    home = tmp_path / "home"
    Store(home).keep(Session("kept-one", "done", 1.0))
    memory = {"view": "monitor", "monitor": {"sources": ["host"], "known": ["host"]}}
    (home / "deck.json").write_bytes(orjson.dumps(memory))
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    environ = {"KVDECK_HOME": str(home), "KVDECK_RUNTIME": str(tmp_path / "rt"), "HOME": str(tmp_path)}
    deck = Terminal((120, 40), "from kvdeck.app.tui.app import run_deck; run_deck(readonly=True)", **environ)
    try:
        assert deck.shows("Tiers")
        for key in READONLY_KEYS:
            os.write(deck.master, key.encode())
            deck.read(0.1)
        for _ in range(20):
            deck.read(0.05)
        assert deck.process.poll() is None
        assert not (tmp_path / "rt" / "engine.json").exists()
    finally:
        deck.close()
    after = {path: path.read_bytes() for path in home.rglob("*") if path.is_file() and path.name != ".lock"}
    assert after == before


async def test_x_right_after_a_cancels_the_run_that_was_asked_for(deck: DeckOfFiles):
    cancelled = []
    deck.cancel_submitted = lambda: cancelled.append(1)  # type: ignore[method-assign]
    async with deck.run_test(size=(120, 40)) as pilot:
        deck.post_message(SnapshotTaken(Snapshot("connected", "", 1)))
        await pilot.press("2", "x")
        assert not cancelled
        deck._unsent = 1
        await pilot.press("x")
        assert len(cancelled) == 1
        deck.post_message(RunSubmitted("new"))
        await pilot.pause()
        await pilot.press("x")
        assert len(cancelled) == 2


def test_x_right_after_a_in_the_real_deck(tmp_path: Path):
    environ = {"KVDECK_HOME": str(tmp_path / "home"), "KVDECK_RUNTIME": str(tmp_path / "rt"), "HOME": str(tmp_path),
               "KVDECK_IDLE_EXIT": "2"}  # fmt: skip
    deck = Terminal((120, 40), "from kvdeck.app.tui.app import run_deck; run_deck()", **environ)
    try:
        assert deck.shows("Run")
        os.write(deck.master, b"2ax")
        assert deck.shows("cancelling"), "\n".join(deck.screen.display)
        end, states = time.monotonic() + 20, [""]
        while states != ["cancelled"] and time.monotonic() < end:
            deck.read(0.1)
            states = [row.state for row in Store(tmp_path / "home").summaries()]
        assert states == ["cancelled"]
    finally:
        deck.close()
