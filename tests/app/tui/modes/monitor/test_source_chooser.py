"""The Monitor's source dialog: what it shows while the search goes on, what Enter waits for, and what is added."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from kvdeck.app.cli.record_option import sources_to_record
from kvdeck.app.tui.dialogs.prompt import AskText, Refusal
from kvdeck.app.tui.modes.monitor.panes.tiers import Tiers
from kvdeck.app.tui.modes.monitor.screen import LOOKING, MonitorScreen
from kvdeck.app.tui.modes.monitor.source_chooser import SourceChooser
from kvdeck.app.tui.modes.monitor.source_list import SourceList
from kvdeck.app.tui.source_search import FoundSource, FoundSources, Progress, SilentProcess, find_sources
from kvdeck.engine.telemetry.discovery import named
from kvdeck.sessions.errors import KvdeckError, UsageError
from tests.app.conftest import Answered, DeckOfFiles, FileRequests
from tests.engine.telemetry.test_address import REFUSED, TEXTS
from tests.engine.telemetry.test_discovery import engine
from tests.support.painted import BIG, SMALL

DISKS = FoundSource("disks", "disk")
VLLM = FoundSource("http://127.0.0.1:8000/metrics", "vllm")
SLOW = "http://127.0.0.1:9400/metrics"
SILENT = SilentProcess("vllm 4242", "port 7000: serves a web page, not metrics")


class Searching(FileRequests):
    """A search whose steps the test gives."""

    def __init__(self) -> None:
        super().__init__()
        self.show: list[Progress] = []
        self.ends: list[asyncio.Future[FoundSources]] = []

    async def find_sources(self, progress: Progress) -> FoundSources:
        self.show.append(progress)
        self.ends.append(asyncio.get_running_loop().create_future())
        return await self.ends[-1]


@asynccontextmanager
async def opened(
    size: tuple[int, int] = SMALL, memory: dict[str, Any] | None = None
) -> AsyncIterator[tuple[Pilot[None], Answered, SourceChooser, Searching]]:
    """The dialog as it stands when it is opened for the first time."""
    requests = Searching()
    deck = DeckOfFiles(memory=memory or {}, requests=requests)
    async with deck.run_test(size=size) as pilot:
        await pilot.press("3")
        await pilot.pause()
        if memory:
            await pilot.press("s")
            await pilot.pause()
        assert isinstance(deck.screen, SourceChooser)
        yield pilot, deck, deck.screen, requests


def shown(chooser: SourceChooser) -> list[str]:
    return [line.strip() for line in chooser.query_one(SourceList).plain.splitlines() if line.strip()]


def selected(deck: Answered) -> object:
    screen = deck.screen_stack[0]
    assert isinstance(screen, MonitorScreen)
    return screen.settings.sources


async def test_what_is_found_is_shown_at_once_and_enter_waits_for_the_rest() -> None:
    async with opened() as (pilot, deck, chooser, search):
        search.show[0](FoundSources((DISKS,), awaited=(VLLM.name, SLOW)))
        await pilot.pause()
        assert "[x] disk       disks" in chooser.list.plain
        assert "asked      http://127.0.0.1:8000/metrics" in chooser.list.plain
        assert "no answer yet from 2 addresses" in chooser.list.plain
        await pilot.press("enter")
        assert deck.screen is chooser, "half a list is not taken"
        assert "starts when the search ends: 2 addresses left · Enter again: now" in chooser.list.plain
        search.show[0](FoundSources((VLLM, DISKS), awaited=(SLOW,)))
        search.ends[0].set_result(FoundSources((VLLM, DISKS), done=True))
        await pilot.pause()
        assert selected(deck) == (VLLM.name, "disks")


async def test_a_second_enter_takes_what_is_there_and_says_what_is_not() -> None:
    async with opened() as (pilot, deck, _, search):
        search.show[0](FoundSources((DISKS,), awaited=(SLOW,)))
        await pilot.press("enter", "enter")
        assert selected(deck) == ("disks",)
        assert [note.message for note in deck._notifications] == [
            "started before the search ended (no answer from :9400): s shows what else is found"
        ]


async def test_enter_waits_no_longer_than_the_limit() -> None:
    async with opened() as (pilot, deck, chooser, search):
        search.show[0](FoundSources((DISKS,), awaited=(SLOW,)))
        await pilot.press("enter")
        chooser._reach_limit()
        await pilot.pause()
        assert selected(deck) == ("disks",)
    async with opened() as (pilot, deck, chooser, search):
        search.show[0](FoundSources((DISKS,), awaited=(SLOW,)))
        chooser._reach_limit()
        await pilot.press("enter")
        assert selected(deck) == ("disks",), "after the limit Enter doesn't wait"


@pytest.mark.parametrize("fails", [False, True])
async def test_the_screen_behind_says_that_it_searches_only_as_long_as_it_does(fails: bool) -> None:
    async with opened() as (pilot, deck, _, search):
        screen = deck.screen_stack[0]
        assert isinstance(screen, MonitorScreen)
        behind = screen.query_one(Tiers)
        search.live = True  # only the deck of an engine says what it waits for
        screen.draw()
        assert LOOKING in behind.plain
        if fails:
            search.ends[0].set_exception(KvdeckError("the search for sources failed: killed"))
        else:
            search.ends[0].set_result(FoundSources(done=True))
        await pilot.pause()
        assert LOOKING not in behind.plain
        assert "No source selected." in behind.plain


@pytest.mark.parametrize("size", [SMALL, BIG])
async def test_a_process_without_an_endpoint_is_listed_with_the_reason(size: tuple[int, int]) -> None:
    async with opened(size) as (pilot, deck, chooser, search):
        search.ends[0].set_result(FoundSources((DISKS,), (SILENT,), unanswered=(SLOW,), done=True))
        await pilot.pause()
        rows = shown(chooser)
        assert "–   no endpoint vllm 4242: port 7000: serves a web page, not metrics" in rows
        assert any(SLOW in row and row.startswith("▸ [ ]") and row.endswith("no answer in 2.5 s") for row in rows)
        await pilot.press("down", "down", "space", "enter")
        assert selected(deck) == ("disks",)


async def test_rows_and_cursor_stay_while_the_search_goes_on() -> None:
    memory = {"monitor": {"sources": ["network", "http://gpu-7:6880/metrics"], "known": ["network"]}}
    async with opened(memory=memory) as (pilot, deck, chooser, search):
        assert [entry.name for entry in chooser.list.entries] == ["http://gpu-7:6880/metrics", "network"]
        await pilot.press("down")
        search.show[-1](FoundSources((DISKS, FoundSource("network", "network")), awaited=(VLLM.name,)))
        search.show[-1](FoundSources((VLLM, DISKS, FoundSource("network", "network")), done=True))
        await pilot.pause()
        names = [entry.name for entry in chooser.list.entries]
        assert names == ["http://gpu-7:6880/metrics", VLLM.name, "network", "disks"]
        assert names[chooser.list.place] == "network"
        height = chooser.list.size.height
        await pilot.press("r")
        assert [entry.name for entry in chooser.list.entries] == names, "a new search takes no row away before its end"
        assert chooser.list.size.height == height
        search.ends[-1].set_result(FoundSources((DISKS,), done=True))
        await pilot.pause()
        assert [entry.name for entry in chooser.list.entries] == ["http://gpu-7:6880/metrics", "network", "disks"]
        await pilot.press("enter")
        assert selected(deck) == ("http://gpu-7:6880/metrics", "network")


async def test_a_source_is_typed_without_erasing_and_what_is_refused_says_why_in_the_dialog(tmp_path: Path) -> None:
    (tmp_path / "bench.json").write_text("{}")
    async with opened() as (pilot, deck, chooser, search):
        search.ends[0].set_result(FoundSources((DISKS,), done=True))
        await pilot.pause()
        await pilot.press("a")
        entry = deck.screen
        assert isinstance(entry, AskText)
        typed = entry.query_one(Input)
        assert typed.value == ""
        await pilot.press(*"vllm", "enter")
        await until(pilot, lambda: bool(entry.query_one(Refusal).plain.strip()))
        assert "'vllm' is not an address, a path or one of" in entry.query_one(Refusal).plain
        assert "fix: for an endpoint give its port, vllm:PORT" in entry.query_one(Refusal).plain
        assert typed.value == "vllm"
        await pilot.press(*":80")
        assert not entry.query_one(Refusal).plain.strip(), "it goes with the next key"
        await pilot.press("enter")
        await until(pilot, lambda: deck.screen is chooser)
        await pilot.press("a")
        deck.screen.query_one(Input).value = str(tmp_path / "bench.json")
        await pilot.press("enter")
        await until(pilot, lambda: deck.screen is chooser)
        await pilot.press("a", *"disks", "enter")
        await until(pilot, lambda: deck.screen is chooser)
        await pilot.press("enter")
        session = f"session {tmp_path / 'bench.json'}"
        assert selected(deck) == ("http://vllm:80/metrics", session, "disks")


@pytest.mark.parametrize("text", [*TEXTS, *REFUSED])
async def test_the_dialog_and_the_command_line_take_the_same(text: str, tmp_path: Path) -> None:
    async def command_line() -> str:
        return str([source.name for source in named([text], tmp_path)])

    async def recorded_beside_a_run() -> str:
        return str(sources_to_record((text,)))

    async def dialog() -> str:
        return await SourceChooser(None, lambda _: None)._checked(text)

    answers = [await _taken(ask) for ask in (command_line, recorded_beside_a_run, dialog)]
    assert len({taken for taken, _ in answers}) == 1, answers
    refusals = {said for taken, said in answers if not taken}
    assert len(refusals) <= 1, "one reason everywhere"


async def _taken(ask: Callable[[], Awaitable[str]]) -> tuple[bool, str]:
    try:
        return True, await ask()
    except UsageError as error:
        return False, str(error)


async def test_a_mode_key_over_a_dialog_says_that_the_dialog_is_open() -> None:
    async with opened() as (pilot, deck, chooser, _):
        await pilot.press("2")
        assert deck.screen is chooser
        assert [note.message for note in deck._notifications] == ["close this dialog first: Esc"]
        await pilot.press("escape", "question_mark", "1")
        assert len(deck.screen_stack) == 2
        assert len(deck._notifications) == 2


async def test_a_search_shows_the_hosts_sources_before_it_asks_a_port(tmp_path: Path) -> None:
    seen: list[FoundSources] = []
    with engine(tmp_path, "metrics") as (_, port), engine(tmp_path, "nothing") as (still, _):
        found = await find_sources(seen.append)
    url = f"http://127.0.0.1:{port}/metrics"
    assert FoundSource(url, "kvbm") in found.sources
    assert SilentProcess(f"vllm {still.pid}", "listens on no TCP port") in found.silent
    assert (found.done, found.awaited) == (True, ())
    assert {"disks", "network"} <= {source.name for source in seen[0].sources}
    assert all(not source.name.startswith("http") for source in seen[0].sources)


async def until(pilot: Pilot[None], true: Callable[[], bool]) -> None:
    while not true():
        await pilot.pause(0.01)
