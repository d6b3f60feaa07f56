"""Modes in every order, answers to who asked, threads that outlive errors, and a deck that may only look."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import orjson
import pytest
from textual.pilot import Pilot

from kvdeck.app.tui import modes, session_changes
from kvdeck.app.tui.app import Deck
from kvdeck.app.tui.bindings import opening
from kvdeck.app.tui.comparison.diff import DiffScreen
from kvdeck.app.tui.comparison.report import ResultScreen
from kvdeck.app.tui.dialogs.confirm import Ask
from kvdeck.app.tui.messages import EngineChanged
from kvdeck.app.tui.modes.sessions.screen import SessionsScreen
from kvdeck.app.tui.requests import Requests
from kvdeck.app.tui.source_search import FoundSource
from kvdeck.app.tui.state import EngineState
from kvdeck.app.tui.threads import WorkThread
from kvdeck.app.tui.widgets.list import Page
from kvdeck.engine.protocol import RunInfo
from kvdeck.sessions.errors import KvdeckError
from kvdeck.sessions.model.records import Session
from kvdeck.sessions.store.store import Store
from tests.app.conftest import DeckOfFiles, FileRequests
from tests.support.builders import run as a_run
from tests.support.painted import BIG, SMALL, settle
from tests.support.programs.terminal import Terminal

KEYS = {"plan": "1", "run": "2", "monitor": "3", "sessions": "4", "traffic": "5", "doctor": "9"}
TUI = Path(__file__).parents[3] / "app" / "tui"


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
async def opened_in(mode: str, size: tuple[int, int], requests: FileRequests | None = None) -> AsyncIterator[Any]:
    """The pilot of a deck that opens in a mode, with a run going on."""
    # With a selection, if an empty one, the Monitor opens without its source dialog.
    made = DeckOfFiles(memory={"view": mode, "monitor": {"sources": []}}, requests=requests)
    async with made.run_test(size=size) as pilot:
        made.doctor = a_run.doctor()
        made.post_message(EngineChanged(a_run.live()))
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


@pytest.mark.parametrize("file", sorted(TUI.rglob("*.tcss")), ids=lambda path: path.stem)
def test_every_style_rule_is_its_screens_own(file: Path):
    text = re.sub(r"/\*.*?\*/", "", file.read_text(), flags=re.DOTALL)
    for selectors, _ in re.findall(r"([^{}]+)\{([^}]*)\}", text):
        for selector in selectors.split(","):
            assert selector.strip().startswith(f"{file.stem.capitalize()}Screen"), selector


class Late(FileRequests):
    """Answers a question only when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[asyncio.Future[Session]] = []

    async def load_session(self, name: str) -> Session:
        self.answers.append(asyncio.get_running_loop().create_future())
        return await self.answers[-1]


class Held(FileRequests):
    """Answers what each mode asks only when it is told to."""

    def __init__(self, first: str) -> None:
        super().__init__()
        self.mode: Callable[[], str] = lambda: first
        self.waiting: list[tuple[str, asyncio.Event]] = []
        self.found = (FoundSource("disks", "disk"),)

    def answer(self, mode: str) -> int:
        """Answer what was asked in that mode; how many questions that were."""
        asked = [told for asker, told in self.waiting if asker == mode]
        self.waiting = [(asker, told) for asker, told in self.waiting if asker != mode]
        for told in asked:
            told.set()
        return len(asked)


def _held(name: str) -> Any:
    async def ask(self: Held, *question: Any) -> Any:
        told = asyncio.Event()
        self.waiting.append((self.mode(), told))
        await told.wait()
        return await getattr(FileRequests, name)(self, *question)

    return ask


QUESTIONS = ("list_sessions", "load_session", "load_parts", "load_histograms", "load_bandwidth", "find_sources")
for _name in QUESTIONS:
    setattr(Held, _name, _held(_name))
ASKS = {"plan": "", "run": "d", "monitor": "", "sessions": "enter", "traffic": "", "doctor": ""}
"""A key that makes a mode ask for more than it asks for when it is opened."""


@pytest.mark.parametrize(("before", "mode"), PAIRS)
async def test_an_answer_that_comes_late_changes_nothing_in_another_mode(before: str, mode: str):
    requests = Held(before)
    async with opened_in(before, SMALL, requests) as pilot:
        deck = pilot.app
        requests.mode = lambda: deck.current_mode
        deck.post_message(EngineChanged(a_run.finished()))
        await settle(pilot)
        if before == "sessions":
            requests.answer(before)
            await settle(pilot)
        await pilot.press(*filter(None, (ASKS[before],)))
        await settle(pilot)
        await pilot.press(KEYS[mode])
        painted = await settle(pilot)
        while requests.answer(mode):
            painted = await settle(pilot)
        lies_over = len(deck.screen_stack)
        assert requests.answer(before) or not ASKS[before]
        assert await settle(pilot) == painted
        assert len(deck.screen_stack) == lies_over


async def test_an_answer_opens_nothing_over_another_mode():
    requests = Late()
    deck = DeckOfFiles(requests=requests)
    async with deck.run_test(size=(120, 40)) as pilot:
        deck.post_message(EngineChanged(a_run.finished()))
        await pilot.pause()
        await pilot.press("2", "d")
        (answer,) = requests.answers
        await pilot.press("4")
        assert answer.cancelled()
        assert isinstance(deck.screen, SessionsScreen)
        await pilot.press("2", "d")
        requests.answers[-1].set_result(a_run.session("x"))
        await pilot.pause()
        assert isinstance(deck.screen, DiffScreen)


async def test_a_question_of_a_screen_that_was_closed_is_given_up():
    requests = Late()
    deck = DeckOfFiles(requests=requests)
    requests.load_histograms = lambda session: requests.load_session(session.name)  # type: ignore[assignment,return-value]
    async with deck.run_test(size=(120, 40)) as pilot:
        await deck.push_screen(ResultScreen(a_run.session("x")))
        await pilot.pause()
        (answer,) = requests.answers
        await pilot.press("escape")
        await pilot.pause()
        assert answer.cancelled()


async def test_only_the_newest_preview_is_read(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(SessionsScreen, "_show_sessions", lambda *_: None)  # no row asks for its own preview
    requests = Late()
    deck = DeckOfFiles(requests=requests)
    async with deck.run_test(size=(120, 40)) as pilot:
        await pilot.press("4")
        screen = deck.screen
        assert isinstance(screen, SessionsScreen)
        await pilot.pause()
        screen._preview("one")
        screen._preview("two")
        await pilot.pause()
        *others, last = requests.answers
        assert all(answer.cancelled() for answer in others)
        last.set_result(a_run.session("two"))
        await pilot.pause()
        assert screen.previewed is not None
        assert screen.previewed.name == "two"


@pytest.mark.parametrize(
    "memory",
    ["{}", '{"view":"sessions"}', '{"view":"monitor"}', '{"view":5,"sort":[],"hidden":{}}', "[1]", "\xff{", ""],
)
def test_whatever_the_deck_remembers_it_opens_and_loads(tmp_path: Path, memory: str):
    home = tmp_path / "home"
    Store(home).keep(Session("kept-one", "done", time.time()))
    (home / "deck.json").write_bytes(memory.encode("latin-1"))
    environ = {"KVDECK_HOME": str(home), "KVDECK_RUNTIME": str(tmp_path / "rt"), "HOME": str(tmp_path)}
    deck = Terminal((120, 40), "from kvdeck.app.tui.launch import run_deck; run_deck(readonly=True)", **environ)
    try:
        if "monitor" in memory:
            assert deck.shows("Found on this host")
            os.write(deck.master, b"\x1b")
            assert deck.hides("Found on this host")
        if "sessions" not in memory:
            assert deck.shows("Run")
            os.write(deck.master, b"4")
        assert deck.shows("kept-one"), "\n".join(deck.screen.display)
    finally:
        deck.close()


async def test_an_unexpected_error_is_the_answer_and_not_the_end(monkeypatch: pytest.MonkeyPatch):
    def broken(*_: object) -> None:
        raise LookupError("no such thing")

    monkeypatch.setattr("kvdeck.sessions.store.catalogue.catalogue", broken)
    monkeypatch.setattr("kvdeck.sessions.store.lookup.find", broken)
    monkeypatch.setattr("kvdeck.sessions.store.lookup.find_part", broken)
    monkeypatch.setitem(session_changes._CHANGES, "tag", broken)
    requests = Requests(live=False)
    for question in (
        requests.list_sessions(),
        requests.load_session("x"),
        requests.load_parts(("x", "y")),
        requests.change_session("tag", "x"),
    ):
        with pytest.raises(KvdeckError, match="unexpected LookupError: no such thing"):
            await question


async def test_a_question_given_up_before_its_turn_is_not_worked_on():
    thread, begun, done = WorkThread("kvdeck-test"), threading.Event(), []
    blocked = threading.Event()

    def block() -> None:
        begun.set()
        blocked.wait()

    first = asyncio.create_task(thread.do(block))
    second = asyncio.create_task(thread.do(lambda: done.append("second")))
    third = asyncio.create_task(thread.do(lambda: done.append("third")))
    await asyncio.to_thread(begun.wait)
    second.cancel()
    await asyncio.wait({second})
    blocked.set()
    await asyncio.gather(first, third)
    assert done == ["third"]


async def test_a_new_mode_is_a_folder_and_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "load"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "screen.py").write_text(
        "from kvdeck.app.tui.modes.base import DeckScreen\n"
        "from kvdeck.app.tui.widgets.list import Page\n"
        "class LoadScreen(DeckScreen):\n"
        "    def body(self):\n"
        "        yield Page(lambda width, focused: [((' what comes back', ''),)], id='load')\n"
    )
    monkeypatch.setattr(modes, "__path__", [*modes.__path__, str(tmp_path)])
    row = modes.Mode("6", "load", "Load", "Load: what comes back from the tiers", "LoadScreen")
    table = (*modes.MODES, row)

    class DeckWithLoad(Deck):
        MODES: ClassVar = {mode.id: mode.open for mode in table}
        BINDINGS: ClassVar = [opening(row)]

    deck = DeckWithLoad(requests=FileRequests())
    async with deck.run_test(size=(120, 40)) as pilot:
        await pilot.press("6")
        await pilot.pause()
        assert deck.current_mode == "load"
        assert "what comes back" in deck.screen.query_one("#load", Page).plain
        await pilot.press("4", "6", "2")
        assert deck.current_mode == "run"


BROKEN_FOLD = """
from kvdeck.app.tui import connection, launch
real, count = connection.advance, 0
def broken(*given):
    global count
    count += 1
    if count == 3:
        raise LookupError("no such thing")
    return real(*given)
connection.advance = broken
launch.run_deck()
"""


def test_a_connection_that_meets_an_unexpected_error_says_so_and_goes_on(tmp_path: Path):
    environ = {"KVDECK_HOME": str(tmp_path / "home"), "KVDECK_RUNTIME": str(tmp_path / "rt"), "HOME": str(tmp_path),
               "KVDECK_IDLE_EXIT": "2"}  # fmt: skip
    deck = Terminal((120, 40), BROKEN_FOLD, **environ)
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
    deck = Terminal((120, 40), "from kvdeck.app.tui.launch import run_deck; run_deck(readonly=True)", **environ)
    try:
        assert deck.shows("Where KV moves")
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


class Slow(FileRequests):
    """Queues a run only when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.queued = asyncio.Event()

    async def submit(self, spec: Mapping[str, Any], kind: str | None = None) -> str:
        await self.queued.wait()
        return "new"


async def test_x_right_after_a_cancels_the_run_that_was_asked_for():
    requests = Slow()
    deck = DeckOfFiles(requests=requests)
    idle = EngineState("connected", "", 1)
    async with deck.run_test(size=(120, 40)) as pilot:
        deck.post_message(EngineChanged(idle))
        await pilot.press("2", "x")
        assert requests.asked == []
        await pilot.press("a", "x")
        assert deck.submissions.pending
        assert requests.asked == []
        requests.queued.set()
        await pilot.pause()
        assert requests.asked == [("cancel", "new")]
        await pilot.press("x")
        await pilot.pause()
        assert requests.asked == [("cancel", "new")] * 2, "queued, and not in the picture yet"
        deck.post_message(EngineChanged(replace(idle, runs=(RunInfo("new", "running", 1.0),))))
        await pilot.pause()
        deck.post_message(EngineChanged(replace(idle, runs=())))
        await pilot.pause()
        deck.post_message(EngineChanged(idle))
        await pilot.pause()
        await pilot.press("x")
        await pilot.pause()
        assert len(requests.asked) == 2, "it was seen: x has nothing to cancel"


async def test_a_command_that_is_refused_leaves_a_run_that_is_being_queued():
    requests = Slow()
    deck = DeckOfFiles(requests=requests)

    async def refuse(session: str) -> None:
        raise KvdeckError("no such run")

    requests.follow = refuse  # type: ignore[method-assign]
    async with deck.run_test(size=(120, 40)) as pilot:
        deck.submit({})
        deck.ask(lambda: requests.follow("old"))
        await pilot.pause()
        assert deck.submissions.pending
        await pilot.press("q")
        assert isinstance(deck.screen, Ask)


def test_x_right_after_a_in_the_real_deck(tmp_path: Path):
    environ = {"KVDECK_HOME": str(tmp_path / "home"), "KVDECK_RUNTIME": str(tmp_path / "rt"), "HOME": str(tmp_path),
               "KVDECK_IDLE_EXIT": "2"}  # fmt: skip
    deck = Terminal((120, 40), "from kvdeck.app.tui.launch import run_deck; run_deck()", **environ)
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
