"""The Monitor screen: what it shows of moments made of real samples, and live through a real engine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import ClassVar

import pytest
from textual.pilot import Pilot

from kvdeck.app.messages import MomentSeen
from kvdeck.app.screens.monitor import MonitorScreen
from kvdeck.app.tui import Deck
from kvdeck.app.widgets.tiers import Checks, Numbers, Past, Sources, Tiers, direction
from kvdeck.engine.client import Client
from kvdeck.engine.watch.checks import check
from kvdeck.engine.watch.series import Reading
from kvdeck.engine.watch.snapshot import Flow, Snapshot, take
from kvdeck.engine.watch.sources.exposition import Parser
from kvdeck.engine.watch.track import Track
from tests.engine.a_metrics_server import metrics_server, sample, says
from tests.engine.conftest import folders  # noqa: F401

SECOND = 1_000_000_000


class MonitorDeck(Deck):
    """A deck that opens on the monitor."""

    MODES: ClassVar = {**Deck.MODES, "monitor": MonitorScreen}
    DEFAULT_MODE = "monitor"


def moments() -> Iterator[Snapshot]:
    """KVBM and vLLM as their samples had them, two seconds apart, and an endpoint that nobody listens at."""
    kvbm, vllm, gone = (
        Track("http://127.0.0.1:6880/metrics", "kvbm"),
        Track("vllm", "vllm"),
        Track("gone", "prometheus"),
    )
    parsers = Parser(), Parser()
    names = [("host_cold", "before"), ("host_repeat", "after")]
    for second, (state, when) in enumerate(names):
        t = second * 2 * SECOND
        for track, parser, name in (
            (kvbm, parsers[0], f"dynamo_kvbm_metrics_{state}.prom"),
            (vllm, parsers[1], f"vllm032_offload_native_{when}.prom"),
        ):
            track.took(Reading(t, parser.parse(sample(name).decode()).values), t)
        gone.failed("cannot connect: Connection refused", t)
        moment = take([(kvbm, 1.0), (vllm, 1.0), (gone, 1.0)], t, wall=1000.0 + second * 2)
        yield Snapshot(moment.t, moment.sources, moment.flows, moment.counters, moment.gauges, check(moment))


async def show(pilot: Pilot[None]) -> None:
    await pilot.pause()
    for moment in moments():
        pilot.app.screen.post_message(MomentSeen(moment))
        await pilot.pause()


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
async def test_flows_sources_and_checks_are_shown(size: tuple[int, int]) -> None:
    app = MonitorDeck(connect=False)
    async with app.run_test(size=size) as pilot:
        await show(pilot)
        tiers, sources = app.screen.query_one(Tiers).plain, app.screen.query_one(Sources).plain
        lines = {line.split("  ")[1].strip(): line for line in tiers.splitlines() if "→" in line and "blocks/s" in line}
        assert "2 blocks/s" in lines["G1 → G2"]
        assert "36 blocks" in lines["G1 → G2"]
        assert "offload" in tiers
        if size[1] >= 40:
            assert "14 blocks/s" in lines["G2 → G1"]
            assert "151 MB" in tiers
            assert "unreachable" in sources
            numbers = app.screen.query_one(Numbers).plain
            assert "36,864 tokens" in numbers, "where tokens came from"
            assert "50.0 %" in numbers, "KVBM's hit rate"
        assert "live" in sources


async def test_pause_holds_the_picture_and_not_the_data() -> None:
    app = MonitorDeck(connect=False)
    async with app.run_test(size=(120, 40)) as pilot:
        first, second = moments()
        await pilot.pause()
        app.screen.post_message(MomentSeen(first))
        await pilot.pause()
        await pilot.press("p")
        before = app.screen.query_one(Tiers).plain
        app.screen.post_message(MomentSeen(second))
        await pilot.pause()
        assert app.screen.query_one(Tiers).plain == before
        await pilot.press("p")
        await pilot.pause()
        assert "14 blocks/s" in app.screen.query_one(Tiers).plain


async def test_an_engine_that_is_gone_is_said() -> None:
    app = MonitorDeck(connect=False)
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        app.screen.post_message(MomentSeen(Snapshot(0.0), "the engine has gone · attach again"))
        await pilot.pause()
        assert "the engine has gone" in app.screen.query_one(Tiers).plain


@pytest.mark.usefixtures("folders")
async def test_a_real_engine_samples_while_it_is_in_front(monkeypatch: pytest.MonkeyPatch) -> None:
    with metrics_server({"/metrics": says(sample("dynamo_kvbm_metrics_host_cold.prom"))}) as server:
        monkeypatch.setattr("kvdeck.engine.client.Client.watch", _watching(server.url()))
        app = MonitorDeck()
        async with app.run_test(size=(120, 40)) as pilot:
            deadline = time.monotonic() + 15
            while "32 blocks" not in app.screen.query_one(Tiers).plain:
                assert time.monotonic() < deadline, app.screen.query_one(Tiers).plain
                await pilot.pause(0.05)
            assert "nothing can be onboarded" in app.screen.query_one(Checks).plain
            await pilot.press("9")


def _watching(url: str):
    real = Client.watch

    def watch(client: Client, hz: float = 1.0, sources: tuple[str, ...] = ()) -> None:
        real(client, 10, sources or (url,))

    return watch


@pytest.mark.parametrize(
    ("source", "target", "way"),
    [("G1", "G3", "offload"), ("G4", "G1", "onboard"), ("remote", "G1", "onboard"), (None, None, "transfer")],
)
def test_down_is_offload_and_up_is_onboard(source: str, target: str, way: str) -> None:
    assert direction(Flow("s", "n", source, target, "m", "c")) == way  # type: ignore[arg-type]


def test_a_spark_shows_what_is_not_known_as_nothing() -> None:
    past = Past()
    for t, rate in ((0.0, None), (60.0, 5.0), (119.0, 10.0)):
        past.note(Snapshot(t, flows=(Flow("s", "n", "G1", "G2", "m", "c", blocks_per_s=rate),)))
    spark = past.spark(Flow("s", "n", "G1", "G2", "m", "c"), 119.0, 12)
    assert spark.strip().startswith("▅"), spark
    assert spark[-1] == "█"
    assert spark[0] == " "
    past.note(Snapshot(400.0))
    assert past.spark(Flow("s", "n", "G1", "G2", "m", "c"), 400.0, 12).strip() == ""
