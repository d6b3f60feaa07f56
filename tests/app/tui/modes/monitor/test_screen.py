"""The Monitor screen: what it shows of moments made of real samples, its keys, and live through a real engine."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from kvdeck.app.config import Config
from kvdeck.app.tui.app import Deck
from kvdeck.app.tui.connection import TelemetryRequest
from kvdeck.app.tui.dialogs.prompt import AskText
from kvdeck.app.tui.messages import EngineChanged, RecordingsSeen, TelemetrySampled
from kvdeck.app.tui.modes.monitor import dialogs
from kvdeck.app.tui.modes.monitor.panes.cache import Reuse
from kvdeck.app.tui.modes.monitor.panes.engines import Engines
from kvdeck.app.tui.modes.monitor.panes.flows import Paths, Pinned
from kvdeck.app.tui.modes.monitor.panes.header import MonitorBar
from kvdeck.app.tui.modes.monitor.panes.host import Host
from kvdeck.app.tui.modes.monitor.panes.service import ServedEngines
from kvdeck.app.tui.modes.monitor.panes.status import AnnotationLog, Checks, Sources
from kvdeck.app.tui.modes.monitor.panes.strip import TimeStrip
from kvdeck.app.tui.modes.monitor.panes.tiers import Tiers
from kvdeck.app.tui.modes.monitor.panes.tiles import Tiles
from kvdeck.app.tui.modes.monitor.screen import VIEWS, MonitorScreen
from kvdeck.app.tui.modes.monitor.series_browser import SeriesScreen
from kvdeck.app.tui.modes.monitor.source_chooser import SourceChooser
from kvdeck.app.tui.source_search import FoundSource, FoundSources, Progress, find_sources
from kvdeck.app.tui.state import EngineState
from kvdeck.app.tui.widgets.key_bar import KeyBar
from kvdeck.app.tui.widgets.lines import Lines
from kvdeck.engine.protocol import RecordingState
from kvdeck.engine.telemetry.sample import Snapshot as Moment
from kvdeck.sessions.errors import KvdeckError
from tests.app.conftest import DeckOfFiles, FileRequests
from tests.app.tui.test_dialogs_and_keys import notes
from tests.engine.conftest import folders  # noqa: F401
from tests.support.builders import monitor as a_monitor

SMALL, BIG, HUGE = (80, 24), (120, 40), (200, 60)
SOURCES = list(a_monitor.KINDS)


def monitor(**more: Any) -> DeckOfFiles:
    """A deck that opens on the Monitor, with its sources chosen before."""
    memory = {"view": "monitor", "monitor": {"sources": SOURCES, **more.pop("settings", {})}}
    return DeckOfFiles(memory=memory, **more)


async def show(pilot: Pilot[None], count: int = a_monitor.SECONDS, moments: tuple[Moment, ...] = ()) -> MonitorScreen:
    """Let so many moments come, as fast as they can be taken."""
    await pilot.pause()
    screen = pilot.app.screen_stack[0]
    assert isinstance(screen, MonitorScreen)
    for moment in (moments or a_monitor.all_moments())[:count]:
        screen.note_sample(TelemetrySampled(moment))
    await pilot.pause()
    return screen


def plain(deck: Deck, kind: type[Lines]) -> str:
    return deck.screen_stack[0].query_one(kind).plain


@pytest.mark.parametrize("size", [SMALL, BIG, HUGE])
async def test_flows_are_arrows_between_the_tiers_with_rate_and_total(size: tuple[int, int]):
    deck = monitor()
    async with deck.run_test(size=size) as pilot:
        await show(pilot)
        lines = plain(deck, Tiers).splitlines()
        (store,) = [line for line in lines if "536 MB/s" in line]
        assert ("▶" if size >= BIG else "G1→G2") in store
        assert "145 GB" in store
        (load,) = [line for line in lines if "1.07 GB/s" in line]
        assert ("◀" if size >= BIG else "G2→G1") in load
        (pulled,) = [line for line in lines if "76.9 GB" in line]
        assert "0 B/s" in pulled
        assert ("▸" if size >= BIG else "peer→G1") in pulled, "it stands still, and it moved before"
        assert "87 %" in plain(deck, Tiers)
        assert lines.index(store) < lines.index(load) < lines.index(pulled)


async def test_what_nobody_speaks_of_is_dim_and_a_dash_and_not_zero():
    deck = monitor()
    async with deck.run_test(size=BIG) as pilot:
        moment = a_monitor.all_moments()[-1]
        only = replace(moment, flows=tuple(f for f in moment.flows if f.source_tier == "G1" and f.target_tier == "G2"))
        await show(pilot, moments=(replace(only, gauges=()),))
        styles = {
            " ".join(text.strip(" │").split("   ")).strip(): style
            for row in deck.screen.query_one(Tiers)._painted
            for text, style in row
        }
        assert styles["G1 device"] == "!tier:G1"
        assert [style for text, style in styles.items() if "G3 disk" in text or "G4 object" in text] == ["dim"]
        first = replace(only.flows[0], blocks_per_s=None, bytes_per_s=None)
        await show(pilot, moments=(replace(only, t=only.t + 1, flows=(first,)),))
        assert "├╌╌╌╌╌╌╌╌▸" in plain(deck, Tiers), "one reading has no rate"


async def test_every_pane_has_its_say():
    deck = monitor(settings={"pins": [a_monitor.PIN]})
    async with deck.run_test(size=HUGE) as pilot:
        await show(pilot)
        assert "456 µs" in plain(deck, Paths)
        assert "host 64 %" in plain(deck, Reuse)
        assert "64 % of 111M tokens, now 64 %" in plain(deck, Reuse)
        assert "waiting 3" in plain(deck, Reuse)
        assert "91.2 %" in plain(deck, Host)
        assert "InfiniBand" in plain(deck, Checks)
        assert "changed 45 s ago" in plain(deck, Sources), "gauges freeze"
        assert "Connection refused" in plain(deck, Sources)
        assert "172,632 tokens" in plain(deck, Pinned)
        assert "4 found" not in plain(deck, MonitorBar)
        assert "1 unreachable" in plain(deck, MonitorBar)


async def test_pause_holds_the_picture_and_not_the_data():
    deck = monitor()
    async with deck.run_test(size=BIG) as pilot:
        screen = await show(pilot, 100)
        await pilot.press("p")
        before = plain(deck, Tiers)
        for moment in a_monitor.all_moments()[100:]:
            screen.note_sample(TelemetrySampled(moment))
        await pilot.pause()
        assert plain(deck, Tiers) == before
        deck.post_message(EngineChanged(EngineState("connected", "", 4242)))
        await pilot.pause()
        assert "held at 12:01:39" in plain(deck, MonitorBar)
        assert screen.timeline.newest is not None
        assert screen.timeline.newest.t == a_monitor.all_moments()[-1].t
        await pilot.press("p")
        await pilot.pause()
        assert plain(deck, Tiers) != before


async def test_seeking_shows_a_time_and_sparks_that_end_there():
    deck = monitor()
    async with deck.run_test(size=BIG) as pilot:
        screen = await show(pilot)
        live = plain(deck, Tiers)
        await pilot.press("left_curly_bracket", "left_square_bracket")
        assert plain(deck, MonitorBar).startswith(" ◂ 12:01:58, 31 s ago")
        assert "l live" in plain(deck, KeyBar)
        assert plain(deck, Tiers) != live
        sought = plain(deck, Tiers)
        screen.note_sample(TelemetrySampled(replace(a_monitor.all_moments()[-1], t=a_monitor.BEGIN + 159)))
        await pilot.pause()
        assert plain(deck, Tiers) == sought
        assert "41 s ago" in plain(deck, MonitorBar)
        await pilot.press("home")
        assert "12:00:00" in plain(deck, MonitorBar)
        await pilot.press("right_square_bracket")
        assert "12:00:01" in plain(deck, MonitorBar)
        await pilot.press("l")
        assert plain(deck, MonitorBar).startswith(" ▲ 1 of 5 down"), "the newest sample, in which one source is down"
        assert "l live" not in plain(deck, KeyBar), "only what is valid now"


async def test_the_rate_is_said_remembered_and_asked_for():
    deck = monitor()
    async with deck.run_test(size=BIG) as pilot:
        screen = await show(pilot, 2)
        await pilot.press("plus", "plus")
        assert "5 Hz" in plain(deck, MonitorBar)
        assert deck.memory["monitor"]["hz"] == 5.0
        wanted = screen.wanted()
        assert wanted is not None
        assert (wanted.hz, wanted.sources) == (5.0, tuple(SOURCES))
        await pilot.press(*["minus"] * 9)
        assert "0.2 Hz" in plain(deck, MonitorBar)


async def test_a_pane_is_shown_alone_and_the_next_one_and_all_again():
    deck = monitor()
    async with deck.run_test(size=BIG) as pilot:
        await show(pilot)
        await pilot.press("v", "v", "tab", "enter")
        assert [pane.id for pane in deck.screen.query(Lines) if pane.size.area and pane.can_focus] == ["paths"]
        assert deck.screen.query_one(Paths).size.width == 120
        await pilot.press("v")
        assert [pane.id for pane in deck.screen.query(Lines) if pane.size.area and pane.can_focus] == ["reuse"]
        await pilot.press("escape")
        assert deck.screen.query_one(Tiers).size.area
        assert deck.screen.query_one(Checks).size.area


async def test_where_there_is_room_for_one_pane_a_key_goes_through_them():
    deck = monitor()
    async with deck.run_test(size=SMALL) as pilot:
        await show(pilot)
        seen = []
        for _ in VIEWS:
            (below,) = [pane.id for pane in deck.screen.query(Lines) if pane.id in VIEWS and pane.size.area]
            seen.append(below)
            await pilot.press("v")
        assert tuple(seen) == VIEWS
        assert deck.memory["monitor"].get("pane", "checks") == "checks"


async def test_a_threshold_leaves_a_mark_a_toast_and_a_line_in_the_recording():
    deck = monitor()
    async with deck.run_test(size=BIG) as pilot:
        screen = await show(pilot, 60)
        screen.post_message(RecordingsSeen((RecordingState("cold", "running", a_monitor.BEGIN, 12_300_000),)))
        await pilot.pause()
        assert "● REC cold 11.7 MiB 0:59" in plain(deck, MonitorBar)
        await pilot.press("down", "t")
        await pilot.press(*"over 9", "enter")
        assert "write `> 5 GB/s`" in notes(deck)[-1]
        await pilot.press("t", *"> 1 GB/s", "enter")
        for moment in a_monitor.all_moments()[60:]:
            screen.note_sample(TelemetrySampled(moment))
        await pilot.pause()
        crossings = [mark for mark in screen.timeline.marks.until(1e12) if mark.kind == "threshold"]
        crossed = [mark.text for mark in crossings]
        assert crossed[0] == "G1 → G2 (vLLM store) > 1 GB/s"
        assert crossed[1] == "G1 → G2 (vLLM store) no longer > 1 GB/s"
        assert notes(deck).count(crossed[0]) == len(crossed[0::2]) - (len(crossed[0::2]) > 1)
        assert ("annotate", ("cold", crossed[0], "threshold", crossings[0].t)) in deck.requests.asked
        assert crossed[0] in plain(deck, AnnotationLog)
        (store,) = [line for line in plain(deck, Tiers).splitlines() if "vLLM store" in line]
        assert "◇" in store
        assert list(deck.memory["monitor"]["thresholds"].values()) == ["> 1 GB/s"]


async def test_a_newest_sample_that_is_overdue_is_shown_with_its_age():
    deck = monitor()
    async with deck.run_test(size=BIG) as pilot:
        screen = await show(pilot, 0)
        assert "no sample yet" in plain(deck, MonitorBar)
        moment = a_monitor.all_moments()[0]
        now = time.monotonic_ns()
        screen.note_sample(TelemetrySampled(replace(moment, at_ns=now - 7_000_000_000)))
        assert "s old, waiting for a sample" in plain(deck, MonitorBar)
        screen.note_sample(TelemetrySampled(replace(moment, t=moment.t + 7, at_ns=now + 60_000_000_000)))
        assert "waiting" not in plain(deck, MonitorBar)


async def test_a_moment_before_the_first_sample_is_in_the_log():
    deck = monitor()
    async with deck.run_test(size=BIG) as pilot:
        await show(pilot, 0)
        await pilot.press("a", *"load started", "enter")
        assert "load started" in plain(deck, AnnotationLog)


async def test_a_moment_is_noted_where_it_was_and_in_the_recording():
    deck = monitor()
    async with deck.run_test(size=BIG) as pilot:
        screen = await show(pilot)
        screen.post_message(RecordingsSeen((RecordingState("cold", "running", a_monitor.BEGIN, 10),)))
        await pilot.press("left_curly_bracket", "a")
        assert isinstance(deck.screen, AskText)
        await pilot.press(*"load started", "enter")
        assert "12:01:59 load started" in plain(deck, AnnotationLog)
        assert ("annotate", ("cold", "load started", "note", a_monitor.BEGIN + 119)) in deck.requests.asked
        await pilot.press("left_square_bracket")
        assert "load started" not in plain(deck, AnnotationLog), "it has not happened yet"


async def test_a_note_has_the_time_of_its_key_and_not_of_its_last_letter():
    deck = monitor()
    async with deck.run_test(size=BIG) as pilot:
        screen = await show(pilot)
        screen.post_message(RecordingsSeen((RecordingState("cold", "running", a_monitor.BEGIN, 10),)))
        before = time.time()
        await pilot.press("a")
        after = time.time()
        await pilot.press(*"load", "enter")
        await pilot.pause()
        ((_, (_, text, _, t)),) = deck.requests.asked
        assert text == "load"
        assert before <= t <= after


async def test_a_digit_that_is_no_number_is_refused_as_a_block_size():
    deck = monitor()
    async with deck.run_test(size=BIG) as pilot:
        screen = await show(pilot)
        size = screen.settings.block_bytes
        dialogs.block(screen)
        await pilot.pause()
        deck.screen.dismiss("²")
        await pilot.pause()
        assert notes(deck)[-1] == "'²' is not a whole number above 0 · fix: write it in digits"
        assert screen.settings.block_bytes == size


async def test_a_search_for_sources_that_fails_says_why():
    requests = FileRequests()

    async def fail(_: Progress) -> FoundSources:
        raise KvdeckError("looking for sources failed: no python")

    requests.find_sources = fail  # type: ignore[method-assign]
    deck = DeckOfFiles(memory={}, requests=requests)
    async with deck.run_test(size=BIG) as pilot:
        await pilot.press("3")
        await pilot.pause()
        assert isinstance(deck.screen, SourceChooser)
        assert "looking for sources failed: no python" in deck.screen.list.plain


async def test_a_search_that_can_not_start_is_an_error_for_the_operator(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(KvdeckError, match="the search for sources failed"):
        await find_sources(lambda _: None)


async def test_recording_is_begun_and_ended_by_the_engine():
    deck = monitor(settings={"hz": 2.0, "pins": ["m"], "block_bytes": 4096})
    async with deck.run_test(size=BIG) as pilot:
        screen = await show(pilot)
        await pilot.press("R", "enter")
        ((name, arguments),) = deck.requests.asked
        assert name == "record"
        assert arguments[1] == TelemetryRequest(tuple(SOURCES), 2.0, 4096.0, ("m",), stuck_s=30.0)
        screen.post_message(RecordingsSeen((RecordingState("x", "running", a_monitor.BEGIN, 10),)))
        await pilot.press("R")
        assert deck.requests.asked[-1] == ("stop_recording", "x")
        screen.post_message(RecordingsSeen((RecordingState("x", "done", a_monitor.BEGIN, 10),)))
        await pilot.pause()
        assert "REC" not in plain(deck, MonitorBar)
        assert "x saved" in notes(deck)[-1]


@pytest.mark.parametrize("text", ["²", "0", "9" * 19])
async def test_a_block_that_is_no_size_is_refused(text: str):
    deck = monitor(settings={"block_bytes": 4096})
    async with deck.run_test(size=BIG) as pilot:
        screen = await show(pilot)
        dialogs.block(screen)
        await pilot.pause()
        deck.screen.query_one(Input).value = text
        await pilot.press("enter")
        assert (screen.settings.block_bytes, notes(deck)[-1].split(" ", 1)[0]) == (4096, repr(text))


async def test_a_read_only_deck_records_nothing():
    deck = monitor(readonly=True)
    async with deck.run_test(size=BIG) as pilot:
        await show(pilot)
        await pilot.press("R")
        assert deck.requests.asked == []
        assert "R rec" not in plain(deck, KeyBar)


async def test_series_are_found_by_words_and_pinned():
    deck = monitor()
    async with deck.run_test(size=BIG) as pilot:
        screen = await show(pilot)
        await pilot.press("b", "slash", *"matched", "enter", "space")
        assert isinstance(deck.screen, SeriesScreen)
        assert " 1 of " in deck.screen.query_one("#filter", Lines).plain
        await pilot.press("escape", "escape")
        assert deck.screen is screen
        assert "172,632 tokens" in plain(deck, Pinned)
        assert deck.memory["monitor"]["pins"] == [a_monitor.PIN]
        wanted = screen.wanted()
        assert wanted is not None
        assert wanted.pins == (a_monitor.PIN,)
        screen.query_one(Pinned).focus()
        await pilot.press("delete")
        assert not screen.query_one(Pinned).size.area


async def test_the_series_under_the_cursor_is_explained_in_its_exporters_words():
    deck = monitor()
    async with deck.run_test(size=SMALL) as pilot:
        await show(pilot)
        await pilot.press("b", "slash", *"kv_cache_usage", "enter")
        said = deck.screen.query_one("#meaning", Lines)
        assert "vllm:kv_cache_usage_perc (engine 0, model_name" in said.plain
        quoted = "“KV-cache usage. 1 means 100 percent usage.” — vLLM, vllm/v1/metrics/loggers.py"
        assert quoted in " ".join(said.plain.split())
        await pilot.press("escape", "slash", *"external_prefix_cache_hits", "enter")
        assert "counter of tokens, known from vLLM 0.32.0, samples vllm032_*" in said.plain
        await pilot.press("escape", "slash", *"nosuchseries", "enter")
        assert not said.plain.strip()


async def test_the_first_time_what_was_found_is_shown_before_any_of_it_is_used():
    deck = DeckOfFiles(memory={})
    deck.requests.found = (FoundSource("http://127.0.0.1:6880/metrics", "kvbm"), FoundSource("disk tier", "process"))
    async with deck.run_test(size=BIG) as pilot:
        await pilot.press("3")
        await pilot.pause()
        assert isinstance(deck.screen, SourceChooser)
        screen = deck.screen_stack[0]
        assert isinstance(screen, MonitorScreen)
        assert screen.wanted() is None
        await pilot.press("down", "space", "a")
        await pilot.press(*"gpu-7:6880/metrics", "enter", "enter")
        chosen = ["http://127.0.0.1:6880/metrics", "http://gpu-7:6880/metrics"]
        assert deck.memory["monitor"]["sources"] == chosen
        assert screen.wanted() is not None
        deck.requests.found = (*deck.requests.found, FoundSource("http://127.0.0.1:8000/metrics", "vllm"))
        await pilot.press("2", "3")
        await pilot.pause()
        assert deck.screen is screen, "asked once"
        assert "1 new source: press s" in plain(deck, MonitorBar)


async def test_nothing_watched_teaches_what_would_say_it():
    deck = monitor(settings={"sources": []})
    async with deck.run_test(size=SMALL) as pilot:
        await pilot.pause()
        shown = plain(deck, Tiers)
        for taught in ("DYN_KVBM_METRICS=true", "NIXL_TELEMETRY_ENABLE=y", "--source"):
            assert taught in shown
        assert "no source selected" in plain(deck, MonitorBar)


async def test_an_engine_that_is_gone_is_said_and_the_picture_stays():
    deck = monitor()
    async with deck.run_test(size=BIG) as pilot:
        screen = await show(pilot)
        screen.note_sample(TelemetrySampled(Moment(0.0), "the engine has gone · attach again"))
        assert "✗ the engine has gone · attach again, shown: 12:02:29" in plain(deck, MonitorBar)
        assert "536 MB/s" in plain(deck, Tiers)
    deck = monitor()
    async with deck.run_test(size=BIG) as pilot:
        await show(pilot, moments=(Moment(0.0),))
        deck.screen.note_sample(TelemetrySampled(Moment(0.0), "the engine has gone · attach again"))
        assert "the engine has gone" in plain(deck, Tiers)


async def test_blocks_become_bytes_by_the_config_by_hand_and_from_the_plan():
    deck = monitor(config=Config(block_bytes=1 << 20))
    async with deck.run_test(size=BIG) as pilot:
        screen = await show(pilot, moments=a_monitor.sized_moments())
        assert "block 1 MiB, as configured" in plain(deck, MonitorBar)
        assert "≈3.23 GB" in plain(deck, Tiers), "since watching began"
        await pilot.press("B", *["backspace"] * 9, *"4,096", "enter")
        assert screen.settings.block_bytes == 4096
        assert "block 4 KiB, as typed" in plain(deck, MonitorBar)
        await pilot.press("1", "3")
        commands = {command.title: command for command in deck.get_system_commands(deck.screen)}
        commands["monitor: copy the block size from the plan"].callback()
        assert screen.settings.block_bytes == 1 << 20, "16 tokens of Llama 3.1 8B in fp8"
        assert "from the plan" in plain(deck, MonitorBar)


async def test_the_palette_offers_what_is_valid_now():
    deck = monitor()
    async with deck.run_test(size=BIG) as pilot:
        await show(pilot)
        titles = {command.title for command in deck.get_system_commands(deck.screen)}
        assert {"monitor: zoom", "monitor: rec", "monitor: series", "monitor: sources", "panes: hide log"} <= titles
        assert "monitor: live" not in titles


async def test_what_is_on_the_screen_can_be_taken_along(tmp_path: Path):
    deck = monitor()
    async with deck.run_test(size=BIG) as pilot:
        await show(pilot)
        await pilot.press("y")
        await pilot.press("v", "v", "tab", "Y", "E", "S")
        shared = tmp_path / "home" / "shared"
        (markdown,) = shared.glob("*-tiers.md")
        assert "| G1 → G2     | vllm offload store " in markdown.read_text()
        (table,) = shared.glob("*-paths.csv")
        assert "536 MB/s" in table.read_text()
        (rates,) = shared.glob("*-rates.csv")
        assert len(rates.read_text().splitlines()) > 5 * 140
        (picture,) = shared.glob("*-monitor.svg")
        assert "G2&#160;host" in picture.read_text()


async def test_every_pane_gives_a_table():
    deck = monitor(settings={"pins": [a_monitor.PIN]})
    async with deck.run_test(size=HUGE) as pilot:
        await show(pilot)
        for kind in (Tiles, Tiers, Engines, ServedEngines, Paths, Reuse, Pinned, Checks, Host, Sources, TimeStrip):
            table = deck.screen.query_one(kind).table()
            assert table is not None
            assert table.rows or kind is TimeStrip, kind
            assert {len(row) for row in table.rows} <= {len(table.titles)}


async def test_panes_that_are_read_are_drawn_once_a_second_and_at_once_when_asked():
    deck = monitor()
    async with deck.run_test(size=BIG) as pilot:
        begin = a_monitor.all_moments()[0].t
        moments = tuple(
            replace(moment, t=begin + place / 4) for place, moment in enumerate(a_monitor.all_moments()[:8])
        )
        screen = await show(pilot, 0, moments)
        seen = []
        for moment in moments:
            screen.note_sample(TelemetrySampled(moment))
            seen.append((screen.query_one(Tiers).view.now - begin, screen.query_one(Engines).view.now - begin))
        assert [tiers for tiers, _ in seen] == [place / 4 for place in range(8)]
        assert [engines for _, engines in seen] == [0, 0, 0, 0, 1, 1, 1, 1]
        screen.draw()
        assert screen.query_one(Engines).view.now - begin == 7 / 4


async def test_a_source_that_is_down_is_said_on_every_pane():
    whole = a_monitor.all_moments()[-1]
    down = SOURCES[0]
    sources = tuple(
        replace(source, state="unreachable", reason="cannot connect", age_s=42.0, stale=True)
        if source.name == down
        else source
        for source in whole.sources
    )
    moment = replace(
        whole,
        t=whole.t + 1,
        sources=sources,
        flows=tuple(
            replace(flow, stale=True, bytes_per_s=None, blocks_per_s=None) if flow.source == down else flow
            for flow in whole.flows
        ),
        gauges=tuple(replace(number, stale=number.source == down) for number in whole.gauges),
        checks=(),
    )
    deck = monitor()
    async with deck.run_test(size=HUGE) as pilot:
        await show(pilot, moments=(whole, moment))
        lost = sum(source.stale for source in sources)
        assert f"{lost} of {len(sources)} down" in plain(deck, MonitorBar)
        assert "live" not in plain(deck, MonitorBar)
        assert "No problems found" not in plain(deck, Checks)
        assert f"{lost} of {len(sources)} sources down" in plain(deck, Checks)
        for pane in (Tiers, Engines, Reuse, Checks):
            assert "40 s old" in plain(deck, pane), pane
        (head,) = [line for line in plain(deck, Reuse).splitlines() if "40 s old" in line]
        assert "running" not in head, "what runs there now is unknown"
