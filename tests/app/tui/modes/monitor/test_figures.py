"""The Monitor's arithmetic: the past and its bounds, sparks, thresholds, marks, and what real samples come to."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from rich.cells import cell_len

from kvdeck.app.text import monitor_names
from kvdeck.app.text.monitor_report import distinct_names, monitor_lines
from kvdeck.app.tui.modes.monitor.alerts import TOLD_AGAIN_S, Thresholds, parse
from kvdeck.app.tui.modes.monitor.annotations import MOST, Marks, happened
from kvdeck.app.tui.modes.monitor.cache_figures import Numbers, hits, origins, queues
from kvdeck.app.tui.modes.monitor.device_figures import links, worth_showing
from kvdeck.app.tui.modes.monitor.flow_figures import path_row
from kvdeck.app.tui.modes.monitor.history import RATES_S, SPARK_S, History, Rates, flow_key
from kvdeck.app.tui.modes.monitor.panes.cache import Reuse
from kvdeck.app.tui.modes.monitor.settings import RATES_HZ, Settings, recalled
from kvdeck.app.tui.modes.monitor.sparks import spark
from kvdeck.app.tui.modes.monitor.tier_figures import fills, in_order, spoken_of, way
from kvdeck.app.tui.modes.monitor.timeline import Timeline, with_pins
from kvdeck.app.tui.modes.monitor.view import View
from kvdeck.engine.telemetry.sample import Check, Flow, Number, Snapshot
from kvdeck.engine.telemetry.tracker import SourceStatus
from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.store.telemetry.annotations import Mark
from kvdeck.sessions.units import count_text, rate_text, seconds_text
from tests.support.builders import monitor as a_monitor

VLLM, DECODE, KVBM = "http://127.0.0.1:8000/metrics", "http://127.0.0.1:8100/metrics", "http://127.0.0.1:6880/metrics"


def flow(rate: float | None = None, **more: object) -> Flow:
    return Flow("s", "n", "G1", "G2", "m", "c", blocks_total=1.0, blocks_per_s=rate, **more)  # type: ignore[arg-type]


def at(t: float, *flows: Flow) -> Snapshot:
    return Snapshot(t, flows=flows)


# --- the past ---


def test_the_past_holds_ten_minutes_and_no_more_than_a_moment_a_second():
    history = History()
    for tenth in range(11_000):
        history.note(at(1000.0 + tenth / 10))
    assert len(history) == 600
    assert history.begin == 1500.0
    assert history.end == 2099.0
    assert history.bytes < 600 * 1000


def test_a_moment_of_the_past_comes_back_as_it_was():
    history = History()
    for moment in a_monitor.all_moments():
        history.note(moment)
    assert history.at(a_monitor.BEGIN + 40.4) == a_monitor.all_moments()[40]
    assert history.at(0.0) == a_monitor.all_moments()[0]
    assert history.at(1e12) == a_monitor.all_moments()[-1]
    assert history.bytes / len(history) < 12_000
    assert History().at(1.0) is None


def test_a_spark_leaves_out_what_is_not_known_and_stands_still_between_steps():
    rates = Rates()
    for second in range(120):
        rates.note(at(1200.0 + second, flow(None if second < 60 else float(second))))
    before = spark(rates.flow_cells(flow(), 1319.0, 12))
    assert before[:5].strip() == ""
    assert before[6:].strip() == before[6:], "the first rate covers the second before it"
    assert before[-1] == "⣿"
    assert spark(rates.flow_cells(flow(), 1319.9, 12)) == before
    assert spark(rates.flow_cells(flow(), 1320.0, 12)) == before[1:] + " ", "a new pair of steps has no rate yet"


def test_a_spark_of_a_slow_rate_has_no_holes_and_a_gap_is_one():
    rates = Rates()
    for t in (100.0, 105.0, 110.0, 115.0, 120.0):
        rates.note(at(t, flow(1.0)))
    assert rates.cells("s n blocks", 120.0, 40, 40.0)[-21:-1] == [1.0] * 20
    rates.note(at(150.0, flow(1.0)))
    cells = rates.cells("s n blocks", 150.0, 40, 40.0)
    assert cells[-2] == 1.0
    assert cells[-29:-2] == [None] * 27


def test_an_answer_that_comes_late_fills_the_time_that_it_covers():
    rates = Rates()
    source = SourceStatus("s", "vllm", "live", "", 0.0, over_s=1.0)
    for t, rate, over in ((101.0, 4.0, 1.0), (102.0, None, None), (103.0, 6.0, 2.0), (143.0, 1.0, 40.0)):
        rates.note(replace(at(t, flow(rate)), sources=(replace(source, over_s=over),)))
        if t == 103.0:
            assert rates.cells("s n blocks", 103.0, 40, 40.0)[-4:-1] == [4.0, 6.0, 6.0]
    assert rates.cells("s n blocks", 143.0, 40, 40.0)[:-1] == [1.0] * 39


def test_the_growth_in_a_spark_is_the_growth():
    """Whatever the lateness and the width: the sum over the cells of rate × known time is that over the samples."""
    chance = random.Random(5)
    rates, t, whole = Rates(), 1000.0, 0.0
    while t < 1110.0:
        over = chance.choice((0.1, 0.3, 1.0, 1.0, 2.0, 7.0))
        t += over
        rate = chance.uniform(0, 1e9)
        whole += rate * over
        rates.note(replace(at(t, flow(rate)), sources=(SourceStatus("s", "vllm", "live", "", 0.0, over_s=over),)))
        for width in (7, 24):
            rates.cells("s n blocks", t, width)
            drawn = rates._drawn["s n blocks", width, SPARK_S]
            newest = rates._rates["s n blocks"][-1]
            left = newest.value * (newest.end - newest.begin) if drawn.next < len(rates._rates["s n blocks"]) else 0.0
            assert sum(drawn.growth) + left == pytest.approx(whole)


def test_sparks_drawn_on_are_those_drawn_anew():
    rates, fresh = Rates(), Rates()
    fresh._rates, fresh._dropped = rates._rates, rates._dropped
    t = 0.0
    for number in range(1500):
        t += (0.1, 0.5, 1.0, 1.0, 5.0, 12.0)[number * 7 % 6]
        rates.note(at(t, flow(None if number % 5 == 0 else number % 11)))
        fresh._drawn.clear()
        for width in (8, 24):
            known, anew = (of.cells("s n blocks", t, width) for of in (rates, fresh))
            assert [cell is None for cell in known] == [cell is None for cell in anew]
            assert [cell or 0.0 for cell in known] == pytest.approx([cell or 0.0 for cell in anew])


def test_rates_are_kept_as_long_as_they_can_be_seen_and_are_not_mixed_when_blocks_become_bytes():
    rates = Rates()
    for second in range(4000):
        rates.note(at(float(second), flow(5.0)))
    assert len(rates._rates["s n blocks"]) < 2 * RATES_S
    sized = replace(flow(5.0), bytes_total=10.0, bytes_per_s=50.0)
    rates.note(at(4000.0, sized))
    assert rates.cells("s n bytes", 4000.0, 4)[-1] == 50.0
    assert 50.0 not in rates.cells("s n blocks", 4000.0, 4)
    rates.note(at(9000.0))
    assert not rates._rates


# --- thresholds ---


@pytest.mark.parametrize(
    ("text", "above", "value", "unit"),
    [
        ("> 5 GB/s", True, 5e9, "B/s"),
        (">=5GiB/s", True, 5 * 2**30, "B/s"),
        ("< 1,500 blocks/s", False, 1500.0, "blocks/s"),
        ("> 90 %", True, 0.9, "%"),
        ("> 3 failures", True, 3.0, "failures"),
        ("< 2.5 k", False, 2500.0, ""),
    ],
)
def test_a_threshold_is_read(text: str, above: bool, value: float, unit: str):
    found = parse(text)
    assert (found.above, found.value, found.unit) == (above, value, unit)


@pytest.mark.parametrize("text", ["5 GB/s", "> fast", "> 5 GB/s now", ">", "> 3 Giblocks", "> -1"])
def test_what_is_no_threshold_is_refused_with_an_example(text: str):
    with pytest.raises(UsageError, match=r"alert|bytes"):
        parse(text)


def test_a_crossing_is_told_once_and_both_ways_and_seldom():
    thresholds = Thresholds({"s n": "> 10 blocks/s", "gone": "nonsense"})
    assert thresholds.texts == {"s n": "> 10 blocks/s"}
    assert thresholds.take(at(0.0, flow(3.0))) == []
    (out,) = thresholds.take(at(1.0, flow(30.0)))
    assert (out.out, out.told, out.key) == (True, True, "s n")
    assert "> 10 blocks/s" in out.text
    assert thresholds.take(at(2.0, flow(31.0))) == []
    assert thresholds.take(at(3.0, flow(None))) == [], "what is not known crosses nothing"
    (back,) = thresholds.take(at(4.0, flow(1.0)))
    assert (back.out, back.told) == (False, False)
    (again,) = thresholds.take(at(5.0, flow(30.0)))
    assert (again.out, again.told) == (True, False), "a toast for it came just now"
    thresholds.take(at(6.0, flow(1.0)))
    assert thresholds.take(at(2.0 + TOLD_AGAIN_S, flow(30.0)))[0].told
    thresholds.put("s n", "")
    assert not thresholds.is_out("s n")
    assert thresholds.take(at(99.0, flow(1.0))) == []


def test_a_threshold_on_a_gauge_is_on_its_value_and_on_a_counter_on_its_growth():
    gauge = Number("s", "usage", {}, "ratio", "memory", 0.95)
    counter = Number("s", "tokens", {}, "tokens", "tokens", 1e6, per_s=5.0, gained=3.0)
    thresholds = Thresholds({"s usage{}": "> 90 %", "s tokens{}": "> 4 /s"})
    found = thresholds.take(Snapshot(1.0, pinned=(gauge, counter)))
    assert [crossing.key for crossing in found] == ["s usage{}", "s tokens{}"]


@pytest.mark.parametrize(
    ("row", "text", "fix"),
    [
        (flow(3.0), "> 5 GB/s", "use blocks or blocks/s, or a number without a unit"),
        (flow(3.0), "> 5 %", "use blocks or blocks/s"),
        (flow(3.0), "> 5 tokens", "use blocks or blocks/s"),
        (flow(3.0), "> 3 failures", "use blocks or blocks/s"),
        (Number("s", "usage", {}, "ratio", "memory", 0.5), "> 5 GB", "use %, or"),
        (Number("s", "usage", {}, "ratio", "memory", 0.5), "> 5 /s", "use %, or"),
        (Number("s", "used", {}, "bytes", "memory", 5.0), "> 5 GB/s", "use GB, or"),
        (Number("s", "tokens", {}, "tokens", "tokens", 5.0, before=0.0), "> 5 B/s", "use tokens or tokens/s, or"),
    ],
)
def test_an_alert_in_a_unit_that_the_row_has_not_is_refused_with_those_it_has(row: Flow | Number, text: str, fix: str):
    thresholds = Thresholds()
    with pytest.raises(UsageError, match="would never be met") as refused:
        thresholds.put("k", text, row)
    assert refused.value.fix.startswith(fix)
    assert thresholds.texts == {}


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (flow(3.0), "> 5"),
        (flow(3.0), "> 5 /s"),
        (flow(3.0), "> 5 blocks"),
        (replace(flow(3.0), bytes_total=3.0, failures_total=0.0), "> 3 failures"),
        (replace(flow(3.0), bytes_total=3.0), "> 5 GiB/s"),
        (Number("s", "odd", {}, "", None, 5.0), "> 5 GB/s"),
        (Number("s", "ttft", {}, "seconds", "queue", 5.0), "> 5 s"),
        (Number("s", "pcie", {}, "B/s", "host", 5.0), "> 5 GB/s"),
    ],
)
def test_an_alert_in_a_unit_of_the_row_or_on_a_series_of_unknown_unit_is_set(row: Flow | Number, text: str):
    thresholds = Thresholds()
    thresholds.put("k", text, row)
    assert thresholds.texts == {"k": text}


def test_a_saved_alert_that_can_not_be_met_is_named_once_and_stops_nothing():
    thresholds = Thresholds({"s n": "> 10 GB/s", "gone": "nonsense"})
    assert [problem.split(":")[0] for problem in thresholds.problems] == ["a saved alert of gone is ignored"]
    for second in range(3):
        assert thresholds.take(at(float(second), flow(3.0))) == []
    assert len(thresholds.problems) == 2
    assert "is not counted in B/s" in thresholds.problems[1]


def test_a_counter_that_was_read_once_has_no_rate_rather_than_its_total():
    counter = Number("s", "tokens", {}, "tokens", "tokens", 1e6, before=1e6)
    thresholds = Thresholds({"s tokens{}": "> 4 /s"})
    assert thresholds.take(Snapshot(1.0, pinned=(counter,))) == []
    rates = Rates()
    rates.note(Snapshot(1.0, pinned=(counter,)))
    assert set(rates.cells("s tokens{}", 1.0, 4)) == {None}


# --- marks ---


def test_marks_are_bounded_in_order_and_seen_up_to_a_time():
    marks = Marks()
    for number in range(MOST + 20):
        marks.add(Mark(float(number), str(number)))
    marks.add(Mark(30.5, "late"))
    assert len(marks.until(1e9)) == MOST
    assert marks.until(30.6)[-1].text == "late"
    assert marks.until(10.0) == ()


def test_a_source_that_falls_silent_and_a_new_finding_leave_marks_once():
    live = SourceStatus("a", "kvbm", "live", "", 0.1)
    gone = replace(live, state="unreachable", reason="Connection refused")
    look = Check("x", "warning", "nothing matches")
    before, after = Snapshot(1.0, (live,)), Snapshot(2.0, (gone,), checks=(look,))
    assert [mark.text for mark in happened(before, after)] == [
        "a is unreachable: Connection refused",
        "nothing matches",
    ]
    assert happened(after, replace(after, t=3.0)) == []
    assert [mark.text for mark in happened(after, replace(before, t=4.0))] == ["a is back"]


# --- the timeline ---


def test_looking_back_steps_through_the_past_and_ends_at_what_is_now():
    timeline = Timeline(Thresholds())
    for moment in a_monitor.all_moments():
        timeline.note(moment, (a_monitor.PIN,))
    timeline.step(-1.0)
    assert timeline.now == a_monitor.BEGIN + 148
    timeline.step(-30.0)
    view = timeline.view(())
    assert view.now == a_monitor.BEGIN + 118
    assert view.moment.flows == a_monitor.all_moments()[118].flows
    timeline.step(float("-inf"))
    assert timeline.now == a_monitor.BEGIN
    timeline.step(3.0)
    assert timeline.now == a_monitor.BEGIN + 3
    timeline.note(replace(a_monitor.all_moments()[-1], t=a_monitor.BEGIN + 150), ())
    assert timeline.now == a_monitor.BEGIN + 3, "the data goes on, the picture does not"
    timeline.step(float("inf"))
    assert timeline.shown is None
    assert timeline.now == a_monitor.BEGIN + 150
    empty = Timeline(Thresholds())
    empty.step(-1.0)
    assert empty.shown is None


def test_what_is_pinned_is_found_among_known_numbers_and_unknown_ones():
    unknown = Number("s", "mystery", {}, "", None, 4.0)
    known = Number("s", "known", {}, "tokens", "tokens", 5.0)
    moment = Snapshot(1.0, counters=(known,), pinned=(unknown,))
    assert [n.name for n in with_pins(moment, ("known", "mystery")).pinned] == ["known", "mystery"]
    assert with_pins(moment, ()).pinned == ()


# --- what is read out of moments ---


def test_where_kv_came_from_is_told_for_each_source_and_never_summed():
    numbers = Numbers(a_monitor.all_moments()[-1])
    prompt, decode = origins(numbers)
    shares = {part.name: round(part.total / prompt.total, 2) for part in prompt.parts if part.total}
    assert (prompt.source, shares) == (VLLM, {"computed": 0.36, "host": 0.64})
    assert {part.tier for part in decode.parts if part.total} == {"G1", "remote"}
    assert decode.source == DECODE


def test_hits_come_with_what_they_are_out_of():
    found = {(hit.what, hit.source): hit for hit in hits(Numbers(a_monitor.all_moments()[-1]))}
    external = found["external", VLLM]
    assert external.of is not None
    assert external.hits == pytest.approx(0.64 * external.of)
    assert external.now == pytest.approx(0.64)
    window = found["host", KVBM]
    assert (window.share, window.of) == (0.5, None)
    assert found["matched", KVBM].hits
    assert found["prefix", DECODE].now is None, "nothing is asked for now"


def test_an_older_vllm_without_tiers_still_says_computed_and_cached():
    counters = tuple(
        Number("s", "vllm:prompt_tokens_by_source_total", {"source": source}, "tokens", "tokens", value)
        for source, value in (("local_compute", 10.0), ("local_cache_hit", 30.0))
    )
    (found,) = origins(Numbers(Snapshot(1.0, (SourceStatus("s", "vllm", "live", "", 0.1),), counters=counters)))
    assert [(part.name, part.tier, part.total) for part in found.parts] == [
        ("computed", "", 10.0),
        ("device", "G1", 30.0),
    ]


def test_who_waits_is_told_and_what_is_not_said_is_not_zero():
    found = {queue.source: queue for queue in queues(Numbers(a_monitor.all_moments()[-1]))}
    assert (found[VLLM].running, found[VLLM].waiting) == (12.0, 3.0)
    assert not found[VLLM].in_flight
    assert KVBM not in found


def test_tiers_are_spoken_of_by_flows_and_gauges_only():
    moment = a_monitor.all_moments()[-1]
    full = fills(moment)
    assert full["G1"][0].text == "KV 87 %"
    assert "G2" not in full, "what active transfers pin is not how full the host tier is"
    assert spoken_of(moment, full) == {"remote", "G1", "G2", "G3", "G4"}
    nothing = Snapshot(1.0)
    assert spoken_of(nothing, fills(nothing)) == set()


def test_the_disk_tiers_file_is_a_capacity_and_no_use():
    gauges = tuple(
        Number("s", "disk_tier_bytes", {"what": what, "inode": "1"}, "bytes", "memory", size)
        for what, size in (("size", 100e9), ("allocated", 100e9))
    )
    (fill,) = fills(Snapshot(1.0, gauges=gauges))["G3"]
    assert (fill.share, fill.text) == (None, "of 100 GB")


def rates_of(*counters: tuple[str, dict[str, str], float, float]) -> Numbers:
    """Counters of one source: name, labels, total, growth per second."""
    numbers = tuple(Number("s", *item[:2], "tokens", "hits", item[2], per_s=item[3], gained=1.0) for item in counters)
    return Numbers(Snapshot(1.0, (SourceStatus("s", "vllm", "live", "", 0.1),), counters=numbers))


def test_each_tier_has_a_hit_rate_of_its_own():
    """Summed, 8.9 % of the host tier and 96.5 % of the disk tier would read 47.6 %."""
    name = "vllm:kv_offload_tiering_chunk_{}_total"
    numbers = rates_of(
        (name.format("queries"), {"tier": "0:cpu"}, 1000.0, 10.0),
        (name.format("hits"), {"tier": "0:cpu"}, 89.0, 1.0),
        (name.format("queries"), {"tier": "1:fs"}, 911.0, 10.0),
        (name.format("hits"), {"tier": "1:fs"}, 879.0, 9.0),
    )
    found = {hit.what: (round(hit.share or 0, 3), hit.now) for hit in hits(numbers)}
    assert found == {"tier chunks 0:cpu": (0.089, 0.1), "tier chunks 1:fs": (0.965, 0.9)}


def test_a_tier_that_counts_queries_only_has_no_share_of_0():
    name = "vllm:kv_offload_tiering_chunk_{}_total"
    numbers = rates_of(
        (name.format("queries"), {"tier": "0:primary"}, 287_616.0, 0.0),
        (name.format("queries"), {"tier": "1:fs"}, 41_936.0, 0.0),
        (name.format("hits"), {"tier": "1:fs"}, 40_942.0, 0.0),
    )
    host, disk = hits(numbers)
    assert (host.what, host.share, host.hits, host.of) == ("tier chunks 0:primary", None, None, 287_616.0)
    assert disk.share == pytest.approx(0.976, abs=5e-4)


def test_two_engines_behind_one_address_have_a_hit_rate_each():
    query, hit = "vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total"
    numbers = rates_of(
        *((query, {"engine": engine}, 100.0, 0.0) for engine in "01"),
        (hit, {"engine": "0"}, 90.0, 0.0),
        (hit, {"engine": "1"}, 10.0, 0.0),
    )
    assert [(found.what, found.share) for found in hits(numbers)] == [
        ("engine 0 prefix", 0.9),
        ("engine 1 prefix", 0.1),
    ]


def test_the_report_tells_sources_and_labels_apart_where_columns_are_few():
    one, other = ("http://127.0.0.1:8000/metrics", "http://127.0.0.1:8001/metrics")
    name = "vllm:prompt_tokens_cached_by_source_total"
    counters = tuple(
        Number(source, name, {"source": tier}, "tokens", "tokens", 5.0, 1.0)
        for source in (one, other)
        for tier in ("device", "external_unspecified")
    )
    gauges = (
        Number(one, "vllm:kv_cache_usage_perc", {}, "ratio", "memory", 0.5),
        Number(other, "kvbm_disk_cache_hit_rate", {}, "ratio", "hits", -1.0),
    )
    flows = tuple(replace(flow(1.0), source=source, bytes_total=3e9, bytes_per_s=None) for source in (one, other))
    sources = tuple(SourceStatus(source, "prometheus", "live", "", 0.0) for source in (one, other))
    moment = Snapshot(1.0, sources, flows, counters, gauges)
    lines = [line.text for line in monitor_lines(moment, 80)]
    for tier in ("(device)", "(external_unspecified)"):
        assert sorted(line.split()[-1] for line in lines if tier in line) == [":8000", ":8001"]
    assert [line.split()[-1] for line in lines if "G1 → G2" in line] == [":8000", ":8001"]
    assert not any("blocks/s" in line for line in lines), "the unit of a flow is that of its total"
    table = lines[lines.index("Gauges") + 1 :]
    assert table[0].split() == ["metric", "value", "source"], "gauges have no rate"
    assert [line.split()[-2] for line in table[1:3]] == ["%", "–"]
    assert max(map(len, lines)) <= 80


def test_two_engines_behind_one_kvbm_address_have_a_rate_each_and_none_that_is_no_rate():
    rates = [("kvbm_host_cache_hit_rate", "0", 0.5), ("kvbm_host_cache_hit_rate", "1", 0.25)]
    rates += [("kvbm_disk_cache_hit_rate", "0", -1.0), ("kvbm_disk_cache_hit_rate", "1", 1.5)]
    gauges = tuple(Number("s", name, {"engine": engine}, "ratio", "hits", value) for name, engine, value in rates)
    sources = (SourceStatus("s", "kvbm", "live", "", 0.0),)
    found = hits(Numbers(Snapshot(1.0, sources, gauges=gauges)))
    assert [(hit.what, hit.share) for hit in found] == [
        ("engine 0 host", 0.5),
        ("engine 1 host", 0.25),
        ("engine 0 disk", None),
        ("engine 1 disk", None),
    ]


def test_dynamo_counts_requests_in_flight_of_which_some_are_queued():
    gauges = tuple(Number("s", f"dynamo_frontend_{name}_requests", {}, "requests", "queue", value)
                   for name, value in (("inflight", 30.0), ("queued", 4.0)))  # fmt: skip
    pane = Reuse()
    pane.view = View(Snapshot(1.0, (SourceStatus("s", "dynamo", "live", "", 0.0),), gauges=gauges))
    (row,) = pane.body(80, 10)
    assert "".join(text for text, _ in row).split() == ["s", "in", "flight", "30", "queued", "4", "preempted", "–"]
    assert [row[1] for row in pane.table().rows] == ["in flight", "queued", "preempted"]


@pytest.mark.parametrize("width", [60, 66, 80, 120])
def test_the_rows_of_the_reuse_pane_fit_its_columns(width: int):
    server = {"server": "http://10.0.0.1:8000", "engine": "0"}, {"server": "http://10.0.0.2:8000", "engine": "1"}
    tiers = ("device", "host", "disk", "object", "p2p", "external_unspecified")
    counters = [
        *((f"vllm:{name}_total", labels, 2e9, 1e6) for labels in server for name in
          ("prefix_cache_queries", "prefix_cache_hits", "external_prefix_cache_queries", "external_prefix_cache_hits")),
        *(("vllm:prompt_tokens_cached_by_source_total", {"source": tier}, 1.5e9, 1e5) for tier in tiers),
        ("vllm:prompt_tokens_by_source_total", {"source": "local_compute"}, 1e9, 1e5),
        ("vllm:num_preemptions_total", {}, 123_456, 1_234.0),
    ]  # fmt: skip
    source = "http://a-host-with-a-long-name.example:18101/vllm/metrics"
    numbers = tuple(Number(source, n, labels, "tokens", "tokens", v, per_s) for n, labels, v, per_s in counters)
    queue = tuple(
        Number(source, f"vllm:num_requests_{n}", {}, "requests", "queue", 12_345.0) for n in ("running", "waiting")
    )
    pane = Reuse()
    pane.view = View(Snapshot(1.0, (SourceStatus(source, "vllm", "live", "", 0.0),), counters=numbers, gauges=queue))
    rows = pane.body(width, 40)
    text = "\n".join("".join(text for text, _ in row).rstrip() for row in rows)
    assert all(cell_len(line) <= width for line in text.splitlines()), text
    if width >= 66:
        assert "external unspecified 15 %" in text
        assert "server 10.0.0.2:8000 external" in text
        assert "123,456" in text


@pytest.mark.parametrize(
    ("asked", "answered", "now"),
    [((400.0, 1.0), (384.0, 1.0), 0.96), ((0.0, 0.0), (384.0, 1.0), None), ((800.0, 2.0), (384.0, 1.0), None)],
)
def test_a_share_is_of_the_same_requests(asked: tuple[float, float], answered: tuple[float, float], now: float | None):
    """Dynamo's frontend counts a prompt's tokens when it arrives, and the cached ones when it is answered."""
    stem = "dynamo_frontend_{}_tokens_{}"
    numbers = rates_of(
        (stem.format("input_sequence", "sum"), {}, 40_000.0, asked[0]),
        (stem.format("input_sequence", "count"), {}, 100.0, asked[1]),
        (stem.format("cached", "sum"), {}, 38_400.0, answered[0]),
        (stem.format("cached", "count"), {}, 100.0, answered[1]),
    )
    (found,) = hits(numbers)
    assert (found.share, found.now) == (0.96, now)
    (origin,) = origins(numbers)
    assert [(part.name, part.tier) for part in origin.parts] == [("not cached", ""), ("cached", "")]


def test_series_of_two_engines_are_told_apart_in_the_report():
    two = [
        Number("s", "vllm:kv_cache_usage_perc", {"engine": e, "model_name": "m"}, "ratio", "memory", 0.9) for e in "01"
    ]
    assert distinct_names(two) == ["vllm:kv_cache_usage_perc (engine 0)", "vllm:kv_cache_usage_perc (engine 1)"]
    assert distinct_names(two[:1]) == ["vllm:kv_cache_usage_perc"]


@pytest.mark.parametrize(
    ("source", "target", "said"),
    [
        ("G1", "G3", "offload"),
        ("G4", "G1", "onboard"),
        ("remote", "G1", "peers"),
        ("G2", "G2", "within"),
        (None, None, "transfer"),
    ],
)
def test_down_is_offload_and_up_is_onboard(source: str, target: str, said: str):
    assert way(Flow("s", "n", source, target, "m", "c")) == said  # type: ignore[arg-type]


def test_the_order_of_flows_does_not_depend_on_their_rates():
    moments = a_monitor.all_moments()
    assert [flow_key(one) for one in in_order(moments[20].flows)] == [flow_key(f) for f in in_order(moments[90].flows)]


def test_a_paths_figures_are_of_now_while_it_moves_and_over_all_when_it_stands():
    found = {one.name: path_row(one) for one in a_monitor.all_moments()[-1].flows}
    store = found["vllm offload store"]
    assert store.size.now
    assert store.size.value == pytest.approx(2903749, rel=0.01)
    assert store.seconds.value == pytest.approx(456e-6, rel=0.01)
    still = found["vllm nixl"]
    assert not still.size.now
    assert still.descriptors == pytest.approx(144 / 26)
    assert still.merged
    assert found["kvbm offload_blocks_d2h"].size.value is None


def test_devices_stand_beside_what_they_can_carry():
    found = {f"{link.kind} {link.device}": link for link in links(a_monitor.all_moments()[-1])}
    assert found["IB mlx5_0:1"].into.share == pytest.approx(0.62)
    assert found["PCIe GPU 0"].into.share == pytest.approx(0.93, rel=0.03)
    assert found["disk nvme0n1"].into.share is None, "nobody says what it can carry"
    shown = [f"{link.kind} {link.device}" for link in worth_showing(list(found.values()))]
    assert "disk nvme1n1" not in shown
    assert "NIC ens2" in shown, "idle, and with a limit"


# --- settings and words ---


def test_settings_survive_their_memory_and_nonsense_is_as_if_it_were_not_there():
    chosen = Settings(("a", "b"), ("a",), 5.0, ("m",), {"k": "> 1 B/s"}, 2.0, "as typed", "host")
    assert recalled(chosen.to_memory()) == chosen
    assert recalled(Settings().to_memory()) == Settings()
    assert recalled({"sources": 3, "hz": "fast", "pins": {}, "block_bytes": True, "thresholds": []}) == Settings()
    assert recalled("teapot") == Settings()
    assert recalled({"sources": []}).sources == (), "chosen to watch nothing"


def test_rates_step_through_what_is_offered():
    settings = Settings(hz=RATES_HZ[0])
    assert settings.faster(-1).hz == RATES_HZ[0]
    for expected in RATES_HZ[1:]:
        settings = settings.faster(1)
        assert settings.hz == expected
    assert settings.faster(1).hz == RATES_HZ[-1]


def test_figures_keep_three_digits_and_their_width():
    assert [rate_text(v) for v in (0, 999.4, 999.6, 1.234e9, 999.96e6, 12.34e12)] == [
        "0 B/s",
        "999 B/s",
        "1.00 kB/s",
        "1.23 GB/s",
        "1.00 GB/s",
        "12.3 TB/s",
    ]
    assert [count_text(v) for v in (0, 3, 2.5, 36864, 123456, 12.345e6)] == [
        "0",
        "3",
        "2.5",
        "36,864",
        "123,456",
        "12.3M",
    ]
    assert [seconds_text(v) for v in (None, 3e-9, 12.3e-6, 1.2e-3, 3.4)] == [
        "–",
        "3 ns",
        "12.3 µs",
        "1.20 ms",
        "3.40 s",
    ]
    assert monitor_names.source_name("http://127.0.0.1:8000/metrics") == ":8000"
    assert monitor_names.source_name("http://gpu-7:8000/metrics") == "gpu-7:8000"
    assert monitor_names.source_name("/run/nixl/agent-1") == "agent-1"


def test_what_stands_still_does_not_tick():
    assert monitor_names.ago(11.0) == monitor_names.ago(14.0)
    assert monitor_names.ago(61.0) == monitor_names.ago(119.0)
    assert monitor_names.steady("refused (for 9.5 s)") == monitor_names.steady("refused (for 47 s)") == "refused"
    assert (
        monitor_names.steady("refused (for 2 min 10 s)")
        == monitor_names.steady("refused (for 2 min 50 s)")
        == "refused (for 2 min)"
    )
    assert monitor_names.steady("refused (for 3 h 05 min)") == "refused (for 3 h 05 min)"


def test_a_source_with_hits_only_keeps_its_row_within_the_pane():
    name = "http://a-host-with-a-long-name:6880/metrics"
    numbers = tuple(
        Number(name, f"kvbm_{which}_cache_hit_rate", {}, "", None, 0.5) for which in ("host", "disk", "object")
    )
    pane = Reuse()
    pane.view = View(Snapshot(1.0, (SourceStatus(name, "kvbm", "live", "", 0.1),), gauges=numbers))
    for width in (40, 57, 80):
        rows = pane.body(width, 10)
        texts = ["".join(text for text, _ in row).rstrip() for row in rows]
        assert texts[0].startswith(" a-host-with-a-long-name")
        assert all(f"{tier} 50 %" in " ".join(texts) for tier in ("host", "disk", "object"))
        assert all(cell_len(text) <= width for text in texts), texts
