"""The headline's sums, and what it leaves out of them; braille sparks; a flow's chart; the rows of engines."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kvdeck.app.config import Config
from kvdeck.app.tui.modes.monitor.engine_figures import engine_rows
from kvdeck.app.tui.modes.monitor.headline import offloaded, onboarded, reused, waiting
from kvdeck.app.tui.modes.monitor.panes.chart import FlowChart
from kvdeck.app.tui.modes.monitor.panes.service import ServedEngines
from kvdeck.app.tui.modes.monitor.panes.strip import TimeStrip
from kvdeck.app.tui.modes.monitor.panes.tiers import Tiers
from kvdeck.app.tui.modes.monitor.panes.tiles import Tiles, over
from kvdeck.app.tui.modes.monitor.served_figures import counts_text, quantile, slowest
from kvdeck.app.tui.modes.monitor.sparks import area, scale, spark
from kvdeck.engine.telemetry.sample import Flow, Number, Snapshot
from kvdeck.engine.telemetry.service import Latency, Service
from kvdeck.engine.telemetry.service_rows import between
from kvdeck.engine.telemetry.tracker import SourceStatus
from tests.app.tui.modes.monitor.test_screen import monitor, plain, show
from tests.support.builders import monitor as a_monitor
from tests.support.painted import BIG, HUGE, SMALL

STORE = Flow("a", "vllm offload store", "G1", "G2", "m", "c", bytes_total=9e9, bytes_per_s=2e9, bytes_gained=1e9)
OTHER = replace(STORE, source="b", bytes_per_s=1e9)
BLOCKS = Flow("c", "kvbm offload_blocks_d2h", "G1", "G2", "m", "c", blocks_total=5, blocks_per_s=1.0)
BY_SOURCE = "vllm:prompt_tokens_by_source_total"


def moment(*flows: Flow, numbers: tuple[Number, ...] = (), down: tuple[str, ...] = ()) -> Snapshot:
    sources = tuple(
        SourceStatus(name, "vllm", "unreachable" if name in down else "live", "", 1.0, stale=name in down)
        for name in ("a", "b", "c")
    )
    return Snapshot(1_767_268_800.0, sources, flows, numbers)


def tokens(source: str, origin: str, total: float, per_s: float) -> Number:
    return Number(source, BY_SOURCE, {"source": origin}, "tokens", "tokens", total, per_s)


def test_a_tile_is_the_sum_over_what_it_names() -> None:
    found = offloaded(moment(STORE, OTHER, replace(STORE, name="x", source_tier="G2", target_tier="G3")))
    assert (found.per_s, found.unit, len(found.flows)) == (3e9, "B", 2), "G2 to G3 doesn't leave the device"
    assert over(found) == "sum of 2 flows"
    assert onboarded(moment(STORE)).per_s is None, "nothing is counted, which is not 0"


def test_a_tile_says_what_its_sum_lacks() -> None:
    down = replace(OTHER, stale=True, bytes_per_s=None)
    found = offloaded(moment(STORE, down, BLOCKS, replace(STORE, name="new", bytes_per_s=None), down=("b",)))
    assert found.per_s == 2e9
    assert over(found) == "sum of 2 flows; without 1 down; 1 without a rate; 1 in blocks"
    assert offloaded(moment(down)).per_s is None, "nothing live of a source that is down"


def test_what_peers_sent_is_no_reuse() -> None:
    prefill = tokens("a", "local_compute", 900, 90.0), tokens("a", "local_cache_hit", 100, 10.0)
    pulled = tokens("b", "external_kv_transfer", 1000, 100.0)
    pull = Flow("b", "vllm nixl", "remote", "G1", "m", "c", bytes_total=1e9)
    both = reused(moment(pull, numbers=(*prefill, pulled)))
    assert both.share == pytest.approx(0.1), "the pair counts a prompt once"
    alone = reused(moment(pull, numbers=(pulled,)))
    assert alone.share == 0, "what the peer did isn't known: it is no reuse seen here"
    elsewhere = reused(moment(numbers=(*prefill, tokens("a", "external_kv_transfer", 1000, 100.0))))
    assert elsewhere.share == pytest.approx(110 / 200), "without a pull from peers it came from a tier"
    idle = reused(moment(numbers=(tokens("a", "local_compute", 900, 0.0), tokens("a", "local_cache_hit", 100, 0.0))))
    assert (idle.share, idle.whole) == (None, pytest.approx(0.1))


def test_the_queue_is_of_the_engines_that_answer() -> None:
    def gauge(source: str, name: str, value: float) -> Number:
        return Number(source, name, {}, "requests", "queue", value)

    gauges = (
        gauge("a", "vllm:num_requests_running", 3),
        gauge("b", "vllm:num_requests_running", 4),
        gauge("c", "dynamo_frontend_inflight_requests", 7),
        gauge("a", "vllm:num_requests_waiting", 2),
    )
    whole = waiting(replace(moment(), gauges=gauges))
    assert (whole.running, whole.waiting, whole.over) == (7, 2, 2), "the frontend counts the same requests"
    part = waiting(replace(moment(down=("b",)), gauges=gauges))
    assert (part.running, part.over, part.down) == (3, 1, 1)


def test_dynamos_frontend_and_its_workers_count_a_request_once() -> None:
    def gauge(source: str, name: str, value: float) -> Number:
        return Number(source, name, {}, "requests", "queue", value)

    whole = replace(
        moment(),
        sources=tuple(SourceStatus(name, "dynamo", "live", "", 1.0) for name in ("a", "b", "c")),
        gauges=(
            gauge("a", "dynamo_component_inflight_requests", 3),
            gauge("b", "dynamo_component_inflight_requests", 4),
            gauge("c", "dynamo_frontend_inflight_requests", 7),
            gauge("c", "dynamo_frontend_queued_requests", 2),
        ),
    )
    rows = between(None, whole)
    for one in (whole, replace(whole, services=rows.services)):
        found = waiting(one)
        assert (found.running, found.over, found.in_flight) == (7, 2, True)
    only = replace(whole, sources=whole.sources[2:], gauges=whole.gauges[2:])
    found = waiting(replace(only, services=between(None, only).services))
    assert (found.running, found.waiting, found.over, found.in_flight) == (7, 2, 1, True)


def test_a_router_counts_no_request_again() -> None:
    sources = (SourceStatus("a", "vllm", "live", "", 1.0), SourceStatus("r", "router", "live", "", 1.0))
    gauges = (
        Number("a", "vllm:num_requests_running", {}, "requests", "queue", 5),
        Number("r", "inference_objective_running_requests", {}, "requests", "queue", 6),
    )
    whole = replace(moment(), sources=sources, gauges=gauges)
    found = waiting(replace(whole, services=between(None, whole).services))
    assert (found.running, found.over, found.in_flight) == (5, 1, False)


def test_the_slowest_first_token_leads() -> None:
    quick = Latency("a", "", "ttft", "s", 10, 60.0, "m", p50=0.1, p50_low=0.05, p50_high=0.25)
    beyond = replace(quick, source="b", p50=None, p50_low=2560.0, p50_high=None)
    assert slowest((quick, beyond)) is beyond
    assert quantile(beyond, 50) == "> 2,560 s" or quantile(beyond, 50).startswith("> ")
    assert slowest((quick, replace(beyond, stale=True), replace(beyond, count=0))) is quick
    assert quantile(None, 50) == "–"


@pytest.mark.parametrize(("limit", "marked"), [(0.5, True), (0.95, False)])
async def test_a_full_cache_is_marked_above_the_limit_that_is_set(limit: float, marked: bool) -> None:
    deck = monitor(config=Config(kv_usage=limit), settings={"pane": "served"})
    async with deck.run_test(size=BIG) as pilot:
        last = a_monitor.all_moments()[-1]
        full = Service("a", "", "vllm", "online", None, running=1.0, kv_usage=0.9)
        await show(pilot, moments=(replace(last, services=(full,)),))
        pane = deck.screen.query_one(ServedEngines)
        tones = [tone for row in pane.body(80, 20) for text, tone in row if "90 %" in text]
        assert tones == ["warn" if marked else "dim"]


def test_counts_that_are_not_known_have_a_dash() -> None:
    assert counts_text({"stop": 180, "length": 0, "error": None}) == "stop 180, error –"


def test_a_spark_has_a_dot_where_a_rate_is_known_and_a_space_where_none_is() -> None:
    assert spark([None, None, 0.0, 0.0, 1.0, 1.0, None, 0.5]) == " ⣀⣿⢠"
    assert area([4.0, 8.0], 8.0, 2) == ["⢸", "⣿"]
    assert area([4.0, 8.0], 8.0, 2, hangs=True) == ["⣿", "⢸"]
    assert scale(1.0) == 1.0
    assert scale(0.0) == 1.0
    assert 3.0 <= scale(3.0) <= 3.0 * 2**0.5


def test_an_engine_that_does_not_answer_has_no_queue_of_now() -> None:
    rows = engine_rows(a_monitor.all_moments()[-1])
    assert [row.kind for row in rows] == ["kvbm", "vllm", "vllm"]
    assert rows[1].queue is not None
    assert (rows[1].queue.running, rows[1].queue.waiting) == (12, 3)
    assert rows[1].ttft is not None
    assert rows[0].ttft is None


@pytest.mark.parametrize("size", [SMALL, BIG, HUGE])
async def test_the_question_is_answered_in_the_first_rows(size: tuple[int, int]) -> None:
    deck = monitor()
    async with deck.run_test(size=size) as pilot:
        await show(pilot)
        words = plain(deck, Tiles)
        for word in ("536 MB/s", "1.07 GB/s", "64 %", "12", "3", "TTFT", "82.2 ms"):
            assert word in words
        assert deck.screen.query_one(Tiles).region.bottom <= 8


async def test_a_flow_fills_the_screen_with_axes_and_the_arrows_go_on() -> None:
    deck = monitor()
    async with deck.run_test(size=BIG) as pilot:
        await show(pilot)
        await pilot.press("down", "z")
        chart = deck.screen.query_one(FlowChart)
        first, figures, *_, ticks = chart.plain.splitlines()
        assert "vLLM store" in first
        assert "p50" in figures
        assert "peak 1.6" in figures
        assert ticks.split()[-1] == "now"
        await pilot.press("down")
        assert "KVBM h2d" in chart.plain.splitlines()[0]
        await pilot.press("escape")
        assert deck.screen.query_one(Tiers).size.area
        assert not chart.size.area


async def test_the_time_line_shows_where_one_stands() -> None:
    deck = monitor()
    async with deck.run_test(size=BIG) as pilot:
        await show(pilot)
        strip = deck.screen.query_one(TimeStrip)
        live = strip.plain.splitlines()[3].rindex("┃")
        await pilot.press("left_curly_bracket")
        assert strip.plain.splitlines()[3].rindex("┃") < live
        await pilot.press("right_curly_bracket")
        assert strip.plain.splitlines()[3].rindex("┃") == live
