"""The Traffic mode over a real engine: ranks that move bytes over UCX, left and found again."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest
from textual.pilot import Pilot

from kvdeck.app.tui.app import Deck
from kvdeck.app.tui.comparison.report import ResultScreen
from kvdeck.app.tui.modes.traffic.panes import AnswerPane, PatternList
from kvdeck.app.tui.modes.traffic.screen import TrafficScreen
from kvdeck.app.tui.modes.traffic.timeline_pane import TimelinePane
from kvdeck.app.tui.widgets.list import Listing
from kvdeck.engine.client.client import Client
from kvdeck.sessions.model.records import Session
from tests.support.painted import BIG

PATIENCE_S = 120.0
FOUR = """
iters: 6
warmup_iters: 1
traffic_patterns:
- matrix: [[0, 0, 65536, 4096], [0, 0, 0, 65536], [0, 0, 0, 0], [0, 0, 0, 0]]
- matrix: [[0, 0, 131072, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
  xfer_op: READ
  shards: 2
  sleep_before_launch_sec: 0.002
"""
LONG = FOUR.replace("iters: 6", "iters: 100000")


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="kd-"))
    monkeypatch.setenv("KVDECK_HOME", str(folder / "home"))
    monkeypatch.setenv("KVDECK_RUNTIME", str(folder / "rt"))
    yield folder
    with contextlib.suppress(Exception), Client.connect(start=False, timeout=2) as client:
        client.stop(force=True, timeout=10)
    shutil.rmtree(folder, ignore_errors=True)


async def until(pilot: Pilot[None], true: Callable[[], object]) -> None:
    async def wait() -> None:
        while not true():
            await pilot.pause(0.05)

    await asyncio.wait_for(wait(), PATIENCE_S)


def answer(deck: Deck) -> str:
    return " ".join(deck.deck_screens[0].query_one(AnswerPane).plain.replace("│", " ").split())


async def test_four_ranks_are_measured_verified_stored_and_opened_again(engine: Path):
    path = engine / "four.yaml"
    path.write_text(FOUR)
    deck = Deck(memory={"view": "traffic", "traffic": str(path)})
    async with deck.run_test(size=BIG) as pilot:
        await until(pilot, lambda: "not measured yet" in answer(deck) and deck.engine.connection == "connected")
        await pilot.press("r")
        await until(pilot, lambda: "every byte verified" in answer(deck) and deck.engine.run.state == "done")  # type: ignore[union-attr]
        screen = cast(TrafficScreen, deck.deck_screens[0])
        assert screen.run is not None
        name = screen.run.session
        rows = screen.query_one(PatternList).items
        assert [row.operation for row in rows] == ["WRITE", "READ"]
        assert all(row.ratio is not None and row.interval is not None for row in rows)
        assert "░" in screen.query_one(TimelinePane).plain
        await pilot.press("4")
        await until(pilot, lambda: name in [row.name for row in deck.screen.query_one("#list", Listing).items])
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(deck.screen, ResultScreen))
    session: Session = await deck.requests.load_session(name)
    assert session.traffic is not None
    assert session.traffic.verified

    other = Deck(memory={"view": "traffic", "traffic": name})
    async with other.run_test(size=BIG) as pilot:
        await until(pilot, lambda: "every byte verified" in answer(other))
        assert [row.ratio for row in other.deck_screens[0].query_one(PatternList).items] == [row.ratio for row in rows]


async def test_a_deck_that_is_closed_leaves_the_test_running_and_finds_it_again(engine: Path):
    path = engine / "long.yaml"
    path.write_text(LONG)
    deck = Deck(memory={"view": "traffic", "traffic": str(path)})
    async with deck.run_test(size=BIG) as pilot:
        await until(pilot, lambda: "not measured yet" in answer(deck) and deck.engine.connection == "connected")
        await pilot.press("r")
        await until(pilot, lambda: "Measuring all in sequence" in answer(deck))
    again = Deck(memory={"view": "traffic"})
    async with again.run_test(size=BIG) as pilot:
        await until(pilot, lambda: "Measuring all in sequence" in answer(again))
        await pilot.press("x", "y")
        await until(pilot, lambda: answer(again).partition("Answer")[2].count("Cancelled"))
        screen = cast(TrafficScreen, again.deck_screens[0])
        assert screen.run is not None
        assert screen.run.state == "cancelled"
        assert all(row.ratio is not None for row in screen.query_one(PatternList).items)
