"""The Sessions screen and Diff: what keys do to what is shown, and what they ask the deck for."""

from __future__ import annotations

import asyncio
import csv

import pytest
from msgspec.structs import replace
from textual.pilot import Pilot
from textual.worker import get_current_worker

from kvdeck.app.tui.comparison.diff import Behind, DiffScreen, Head, care_texts
from kvdeck.app.tui.comparison.report import ResultScreen
from kvdeck.app.tui.dialogs.help import Help, HelpPane
from kvdeck.app.tui.messages import EngineChanged
from kvdeck.app.tui.modes.sessions.diff_many import VersusScreen
from kvdeck.app.tui.widgets.bars import curve_rows
from kvdeck.app.tui.widgets.lines import Lines
from kvdeck.app.tui.widgets.list import Listing
from kvdeck.sessions.errors import KvdeckError
from kvdeck.sessions.model.records import Session
from kvdeck.sessions.store.index import SessionSummary
from tests.app.conftest import KEPT, Answered
from tests.app.tui.test_dialogs_and_keys import notes
from tests.support.builders import run as a_run

SIZE = (120, 40)


def plain(deck: Answered, selector: str) -> str:
    return deck.screen.query_one(selector, Lines).plain


async def until(pilot: Pilot[None], holds) -> None:
    for _ in range(200):
        if holds():
            return
        await pilot.pause(0.01)
    pytest.fail("it did not come about in time")


async def test_two_marked_sessions_become_a_diff(deck: Answered):
    async with deck.run_test(size=SIZE) as pilot:
        await pilot.press("4", "space", "space")
        marks = [line.strip()[:1] for line in plain(deck, "#list").splitlines()[1:3]]
        assert marks == ["A", "B"]
        await pilot.press("d")
        await until(pilot, lambda: isinstance(deck.screen, DiffScreen))
        assert deck.requests.asked == [("compare", (KEPT[0].name, KEPT[1].name))]
        await pilot.press("escape")
        assert plain(deck, "#list").splitlines()[1].lstrip().startswith("A")
        await pilot.press("escape")
        assert not plain(deck, "#list").splitlines()[1].lstrip().startswith("A")


async def test_a_finished_run_s_layouts_are_one_key_away_from_the_run_screen(deck: Answered):
    async with deck.run_test(size=SIZE) as pilot:
        deck.post_message(EngineChanged(a_run.live()))
        await pilot.pause()
        await pilot.press("d")
        assert not isinstance(deck.screen, DiffScreen)
        deck.post_message(EngineChanged(a_run.finished()))
        await pilot.pause()
        await pilot.press("d")
        await until(pilot, lambda: isinstance(deck.screen, DiffScreen) and "1.31×" in plain(deck, "#rows"))


async def test_one_run_s_layouts_are_one_key_away(deck: Answered):
    async with deck.run_test(size=SIZE) as pilot:
        await pilot.press("4", "d")
        await until(pilot, lambda: isinstance(deck.screen, DiffScreen) and "1.31×" in plain(deck, "#rows"))
        assert deck.requests.asked == [("compare", (f"{KEPT[0].name}:fc", f"{KEPT[0].name}:ls"))]
        head = deck.screen.query_one(Head).plain
        assert f"{KEPT[0].name}:fc" in head
        behind = deck.screen.query_one(Behind)
        await until(pilot, lambda: behind.spreads is not None)
        assert "desc./block" in behind.plain
        assert "slower" in behind.plain.splitlines()[-1]


async def test_the_rows_of_a_diff_are_copied_with_what_their_bars_draw(deck: Answered):
    async with deck.run_test(size=SIZE) as pilot:
        await pilot.press("4", "d")
        await until(pilot, lambda: isinstance(deck.screen, DiffScreen) and "1.31×" in plain(deck, "#rows"))
        await pilot.press("Y")
        await pilot.pause()
        first, *others = csv.DictReader(deck.clipboard.splitlines())
        assert len(others) == 2
        assert [first[title] for title in ("path", "layout A", "block bytes", "batch", "verdict")] == [
            "HostToHost",
            "FullyContiguous",
            str(2 << 20),
            "16",
            "slower",
        ]
        ratio, low, high = (float(first[title]) for title in ("B's time over A's", "95 % low", "95 % high"))
        assert low < ratio < high
        assert f"GB/s B: {KEPT[0].name}:ls" in first
        await pilot.press("y")
        await pilot.pause()
        assert deck.clipboard.startswith("## ")
        assert "●" not in deck.clipboard


async def test_what_the_head_has_no_room_for_is_copied(deck: Answered):
    async with deck.run_test(size=SIZE) as pilot:
        await pilot.press("4")
        hosts = {**a_run.session().host, "hostname": "other", "cpu": "another", "kernel": "5.4"}
        other = replace(a_run.session("b"), state="cancelled", host=hosts, nixl="1.4")
        screen = DiffScreen(a_run.session("a"), other)
        deck.push_screen(screen)
        await until(pilot, lambda: screen.ready and "y copies them all" in plain(deck, "#head"))
        await pilot.press("y")
        for text in care_texts(screen.diff, screen.a, screen.b):
            assert f"- {text}" in deck.clipboard
        assert "- B is cancelled" in deck.clipboard


async def test_a_diff_opened_from_a_report_doesnt_name_the_list(deck: Answered):
    async with deck.run_test(size=SIZE) as pilot:
        await pilot.press("4", "enter")
        await until(pilot, lambda: isinstance(deck.screen, ResultScreen))
        await pilot.press("d")
        await until(pilot, lambda: isinstance(deck.screen, DiffScreen) and "Esc back" in plain(deck, "#head"))
        assert "list" not in plain(deck, "#head")
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(deck.screen, Help))
        assert "Go back to the list" not in deck.screen.query_one(HelpPane).plain


async def test_swapping_turns_the_ratio_round(deck: Answered):
    async with deck.run_test(size=SIZE) as pilot:
        await pilot.press("4", "d")
        await until(pilot, lambda: isinstance(deck.screen, DiffScreen) and "1.31×" in plain(deck, "#rows"))
        await pilot.press("X")
        assert "0.76×" in plain(deck, "#rows")
        assert plain(deck, "#head").splitlines()[1].split()[1:3] == ["A", f"{KEPT[0].name}:ls"]


async def test_what_does_not_compare_stands_above(deck: Answered):
    async with deck.run_test(size=SIZE) as pilot:
        deck.push_screen(DiffScreen(a_run.session("one"), a_run.compared("nvme-sweep")))
        await pilot.pause()
        assert "host: dgx-01 and dgx-02" in plain(deck, "#head")


async def test_a_sweep_has_curves_and_distributions(deck: Answered):
    async with deck.run_test(size=SIZE) as pilot:
        deck.push_screen(DiffScreen(a_run.swept("one"), a_run.swept("two", 1.3)))
        await pilot.pause()
        assert "GB/s against block size" in plain(deck, "#behind")
        await pilot.press("v")
        assert "request times" in plain(deck, "#behind")


async def test_the_diff_is_copied_as_markdown(deck: Answered):
    async with deck.run_test(size=SIZE) as pilot:
        deck.push_screen(DiffScreen(a_run.swept("one"), a_run.swept("two", 1.3)))
        await pilot.pause()
        await pilot.press("y")
        assert deck.clipboard.startswith("## one and two")


async def test_three_sessions_stand_against_a_baseline(deck: Answered):
    async with deck.run_test(size=SIZE) as pilot:
        await pilot.press("4", "space", "space", "space", "d")
        await until(pilot, lambda: isinstance(deck.screen, VersusScreen))
        assert f"3 sessions against {KEPT[0].name}" in plain(deck, "#versus")
        await pilot.press("b")
        assert f"3 sessions against {KEPT[1].name}" in plain(deck, "#versus")


async def test_deleting_asks_twice(deck: Answered):
    async with deck.run_test(size=SIZE) as pilot:
        await pilot.press("4", "D", "y")
        assert deck.requests.asked == []
        await pilot.press("n")
        assert deck.requests.asked == []
        await pilot.press("D", "y", "y")
        assert deck.requests.asked == [("delete", (KEPT[0].name, ""))]


@pytest.mark.parametrize(
    ("key", "typed", "asked"),
    [("N", "-2", ("rename", f"{KEPT[0].name}-2")), ("T", "tp8", ("tag", "tp8")), ("n", "x", ("note", "x"))],
)
async def test_names_tags_and_notes(deck: Answered, key: str, typed: str, asked: tuple[str, str]):
    async with deck.run_test(size=SIZE) as pilot:
        await pilot.press("4", key)
        await pilot.press(*(character if character != "-" else "minus" for character in typed), "enter")
        await until(pilot, lambda: bool(deck.requests.asked))
        assert deck.requests.asked == [(asked[0], (KEPT[0].name, asked[1]))]


async def test_escape_leaves_a_name_as_it_is(deck: Answered):
    async with deck.run_test(size=SIZE) as pilot:
        await pilot.press("4", "n", "x", "escape")
        assert deck.requests.asked == []


async def test_dynamo_s_files_are_not_changed(deck: Answered):
    deck.requests.kept = (replace(KEPT[0], kind="dynamo"),)
    async with deck.run_test(size=SIZE) as pilot:
        await pilot.press("4", "D")
        await pilot.press("n")
        assert deck.requests.asked == []
        await pilot.press("E", "enter")
        await until(pilot, lambda: bool(deck.requests.asked))
        assert deck.requests.asked[0][0] == "export"


async def test_the_preview_follows_the_cursor(deck: Answered):
    async with deck.run_test(size=SIZE) as pilot:
        await pilot.press("4", "down")
        await until(pilot, lambda: f"kvdeck session {KEPT[1].name}" in plain(deck, "#preview"))


async def test_a_session_that_is_recorded_into_ticks(deck: Answered):
    row = replace(KEPT[0], kind="trace", state="recording", transfers=5, steps=1)
    async with deck.run_test(size=(200, 60)) as pilot:
        deck.requests.kept = (row,)
        await pilot.press("4")
        await until(pilot, lambda: "recording" in plain(deck, "#list"))
        deck.requests.kept = (replace(row, transfers=1234),)
        await until(pilot, lambda: "1,234" in plain(deck, "#list"))


async def test_marks_of_sessions_that_are_gone_are_dropped(deck: Answered):
    async with deck.run_test(size=SIZE) as pilot:
        await pilot.press("4", "space")
        deck.requests.kept = KEPT[1:]
        await pilot.press("r")
        await until(pilot, lambda: len(deck.screen.query_one("#list", Listing).items) == 2)
        assert deck.screen.marked == []


async def test_a_change_that_fails_is_said_and_the_list_is_read_again(deck: Answered, monkeypatch: pytest.MonkeyPatch):
    async def refuse(*_: str) -> str:
        deck.requests.kept = KEPT[1:]
        raise KvdeckError("it can't be")

    monkeypatch.setattr(deck.requests, "change_session", refuse)
    async with deck.run_test(size=SIZE) as pilot:
        await pilot.press("4", "n", "x", "enter")
        await until(pilot, lambda: len(deck.screen.query_one("#list", Listing).items) == 2)
        assert notes(deck) == ["it can't be"]


async def test_changes_never_keep_a_slow_list_from_being_shown(deck: Answered, monkeypatch: pytest.MonkeyPatch):
    reads: list[asyncio.Event] = []

    async def slow() -> tuple[SessionSummary, ...]:
        reads.append(asyncio.Event())
        await reads[-1].wait()
        return KEPT[len(reads) - 1 :]

    monkeypatch.setattr(deck.requests, "list_sessions", slow)
    async with deck.run_test(size=SIZE) as pilot:
        await pilot.press("4", "r", "r", "r")
        assert len(reads) == 1
        reads[0].set()
        await until(pilot, lambda: len(reads) == 2)
        assert len(deck.screen.query_one("#list", Listing).items) == 3
        reads[1].set()
        await until(pilot, lambda: len(deck.screen.query_one("#list", Listing).items) == 2)
        assert len(reads) == 2


def many_runs(count: int) -> tuple[SessionSummary, ...]:
    return tuple(replace(KEPT[0], name=f"run-{number:03}", created=KEPT[0].created - number) for number in range(count))


async def test_the_list_takes_the_height_there_is_after_a_resize_and_without_a_preview(deck: Answered):
    async with deck.run_test(size=SIZE) as pilot:
        await pilot.press("4")
        listing = deck.screen.query_one("#list", Listing)
        await until(pilot, lambda: listing.size.height == 7)
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: listing.size.height == 21)
        await pilot.resize_terminal(*SIZE)
        await until(pilot, lambda: listing.size.height == 7)
        commands = {command.title: command for command in deck.get_system_commands(deck.screen)}
        commands["panes: hide preview"].callback()
        await until(pilot, lambda: listing.size.height == 37)


async def test_without_sessions_there_is_no_preview(deck: Answered):
    kept, deck.requests.kept = deck.requests.kept, ()
    async with deck.run_test(size=SIZE) as pilot:
        await pilot.press("4")
        await until(pilot, lambda: "no session yet" in plain(deck, "#list"))
        await until(pilot, lambda: not deck.screen.query_one("#preview").display)
        deck.requests.kept = kept
        await pilot.press("r")
        await until(pilot, lambda: deck.screen.query_one("#preview").display)


async def test_the_verdicts_of_rows_that_come_into_view_are_read(deck: Answered):
    deck.requests.kept = many_runs(130)
    async with deck.run_test(size=SIZE) as pilot:
        await pilot.press("4")
        listing = deck.screen.query_one("#list", Listing)
        await until(pilot, lambda: len(deck.screen.results) == 60)
        assert "H→H" in plain(deck, "#list")
        await pilot.press("G")
        await until(pilot, lambda: "H→H" in plain(deck, "#list").splitlines()[-1])
        await pilot.press("g", "slash", *"run-08", "enter")
        await until(pilot, lambda: len(listing.items) == 10 and plain(deck, "#list").count("H→H") == 10)


async def test_rereading_the_list_doesnt_read_a_sessions_verdicts_anew(deck: Answered, monkeypatch: pytest.MonkeyPatch):
    deck.requests.kept = many_runs(3)
    going, asked = asyncio.Event(), []

    async def slow(name: str) -> Session:
        if get_current_worker().group == "results":  # the preview asks too
            asked.append(name)
        await going.wait()
        return a_run.session(name)

    async with deck.run_test(size=SIZE) as pilot:
        monkeypatch.setattr(deck.requests, "load_session", slow)
        await pilot.press("4")
        await until(pilot, lambda: asked == ["run-000"])
        for _ in range(3):
            await pilot.press("r")
            await until(pilot, lambda: not deck.screen._listing)
        going.set()
        await until(pilot, lambda: len(deck.screen.results) == 3)
        assert asked == ["run-000", "run-001", "run-002"]


async def test_another_session_of_a_deleted_ones_name_has_its_own_verdicts(deck: Answered):
    (row,) = many_runs(1)
    deck.requests.kept = (row,)
    async with deck.run_test(size=SIZE) as pilot:
        await pilot.press("4")
        await until(pilot, lambda: "H→H" in plain(deck, "#list"))
        other = replace(row, created=row.created + 5, ended=None, state="crashed", reason="the worker ended by SIGSEGV")
        deck.requests.kept = (other,)
        await pilot.press("r")
        await until(pilot, lambda: "SIGSEGV" in plain(deck, "#list"))


async def test_the_cursor_goes_to_the_followed_run_only_when_the_mode_is_opened(deck: Answered):
    rows = (*many_runs(3), replace(KEPT[0], name=a_run.NAME, created=1.0))
    deck.requests.kept = rows
    async with deck.run_test(size=SIZE) as pilot:
        await pilot.press("4", "down")
        listing = deck.screen.query_one("#list", Listing)
        await until(pilot, lambda: listing.under_cursor == rows[1])
        deck.post_message(EngineChanged(a_run.live()))
        await until(pilot, lambda: deck.screen.known and not deck.screen._listing)
        assert listing.under_cursor == rows[1]
        await pilot.press("enter")
        await until(pilot, lambda: deck.screen is not deck.screen_stack[0])
        await pilot.press("escape")
        await until(pilot, lambda: deck.screen is deck.screen_stack[0])
        assert listing.under_cursor == rows[1]
        await pilot.press("2", "4")
        await until(pilot, lambda: listing.under_cursor == rows[3])


def test_curves_without_two_sizes_are_empty():
    assert curve_rows([("run", [(4096.0, 1.0)])], 60, 8) == []
