"""What real software printed, read and understood; prometheus-client is the judge of the reading."""

from __future__ import annotations

import random
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from kvdeck.engine.telemetry.metrics.definitions import TABLE, is_histogram, meaning_of
from kvdeck.engine.telemetry.sample import Flow, Snapshot, take
from kvdeck.engine.telemetry.source import Labels, Series
from kvdeck.engine.telemetry.sources.exposition import Exposition, Parser
from kvdeck.engine.telemetry.sources.prometheus import Endpoint, recognise
from kvdeck.engine.telemetry.tracker import Track
from tests.support.programs.metrics_server import metrics_server, sample, sample_names, says

KINDS = {"dynamo_kvbm": "kvbm", "dynamo": "dynamo", "vllm032": "vllm", "nixl_prom": "nixl", "lmcache056": "lmcache"}


def judged(text: str) -> dict[Series, float]:
    """The samples as the library reads them, less buckets of unknown histograms, quantiles, `_created` and NaN."""
    return {
        Series(found.name, tuple(sorted(found.labels.items()))): found.value
        for family in text_string_to_metric_families(text)
        for found in family.samples
        if not found.name.endswith("_created") and "quantile" not in found.labels
        if not found.name.endswith("_bucket") or is_histogram(found.name.removesuffix("_bucket"))
        if found.value == found.value
    }


@pytest.mark.parametrize("name", sample_names())
def test_every_sample_is_read_as_the_library_reads_it(name: str) -> None:
    text = sample(name).decode()
    parser = Parser()
    first, again = parser.parse(text), parser.parse(text)
    expected = {(s.name, s.labels): value for s, value in judged(text).items()}
    for found in (first, again):
        # The library calls a counter without `_total` by its OpenMetrics name; here a metric keeps its own.
        read = {(s.name, s.labels): value for s, value in found.values.items()}
        named = {(n if (n, labels) in expected else f"{n}_total", labels): v for (n, labels), v in read.items()}
        assert named == expected
        assert not found.unread
        assert not found.torn
    kind = next(kind for prefix, kind in KINDS.items() if name.startswith(prefix))
    assert recognise(first) == kind


def test_types_say_which_series_only_grow() -> None:
    found = {s.name: s for s in Parser().parse(sample("nixl_prom_agent.prom").decode()).values}
    assert found["agent_xfer_time_total"].counter
    assert not found["agent_xfer_time"].counter, "the gauge of the last transfer is not the counter of the same name"
    assert found["agent_xfer_time_us_sum"].counter
    kvbm = {s.name: s for s in Parser().parse(sample("dynamo_kvbm_metrics_idle.prom").decode()).values}
    assert kvbm["kvbm_offload_blocks_d2h"].counter, "counters without _total"
    assert not kvbm["kvbm_host_cache_hit_rate"].counter


def moment(*readings: tuple[str, float]) -> Snapshot:
    """A snapshot after one endpoint's answers, each with its time in seconds."""
    parser, track = Parser(), Track("here", "prometheus")
    endpoint = Endpoint("http://127.0.0.1:1/metrics")
    endpoint._parser = parser
    for text, seconds in readings:
        reading = endpoint._reading(text)
        moved = type(reading)(int(seconds * 1e9), reading.values, reading.kind, reading.missing)
        track.took(moved, int(seconds * 1e9))
    return take([(track, 1.0)], int(readings[-1][1] * 1e9))


def flow(snapshot: Snapshot, name: str) -> Flow:
    (found,) = [one for one in snapshot.flows if one.name == name]
    return found


def test_h2d_means_two_things() -> None:
    found = moment((sample("dynamo_kvbm_metrics_host_replay.prom").decode(), 1.0))
    offload, onboard = flow(found, "kvbm offload_blocks_h2d"), flow(found, "kvbm onboard_blocks_h2d")
    assert (offload.source_tier, offload.target_tier) == ("G2", "G3"), "host to disk"
    assert (onboard.source_tier, onboard.target_tier) == ("G2", "G1"), "host to device"
    assert onboard.blocks_total == 56
    assert onboard.bytes_total is None, "blocks are no bytes while nobody knows their size"
    assert onboard.blocks_per_s is None, "one reading has no rate"


def test_rates_come_from_two_readings() -> None:
    cold, repeat = (sample(f"dynamo_kvbm_metrics_host_{name}.prom").decode() for name in ("cold", "repeat"))
    found = moment((cold, 10.0), (repeat, 14.0))
    assert flow(found, "kvbm offload_blocks_d2h").blocks_per_s == pytest.approx((36 - 32) / 4)
    assert flow(found, "kvbm onboard_blocks_h2d").blocks_per_s == pytest.approx(28 / 4)
    assert flow(found, "kvbm offload_blocks_h2d").blocks_per_s == 0.0, "known and still"


def test_vllms_twins_are_not_added() -> None:
    before, after = (sample(f"vllm032_offload_native_{name}.prom").decode() for name in ("before", "after"))
    found = moment((before, 0.0), (after, 10.0))
    load = flow(found, "vllm offload load")
    assert (load.source_tier, load.target_tier) == ("G2", "G1")
    assert load.bytes_total == 150_994_944
    assert load.metric == "vllm:kv_offload_load_bytes_total"
    assert load.transfers_total == 48
    only_twins = "\n".join(
        line for line in after.split("\n") if "offload_load" not in line and "offload_store" not in line
    )
    old = moment((only_twins, 0.0))
    assert flow(old, "vllm offload load").bytes_total == 150_994_944, "an older vLLM says it under the twin's name"
    assert flow(old, "vllm offload store").bytes_total == 75_497_472


def test_only_the_puller_counts() -> None:
    decode = moment((sample("vllm032_nixl_d_after.prom").decode(), 0.0))
    pulled = flow(decode, "vllm nixl")
    assert (pulled.source_tier, pulled.target_tier) == ("remote", "G1")
    assert (pulled.bytes_total, pulled.transfers_total, pulled.descriptors_total) == (40_894_464, 26, 144)
    prefill = moment((sample("vllm032_nixl_p_after.prom").decode(), 0.0))
    assert flow(prefill, "vllm nixl").bytes_total == 0


def test_nixls_agents_leave_their_tiers_open() -> None:
    found = moment((sample("nixl_prom_agent.prom").decode(), 0.0))
    sent = flow(found, "nixl tx")
    assert (sent.source_tier, sent.target_tier) == (None, None)
    assert (sent.bytes_total, sent.transfers_total) == (35_651_584, 34)
    times = [n.value for n in found.counters if n.name == "agent_xfer_time_total" and n.labels["agent_name"] == "telA"]
    assert times == [pytest.approx(0.855329)], "microseconds become seconds"


def test_missing_is_not_zero() -> None:
    found = moment((sample("lmcache056_exposition_idle.prom").decode(), 0.0))
    assert found.flows == ()
    assert not [n for n in found.counters if n.name.startswith("lmcache:num_hit")]
    vllm = moment((sample("vllm032_base_after.prom").decode(), 0.0))
    assert not [f for f in vllm.flows if f.name.startswith("vllm offload")], "no connector, no offload: not 0 bytes"


def test_every_meaning_says_who_says_so() -> None:
    for meaning in TABLE:
        assert meaning.claim
        assert meaning.flow or meaning.group, meaning.metric
    assert len({(m.metric, m.where) for m in TABLE}) == len(TABLE), "one meaning a metric"


@pytest.mark.parametrize(
    "name", ["kvbm_onboard_blocks_h2d", "dynamo_kvbm_onboard_blocks_h2d", "kvbm_onboard_blocks_h2d_total"]
)
def test_kvbms_names_are_taken_leniently(name: str) -> None:
    meaning = meaning_of(Series(name))
    assert meaning is not None
    assert (meaning.source, meaning.target) == ("G2", "G1")


@pytest.mark.parametrize(
    ("label", "tier"), [("1:fs", "G3"), ("disk", "G3"), ("2:obj", "G4"), ("1:p2p", "remote"), ("9:x", None)]
)
def test_a_tiers_label_decides_where_it_lies(label: str, tier: str | None) -> None:
    meaning = meaning_of(Series("vllm:kv_offload_tiering_read_bytes_total", (("tier", label),)))
    assert meaning is not None
    assert (meaning.source, meaning.target) == (tier, "G2")


async def test_every_sample_comes_over_http() -> None:
    handlers = {f"/{name}": says(sample(name)) for name in sample_names()}
    with metrics_server(handlers) as server:
        for name in sample_names():
            endpoint = Endpoint(server.url(f"/{name}"))
            reading = await endpoint.read()
            await endpoint.close()
            assert len(reading.values) == len(judged(sample(name).decode()))
            assert not reading.missing


def test_an_exposition_is_read_fast() -> None:
    """The figure is printed; that the memory of keys saves most of the work is what must hold."""
    text = sample("vllm032_offload_native_after.prom").decode()
    parser = Parser()
    parser.parse(text)
    start = time.perf_counter()
    for _ in range(20):
        parser.parse(text)
    ours = (time.perf_counter() - start) / 20
    print(f"{len(text)} bytes in {ours * 1e3:.2f} ms")
    calls: list[str] = []
    counted = Parser(lambda name: not calls.append(name))
    counted.parse(text)
    first = len(calls)
    counted.parse(text)
    assert first == len(calls), "no key is parsed twice"


def test_only_lines_that_changed_are_read_and_nothing_else_is_said() -> None:
    """Over many answers in which some values change, the quick way gives what the library reads."""
    text = sample("dynamo_fe_metrics_d.prom").decode()
    parser = Parser()
    parser.parse(text)
    chance = random.Random(5)
    lines = text.split("\n")
    for _ in range(20):
        for index in chance.sample(range(len(lines) - 1), 40):
            key, _, number = lines[index].rpartition(" ")
            if not key.startswith("#"):
                lines[index] = f"{key} {float(number) + chance.random()!r}"
        before = dict(parser._values)
        found = parser.parse("\n".join(lines))
        assert found.changed is not None, "the same keys in the same order"
        assert {(s.name, s.labels): v for s, v in found.values.items()} == named_by_us(judged("\n".join(lines)), found)
        assert set(found.changed) == {series for series, value in found.values.items() if before[series] != value}


def named_by_us(expected: dict[Series, float], found: Exposition) -> dict[tuple[str, Labels], float]:
    """The library calls a counter without `_total` by its OpenMetrics name; here a metric keeps its own."""
    ours = {(series.name, series.labels) for series in found.values}
    return {
        (s.name if (s.name, s.labels) in ours else s.name.removesuffix("_total"), s.labels): value
        for s, value in expected.items()
    }


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a 1\nb 2\n", "a 1\nc 2\n"),
        ("a 1\nb 2\n", "a 1\nb 2\nc 3\n"),
        ("a 1\nb 2\n", "a 1\n"),
        ("a 1\na 2\n", "a 3\na 2\n"),
        ("a 1\nb 2\n", "a NaN\nb 2\n"),
        ("a NaN\nb 2\n", "a 1\nb 2\n"),
        ("a 1 1000\nb 2\n", "a 2 2000\nb 2\n"),
        ("a 1\nb 2\n", "a 1\nb 2"),
        ("a 1\nb 2\n", "a 1\nb two\n"),
        ("# TYPE a counter\na 1\n", "# TYPE a gauge\na 1\n"),
        ('a{x="1"} 1\nb 2\n', 'a{x="2"} 1\nb 2\n'),
    ],
)
def test_where_more_than_values_changed_all_is_read_anew(before: str, after: str) -> None:
    parser, fresh = Parser(), Parser()
    parser.parse(before)
    found, expected = parser.parse(after), fresh.parse(after)
    assert found.changed is None
    assert {(s.name, s.labels): v for s, v in found.values.items()} == {
        (s.name, s.labels): v for s, v in expected.values.items()
    }
    assert (found.unread, found.torn, len(found.times)) == (expected.unread, expected.torn, len(expected.times))


@pytest.mark.parametrize(
    ("name", "labels", "tiers", "measure"),
    [
        ("kvbm_transfer_bytes_total", {"route": "g1_to_g2", "outcome": "ok"}, ("G1", "G2"), "bytes"),
        ("dynamo_kvbm_transfer_blocks_total", {"route": "G3->G1", "operation": "onboard"}, ("G3", "G1"), "blocks"),
        ("kvbm_transfer_duration_seconds_sum", {"route": "g2_g3"}, ("G2", "G3"), "seconds"),
        ("kvbm_offload_bytes_object", {}, ("G1", "G4"), "bytes"),
        ("vllm:kv_offload_tiering_read_bytes_total", {"tier": "1:StripedFileSystemTierManager"}, ("G3", "G2"), "bytes"),
        (
            "vllm:mooncake_store_operation_bytes_total",
            {"operation": "load_get", "status": "ok"},
            ("remote", "G1"),
            "bytes",
        ),
        (
            "vllm:mooncake_store_operation_total",
            {"operation": "save_put", "status": "ok"},
            ("G1", "remote"),
            "transfers",
        ),
        ("lmcache:num_remote_read_bytes_total", {}, ("remote", "G2"), "bytes"),
    ],
)
def test_names_that_no_sample_prints_are_marked_so(
    name: str, labels: dict[str, str], tiers: tuple[str, str], measure: str
) -> None:
    meaning = meaning_of(Series(name, tuple(sorted(labels.items()))))
    assert meaning is not None
    assert ((meaning.source, meaning.target), meaning.measure) == (tiers, measure)
    assert "no sample" in meaning.claim or "prints none of it" in meaning.claim


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("kvbm_transfer_bytes_total", {"route": "d2h"}),
        ("kvbm_transfer_bytes_total", {"route": "g1_to_g2", "outcome": "failed"}),
        ("kvbm_transfer_inflight", {"route": "g1_to_g2"}),
        ("vllm:mooncake_store_operation_bytes_total", {"operation": "load_get", "status": "error"}),
        ("vllm:mooncake_store_operation_bytes_total", {"operation": "lookup_exists", "status": "ok"}),
    ],
)
def test_what_is_of_another_shape_keeps_its_own_name(name: str, labels: dict[str, str]) -> None:
    assert meaning_of(Series(name, tuple(sorted(labels.items())))) is None


def test_a_claim_names_a_sample_that_prints_it_or_says_that_none_does() -> None:
    """Of all samples together: whoever claims a sample must be in one."""
    printed = {series.name for name in sample_names() for series in Parser().parse(sample(name).decode()).values}
    printed |= {name.removesuffix("_total") for name in printed}
    printed |= {name.removesuffix("_bucket") for name in printed}
    for meaning in TABLE:
        if ", samples " in meaning.claim:
            assert meaning.metric in printed, meaning
