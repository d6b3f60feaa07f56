"""Modes in every order, answers to who asked, threads that outlive errors, and a deck that may only look."""

from __future__ import annotations

import itertools
import os
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from textual.pilot import Pilot

from kvdeck.app.tui import session_requests
from kvdeck.app.tui.app import Deck
from kvdeck.app.tui.messages import DoctorReported, Found, RunSubmitted, SessionsListed, SnapshotTaken
from kvdeck.app.tui.state import Snapshot
from kvdeck.sessions.model.records import Session
from kvdeck.sessions.store.store import Store

from . import a_run
from .a_terminal import Terminal
from .conftest import DeckOfFiles
from .painted import BIG, SMALL, settle

KEYS = {"plan": "1", "run": "2", "monitor": "3", "sessions": "4", "doctor": "9"}
MODES = Path(__file__).parents[2] / "app" / "tui" / "modes"


PAIRS = list(itertools.permutations(KEYS, 2))


def every_pair_once() -> list[str]:
    """Modes one after the other, such that each is entered once from every other."""
    left = {mode: [other for other in KEYS if other != mode] for mode in KEYS}
    walk, going = [], [next(iter(KEYS))]
    while going:
        if left[going[-1]]:
            going.append(left[going[-1]].pop())
        else:
            walk.append(going.pop())
    return walk[::-1]


async def enter(pilot: Pilot[None], mode: str) -> str:
    """Switch to a mode; all that it paints once it has come to rest."""
    await pilot.press(KEYS[mode])
    previewed = mode == "sessions" and pilot.app.size.width >= 120
    return await settle(pilot, "done after" if previewed else "")


@asynccontextmanager
async def opened_in(mode: str, size: tuple[int, int], deck: type[DeckOfFiles] = DeckOfFiles) -> AsyncIterator[Any]:
    """The pilot of a deck that opens in a mode, with a run going on."""
    made = deck(memory={"view": mode})
    async with made.run_test(size=size) as pilot:
        made.post_message(DoctorReported(a_run.doctor()))
        made.post_message(SnapshotTaken(a_run.live()))
        yield pilot


async def alone(size: tuple[int, int]) -> dict[str, str]:
    """What each mode paints if no other was ever opened."""
    found = {}
    for mode in KEYS:
        async with opened_in(mode, size) as pilot:
            found[mode] = await enter(pilot, mode)
    return found


@pytest.mark.parametrize("size", [SMALL, BIG])
async def test_each_mode_paints_the_same_whichever_it_is_entered_from(size: tuple[int, int]):
    first, walk = await alone(size), every_pair_once()
    assert set(itertools.pairwise(walk)) == set(PAIRS)
    async with opened_in(walk[0], size) as pilot:
        for before, mode in itertools.pairwise(walk):
            assert await enter(pilot, mode) == first[mode], (before, mode)


@pytest.mark.parametrize("size", [SMALL, BIG])
async def test_opening_a_mode_for_the_first_time_changes_no_other(size: tuple[int, int]):
    first = await alone(size)
    for before, mode in PAIRS:
        async with opened_in(before, size) as pilot:
            assert await enter(pilot, before) == first[before]
            assert await enter(pilot, mode) == first[mode], (before, mode)
            assert await enter(pilot, before) == first[before], (mode, before)


@pytest.mark.parametrize("file", sorted(MODES.rglob("*.tcss")), ids=lambda path: path.stem)
def test_every_style_rule_is_its_screens_own(file: Path):
    text = re.sub(r"/\*.*?\*/", "", file.read_text(), flags=re.DOTALL)
    for selectors, _ in re.findall(r"([^{}]+)\{([^}]*)\}", text):
        for selector in selectors.split(","):
            assert selector.strip().startswith(f"{file.stem.capitalize()}Screen"), selector


class Late(DeckOfFiles):
    """Answers a question only when it is told to."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.waiting: list[tuple[str, Any]] = []
        self.found = (Found("disks", "disk"),)

    def answer(self, mode: str) -> int:
        """Answer what the screen of that mode has asked; how many questions that were."""
        asked = [later for asker, later in self.waiting if asker == mode]
        self.waiting = [(asker, later) for asker, later in self.waiting if asker != mode]
        for later in asked:
            later()
        return len(asked)


def _late(name: str) -> Any:
    def ask(self: Late, asker: Any, *question: Any) -> None:
        mode = type(asker).__name__.removesuffix("Screen").lower()
        self.waiting.append((mode, lambda: getattr(DeckOfFiles, name)(self, asker, *question)))

    return ask


QUESTIONS = ("list_sessions", "preview_session", "compare_sessions", "read_session", "measure_paths", "find_sources")
for _name in QUESTIONS:
    setattr(Late, _name, _late(_name))
ASKS = {"plan": "", "run": "d", "monitor": "", "sessions": "enter", "doctor": ""}
"""A key that makes a mode ask for more than it asks for when it is opened."""


@pytest.mark.parametrize(("before", "mode"), PAIRS)
async def test_an_answer_that_comes_late_changes_nothing_in_another_mode(before: str, mode: str):
    async with opened_in(before, SMALL, Late) as pilot:
        deck = pilot.app
        deck.post_message(SnapshotTaken(a_run.finished()))
        await settle(pilot)
        if before == "sessions":
            deck.answer(before)
            await settle(pilot)
        await pilot.press(*filter(None, (ASKS[before],)), KEYS[mode])
        painted = await settle(pilot)
        while deck.answer(mode):
            painted = await settle(pilot)
        lies_over = len(deck.screen_stack)
        assert deck.answer(before) or not ASKS[before]
        assert await settle(pilot) == painted
        assert len(deck.screen_stack) == lies_over


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
real, count = feed.advance, 0
def broken(*given):
    global count
    count += 1
    if count == 3:
        raise LookupError("no such thing")
    return real(*given)
feed.advance = broken
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


async def test_no_screen_is_in_front_while_the_deck_closes(deck: DeckOfFiles):
    async with deck.run_test(size=SMALL):
        screen = deck.deck_screens[0]
        assert screen.is_current
        stack = deck._screen_stack[:]
        deck._screen_stack.clear()
        assert not screen.is_current
        deck._screen_stack.extend(stack)
