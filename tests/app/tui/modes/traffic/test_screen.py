"""The Traffic mode: its keys and its mouse, files that are refused, and tests that the engine runs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from kvdeck.app.tui.dialogs.confirm import Ask
from kvdeck.app.tui.dialogs.picker import Picker
from kvdeck.app.tui.messages import EngineChanged
from kvdeck.app.tui.modes.traffic.diff import TrafficDiffScreen
from kvdeck.app.tui.modes.traffic.generator_dialog import GeneratorDialog
from kvdeck.app.tui.modes.traffic.matrix_pane import MatrixPane
from kvdeck.app.tui.modes.traffic.panes import AnswerPane, PatternList, RankPane
from kvdeck.app.tui.modes.traffic.screen import TrafficScreen
from kvdeck.app.tui.modes.traffic.timeline_pane import TimelinePane
from kvdeck.app.tui.widgets.lines import Lines
from kvdeck.engine.traffic.config import read_config
from kvdeck.engine.traffic.matrix import matrix_text
from kvdeck.engine.traffic.spec import traffic_spec
from tests.app.conftest import Answered, DeckOfFiles
from tests.app.tui.modes.traffic.test_pictures import BEFORE, TwoTests
from tests.support.builders import traffic
from tests.support.painted import BIG, SMALL

PATIENCE_S = 30.0


@pytest.fixture
def deck(tmp_path: Path) -> Answered:
    requests = TwoTests()
    requests.plans = tmp_path / "home" / "plans"
    return DeckOfFiles(requests=requests, memory={"view": "traffic"})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    for number in range(2):
        (tmp_path / f"{number}.txt").write_text(matrix_text(traffic.matrix(number)))
    path = tmp_path / "patterns.yaml"
    path.write_text("traffic_patterns:\n- matrix_file: 0.txt\n- matrix_file: 1.txt\n")
    return path


def screen_of(deck: Answered) -> TrafficScreen:
    return cast(TrafficScreen, deck.deck_screens[0])


async def until(pilot: Pilot[None], true: Callable[[], object]) -> None:
    async def wait() -> None:
        while not true():
            await pilot.pause(0.01)

    await asyncio.wait_for(wait(), PATIENCE_S)


async def opened(pilot: Pilot[None], path: Path, by_keys: bool = False) -> TrafficScreen:
    """Open a file, as the dialog does."""
    deck = cast(Answered, pilot.app)
    screen = screen_of(deck)
    if by_keys:
        await pilot.press("o")
        await until(pilot, lambda: isinstance(deck.screen, Picker))
        await pilot.press(*str(path), "enter")
    else:
        screen._opened(str(path))
    await until(pilot, lambda: screen.document.config.patterns or screen.error)
    await pilot.pause()
    return screen


def told(deck: Answered) -> str:
    return " ".join(note.message for note in deck._notifications)


async def test_a_file_is_opened_and_its_patterns_are_walked_through(deck: Answered, file: Path):
    async with deck.run_test(size=BIG) as pilot:
        screen = await opened(pilot, file, by_keys=True)
        assert "2 patterns, 13 GiB: not measured yet" in screen.query_one(AnswerPane).plain
        await pilot.press("down", "enter")
        matrix = screen.query_one(MatrixPane)
        assert matrix.has_focus
        assert matrix.matrix == traffic.matrix(1)
        await pilot.press("escape")
        assert screen.query_one(PatternList).has_focus
        assert deck.memory["traffic"] == str(file)


async def test_a_cell_is_edited_saved_and_run(deck: Answered, file: Path):
    async with deck.run_test(size=BIG) as pilot:
        screen = await opened(pilot, file)
        await pilot.press("enter", "right", "e")
        await pilot.pause()
        deck.screen.query_one(Input).value = "1.5x"
        await pilot.press("enter")
        await pilot.pause()
        assert "'1.5x' is no size" in str(deck.screen.query("Refusal").first(Lines).plain)
        deck.screen.query_one(Input).value = "1.5K"
        await pilot.press("enter")
        await until(pilot, lambda: screen.document.changed)
        assert screen.document.config.patterns[0].matrix.rows[0][9] == 1536
        assert "changed, not saved" in screen.query_one("#about", Lines).plain
        await pilot.press("r")
        await pilot.pause()
        ((kind, spec),) = deck.requests.asked
        assert kind == "traffic"
        assert traffic_spec(cast(Any, spec)).patterns == screen.document.config.patterns
        await pilot.press("w")
        await pilot.pause()
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(deck.screen, Ask))
        await pilot.press("y")
        await until(pilot, lambda: not screen.document.changed)
        assert read_config(file).patterns[0].matrix.rows[0][9] == 1536
        assert read_config(file).patterns[1].matrix == traffic.matrix(1)


async def test_a_test_shown_is_measured_again_and_saved_with_its_own_counts(deck: Answered, tmp_path: Path):
    async with deck.run_test(size=BIG) as pilot:
        deck.post_message(EngineChanged(traffic.engine()))
        await pilot.pause()
        await pilot.press("r")
        await pilot.pause()
        ((_, asked),) = deck.requests.asked
        spec = traffic_spec(cast(Any, asked))
        assert (spec.iterations, spec.warmup) == (traffic.ITERATIONS, 2)
        await pilot.press("w")
        await pilot.pause()
        deck.screen.query_one(Input).value = str(tmp_path / "kept.yaml")
        await pilot.press("enter")
        screen = screen_of(deck)
        await until(pilot, lambda: screen.document.source)
        kept = read_config(tmp_path / "kept.yaml")
        assert (kept.iterations, kept.warmup) == (traffic.ITERATIONS, 2)


async def test_edits_are_not_lost_without_asking(deck: Answered, file: Path):
    async with deck.run_test(size=BIG) as pilot:
        screen = await opened(pilot, file)
        screen._become(screen.document.with_cell(0, 0, 1, 5))
        for key in ("o", "m", "q"):
            await pilot.press(key)
            await until(pilot, lambda: isinstance(deck.screen, Ask))
            await pilot.press("n")
            await pilot.pause()
        assert screen.document.changed


@pytest.mark.parametrize("size", [SMALL, BIG])
async def test_the_matrix_follows_the_mouse_and_shows_all_ranks(deck: Answered, file: Path, size: tuple[int, int]):
    async with deck.run_test(size=size) as pilot:
        screen = await opened(pilot, file)
        matrix = screen.query_one(MatrixPane)
        await pilot.click(MatrixPane, offset=(8, 3))
        assert matrix.cell == (1, 8)
        await pilot.press("asterisk", "home")
        assert matrix.cell == (0, 0)
        await pilot.press("end")
        assert matrix.cell == (15, 15)
        assert "r15 → r15  0 B" in matrix.plain
        await pilot.press("asterisk")
        assert matrix.cell_shown == (7, 15)


async def test_256_ranks_are_shown_in_groups_that_open(deck: Answered, tmp_path: Path):
    (tmp_path / "m.txt").write_text(matrix_text(traffic.large()))
    (tmp_path / "large.yaml").write_text("traffic_pattern: {matrix_file: m.txt}")
    async with deck.run_test(size=BIG) as pilot:
        screen = await opened(pilot, tmp_path / "large.yaml")
        matrix = screen.query_one(MatrixPane)
        assert "a cell = 16 × 4 ranks" in matrix.plain
        await pilot.press("enter", "down", "e")
        assert not matrix.grouped
        assert "go to a cell" in told(deck)
        assert "r16 → r128" in matrix.plain
        assert "▸16" in matrix.plain
        await pilot.press("escape")
        assert matrix.grouped


@pytest.mark.parametrize("what", ["missing", "fifo", "folder", "matrix", "escapes"])
async def test_a_file_that_is_refused_is_told_in_the_answer(deck: Answered, tmp_path: Path, what: str):
    path = tmp_path / "t.yaml"
    if what == "fifo":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    elif what != "missing":
        (tmp_path / "m.txt").write_text("0 1\n2 x\n" if what == "matrix" else "0 \x1b[31m1\n0 0\n")
        path.write_text("traffic_pattern: {matrix_file: m.txt}")
    async with deck.run_test(size=BIG) as pilot:
        screen = await opened(pilot, path)
        said = " ".join(screen.query_one(AnswerPane).plain.replace("│", " ").split())
        assert str(tmp_path) in said
        assert "fix:" in said
        assert "\x1b" not in said
        if what == "matrix":
            assert "m.txt:2:3: 'x' is no size" in said
        for key in ("r", "e", "w", "d", "x", "enter", "y"):
            await pilot.press(key)
        await pilot.pause()
        assert deck.requests.asked == []
        assert not isinstance(deck.screen, Ask)


async def test_keys_before_there_is_anything_do_nothing_but_say_why(deck: Answered):
    async with deck.run_test(size=SMALL) as pilot:
        await pilot.press("enter", "enter", "escape", "r", "e", "w", "d", "x", "y", "asterisk", "up", "down", "end")
        await pilot.pause()
        assert deck.requests.asked == []
        assert "there are no patterns" in told(deck)
        assert "no test is in progress" in told(deck)


async def test_a_test_is_shown_live_and_paints_only_what_changed(deck: Answered):
    async with deck.run_test(size=BIG) as pilot:
        deck.post_message(EngineChanged(traffic.engine("together")))
        await until(pilot, lambda: "iteration 5 of 8" in deck.screen.query_one(AnswerPane).plain)
        screen = screen_of(deck)
        assert "▓" in screen.query_one(TimelinePane).plain
        assert "r7" in screen.query_one(RankPane).plain
        await pilot.pause()
        before = {pane.id: pane.changes for pane in screen.query(Lines)}
        deck.post_message(EngineChanged(traffic.engine("together")))
        await pilot.pause()
        screen.refresh_from_app()
        assert {pane.id: pane.changes for pane in screen.query(Lines)} == before
        deck.post_message(EngineChanged(traffic.engine()))
        await until(pilot, lambda: "Patterns collide: 1 of 5" in deck.screen.query_one(AnswerPane).plain)


async def test_what_is_opened_while_a_test_is_shown_stays_until_the_next_test(deck: Answered, file: Path):
    async with deck.run_test(size=BIG) as pilot:
        deck.post_message(EngineChanged(traffic.engine("together")))
        await pilot.pause()
        screen = await opened(pilot, file)
        deck.post_message(EngineChanged(traffic.engine()))
        await pilot.pause()
        assert screen.run is None
        assert "not measured yet" in screen.query_one(AnswerPane).plain


async def test_a_running_test_is_cancelled_when_sure(deck: Answered):
    async with deck.run_test(size=BIG) as pilot:
        deck.post_message(EngineChanged(traffic.engine("together")))
        await pilot.pause()
        await pilot.press("x")
        await until(pilot, lambda: isinstance(deck.screen, Ask))
        await pilot.press("y")
        await until(pilot, lambda: deck.requests.asked)
        assert deck.requests.asked == [("cancel", traffic.NAME)]


async def test_the_diff_is_with_the_test_before(deck: Answered):
    async with deck.run_test(size=BIG) as pilot:
        deck.post_message(EngineChanged(traffic.engine()))
        await pilot.pause()
        await pilot.press("d")
        await until(pilot, lambda: isinstance(deck.screen, TrafficDiffScreen))
        diff = cast(TrafficDiffScreen, deck.screen)
        assert (diff.diff.a, diff.diff.b) == (BEFORE, traffic.NAME)
        await pilot.press("enter", "escape")
        assert isinstance(deck.screen, TrafficScreen)


async def test_matrices_are_made_in_the_form_and_opened(deck: Answered):
    async with deck.run_test(size=BIG) as pilot:
        await pilot.press("m")
        await until(pilot, lambda: isinstance(deck.screen, GeneratorDialog))
        await pilot.press("right", "down", "minus", "g")
        screen = screen_of(deck)
        await until(pilot, lambda: screen.document.config.patterns)
        assert len(screen.document.config.patterns) == 4
        assert Path(screen.document.source).parent.name == "llama-3.1-8b-tp1pp1cp1x4-tp4pp1cp1x1"
        assert not screen.document.changed


async def test_a_deck_that_may_only_look_writes_and_starts_nothing(tmp_path: Path, file: Path):
    requests = TwoTests()
    requests.plans = tmp_path / "home" / "plans"
    deck = DeckOfFiles(requests=requests, memory={"view": "traffic"}, readonly=True)
    async with deck.run_test(size=BIG) as pilot:
        await opened(pilot, file)
        await pilot.press("r", "w", "m")
        await pilot.pause()
        assert requests.asked == []
        assert isinstance(deck.screen, TrafficScreen)
        assert "read-only" in told(deck)


async def test_the_tables_are_copied_by_the_pane_in_focus(deck: Answered):
    async with deck.run_test(size=BIG) as pilot:
        deck.post_message(EngineChanged(traffic.engine()))
        await pilot.pause()
        await pilot.press("y")
        await pilot.pause()
        assert "| ratio" in deck.clipboard
        await pilot.press("enter", "y")
        await pilot.pause()
        assert "| bytes from" in deck.clipboard
