"""The Monitor for real: an engine that watches and records, recordings that are replayed, the deck in a terminal."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from kvdeck.app.tui import source_search
from kvdeck.app.tui.app import Deck
from kvdeck.app.tui.messages import EngineChanged
from kvdeck.app.tui.modes.monitor.panes.flows import Pinned
from kvdeck.app.tui.modes.monitor.panes.header import MonitorBar
from kvdeck.app.tui.modes.monitor.panes.status import AnnotationLog
from kvdeck.app.tui.modes.monitor.panes.tiers import Tiers
from kvdeck.app.tui.modes.monitor.screen import MonitorScreen
from kvdeck.app.tui.state import EngineState
from kvdeck.app.tui.widgets.lines import Lines
from kvdeck.engine.client.client import Client, home
from kvdeck.engine.telemetry.discovery import named
from kvdeck.engine.telemetry.recording import Mark, TelemetryRecorder
from tests.app.tui.modes.monitor.test_screen import BIG, monitor, plain, show
from tests.app.tui.test_dialogs_and_keys import notes
from tests.engine.conftest import eventually, folders  # noqa: F401
from tests.engine.daemon.test_past_samples import span_s
from tests.support.builders import monitor as a_monitor
from tests.support.programs.metrics_server import metrics_server, sample, says
from tests.support.programs.served_host import served
from tests.support.programs.terminal import Terminal


def live(url: str, **settings: Any) -> Deck:
    return Deck(memory={"view": "monitor", "monitor": {"sources": [url], "hz": 10.0, **settings}})


async def until(pilot: Pilot[None], true: Any) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline, plain(pilot.app, Tiers)  # type: ignore[arg-type]
        await pilot.pause(0.05)


@pytest.mark.usefixtures("folders")
async def test_a_real_engine_is_watched_recorded_annotated_and_replayed():
    with served() as endpoints:
        deck = live(endpoints.urls[0])
        async with deck.run_test(size=BIG) as pilot:
            screen = deck.screen_stack[0]
            assert isinstance(screen, MonitorScreen)
            await until(pilot, lambda: "bl/s" in plain(deck, Tiers) and "━" in plain(deck, Tiers))
            assert "● live" in plain(deck, MonitorBar)
            await pilot.press("R", "ctrl+u", *"load", "enter")
            await until(pilot, lambda: "REC load" in plain(deck, MonitorBar))
            await pilot.press("a", *"half way", "enter")
            recorded = time.time()
            await until(pilot, lambda: time.time() > recorded + 1.0)
            await pilot.press("R")
            await until(pilot, lambda: "REC" not in plain(deck, MonitorBar))
            await pilot.press("4")
            await until(pilot, lambda: "load" in deck.screen.query_one("#list", Lines).plain)
            await pilot.press("enter")
            await until(pilot, lambda: deck.current_mode == "monitor" and "replay load" in plain(deck, MonitorBar))
            await pilot.press("plus", "plus")
            assert "×4" in plain(deck, MonitorBar)
            replay = screen.timeline.replay
            assert replay is not None
            await until(pilot, lambda: replay.position == replay.end)
            assert "KVBM d2h" in plain(deck, Tiers)
            assert "half way" in plain(deck, AnnotationLog)
            await pilot.press("home")
            await until(pilot, lambda: replay.position < replay.end)
            await pilot.press("escape")
            await until(pilot, lambda: "● live" in plain(deck, MonitorBar))


@pytest.mark.usefixtures("folders")
async def test_every_series_of_a_real_endpoint_can_be_browsed_known_or_not():
    with metrics_server(
        {"/metrics": says(sample("lmcache056_exposition_idle.prom") + b"made_up_depth 42\n")}
    ) as server:
        deck = live(server.url())
        async with deck.run_test(size=BIG) as pilot:
            await until(pilot, lambda: "● live" in plain(deck, MonitorBar))
            await pilot.press("b", "slash", *"made_up", "enter")
            await until(pilot, lambda: "made_up_depth" in deck.screen.query_one("#list", Lines).plain)
            assert "42" in deck.screen.query_one("#list", Lines).plain
            with Client.connect(start=False) as other:
                assert other.status()["clients"] == 2, "the deck and this one: browsing needs no connection of its own"
            await pilot.press("space", "escape", "escape")
            await until(pilot, lambda: "42" in plain(deck, Pinned))


@pytest.mark.usefixtures("folders")
async def test_what_is_on_this_host_is_found_in_a_child():
    names = [one.name for one in (await source_search.find_sources(lambda _: None)).sources]
    assert "disks" in names
    assert [source.name for source in named(names, home())] == names, "what is listed can be asked for"


def test_a_recording_opens_in_the_deck_from_the_command_line(tmp_path: Path):
    home = str(tmp_path / "home")
    record_course(Path(home))
    program = "import sys; from kvdeck.app.cli.main import main; main(['monitor', '--replay', 'course'])"
    deck = Terminal(BIG, program=program, KVDECK_HOME=home, KVDECK_RUNTIME=str(tmp_path / "run"))
    try:
        assert deck.shows("replay course")
        assert deck.shows("KVBM d2h")
        assert deck.shows("load started"), deck.screen.display
    finally:
        deck.close()
        stop_engine(home, str(tmp_path / "run"))


def record_course(home: Path) -> None:
    """The course as a recording, with a note in it."""
    recorder = TelemetryRecorder.begin(home, "course")
    for moment in a_monitor.all_moments():
        recorder.take(moment)
    recorder.mark(Mark(a_monitor.BEGIN, "load started"))
    recorder.close()


def stop_engine(home: str, runtime: str) -> None:
    argv = [sys.executable, "-m", "kvdeck.app.cli.main", "engine", "stop", "--force"]
    environment = {**os.environ, "KVDECK_HOME": home, "KVDECK_RUNTIME": runtime}
    subprocess.run(argv, env=environment, check=False, capture_output=True, timeout=60)


async def test_a_recording_is_played_sought_and_left(tmp_path: Path):
    record_course(tmp_path / "home")
    deck = monitor()
    async with deck.run_test(size=BIG) as pilot:
        deck.post_message(EngineChanged(EngineState("connected", "", 4242)))
        screen = await show(pilot, 5)
        await deck.replay("course")
        await until(pilot, lambda: "replay course" in plain(deck, MonitorBar))
        await pilot.press("p", "end")
        await until(pilot, lambda: "536 MB/s" in plain(deck, Tiers))
        assert "12:02:29" in plain(deck, MonitorBar)
        assert "held" in plain(deck, MonitorBar)
        sparks = plain(deck, Tiers)
        await pilot.press("left_curly_bracket", "left_square_bracket")
        await until(pilot, lambda: "12:01:58" in plain(deck, MonitorBar))
        assert plain(deck, Tiers) != sparks
        await pilot.press("right_curly_bracket", "right_square_bracket")
        await until(pilot, lambda: "12:02:29" in plain(deck, MonitorBar))
        assert plain(deck, Tiers) == sparks, "sparks are the same from wherever one comes"
        assert screen.check_action("record", ()) is False
        assert screen.session_shown() == "course"
        await pilot.press("l", "p")
        await pilot.pause()
        assert "replay" not in plain(deck, MonitorBar)
        await deck.replay("no-such")
        await until(pilot, lambda: any("unknown telemetry session" in note for note in notes(deck)))


@pytest.mark.usefixtures("folders")
async def test_what_was_sampled_before_the_deck_came_and_while_it_was_away_is_there(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("kvdeck.app.tui.modes.monitor.screen.LINGER_S", 0.01)
    with served() as endpoints, Client.connect() as client:
        client.record("load", 10.0, endpoints.urls[:1])
        await asyncio.to_thread(eventually, lambda: span_s(endpoints.urls[0]) > 2.0)
        deck = live(endpoints.urls[0])
        opened = time.time()
        async with deck.run_test(size=BIG) as pilot:
            screen = deck.screen_stack[0]
            assert isinstance(screen, MonitorScreen)
            history = screen.timeline.history
            await until(pilot, lambda: screen.timeline.newest is not None)
            assert history.begin is not None
            assert history.begin < opened - 1.0, "the past of the recording"
            await until(pilot, lambda: "● live" in plain(deck, MonitorBar))
            await pilot.press("2")
            await until(pilot, lambda: screen._watching is not None and screen._watching.quiet)
            left = time.time()
            await until(pilot, lambda: time.time() > left + 2.5)
            before = len(history)
            await pilot.press("3")
            await until(pilot, lambda: len(history) >= before + 2 and "● live" in plain(deck, MonitorBar))
            away = [history.at(left + 0.5 + step / 4) for step in range(6)]
            assert any(moment is not None and moment.t > left for moment in away), "sampled while it was away"
