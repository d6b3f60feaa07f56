"""What a tick of the Monitor costs: only rows that differ are painted, a lagging terminal is waited for."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from kvdeck.app.tui.connection import TelemetryRequest
from kvdeck.app.tui.messages import TelemetrySampled
from kvdeck.app.tui.modes.monitor.panes.tiers import Tiers
from kvdeck.app.tui.widgets.lines import Lines
from tests.app.tui.modes.monitor.test_screen import BIG, monitor, plain, show
from tests.support.builders import monitor as a_monitor


async def test_a_tick_in_which_nothing_moves_paints_nothing_and_asks_nothing():
    deck = monitor()
    async with deck.run_test(size=BIG) as pilot:
        screen = await show(pilot)
        asked: list[int] = []
        deck.frames.has_painted = lambda: asked.append(1)  # type: ignore[method-assign]
        still = a_monitor.all_moments()[-1]
        before = sum(pane.changes for pane in screen.query(Lines))
        for second in range(1, 4):
            status = tuple(replace(s, age_s=0.1 * second) for s in still.sources)
            screen.note_sample(TelemetrySampled(replace(still, t=still.t + second / 8, sources=status)))
        await pilot.pause()
        assert sum(pane.changes for pane in screen.query(Lines)) == before
        assert asked == []


async def test_a_tick_paints_only_the_rows_that_differ():
    deck = monitor()
    async with deck.run_test(size=BIG) as pilot:
        screen = await show(pilot)
        still = a_monitor.all_moments()[-1]
        flows = tuple(replace(f, bytes_per_s=777e6) if f.name == "vllm offload store" else f for f in still.flows)
        painted: dict[str, list[int]] = {}
        for pane in screen.query(Lines):
            pane.refresh = lambda *regions, _id=pane.id, **_: painted.setdefault(_id, []).extend(r.y for r in regions)  # type: ignore[method-assign]
        screen.note_sample(TelemetrySampled(replace(still, t=still.t + 0.2, flows=flows)))
        assert {name: len(rows) for name, rows in painted.items()} == {"tiles": 1, "tiers": 1}, "the sum, and its flow"


async def test_a_terminal_that_lags_gets_the_newest_moment_later():
    deck = monitor()
    async with deck.run_test(size=BIG) as pilot:
        screen = await show(pilot, 10)
        before = plain(deck, Tiers)
        ready = False
        deck.frames.may_paint = lambda: ready  # type: ignore[method-assign]
        for moment in a_monitor.all_moments()[10:]:
            screen.note_sample(TelemetrySampled(moment))
        assert plain(deck, Tiers) == before
        ready = True
        deadline = time.monotonic() + 10
        while "536 MB/s" not in plain(deck, Tiers):
            assert time.monotonic() < deadline
            await pilot.pause(0.05)


async def test_with_another_mode_in_front_samples_stay_in_the_engine_after_a_while(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("kvdeck.app.tui.modes.monitor.screen.LINGER_S", 0.05)
    deck = monitor()
    async with deck.run_test(size=BIG) as pilot:
        await show(pilot, 3)
        watched: list[bool] = []

        async def watch(request: TelemetryRequest | None, _: object) -> None:
            assert request is not None
            watched.append(request.quiet)

        deck.requests.watch = watch  # type: ignore[method-assign]
        deck.screen_stack[0]._watching = deck.screen_stack[0].wanted()  # type: ignore[attr-defined]
        await pilot.press("a")
        await pilot.press(*"x", "enter")
        assert watched == [], "a question over the screen is no other mode"
        await pilot.press("2")
        deadline = time.monotonic() + 10
        while watched != [True]:
            assert time.monotonic() < deadline
            await pilot.pause(0.02)
        deck.requests.live = True
        await pilot.press("3")
        while watched != [True, False]:
            assert time.monotonic() < deadline
            await pilot.pause(0.02)
