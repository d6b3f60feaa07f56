"""A source followed over time: resets, wraps, its own times, what vanishes, its states."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvdeck.engine.telemetry.sample import take
from kvdeck.engine.telemetry.source import Reading, Series
from kvdeck.engine.telemetry.tracker import Track

SECOND = 1_000_000_000
OFFLOAD = Series("kvbm_offload_blocks_d2h")
GAUGE = Series("kvbm_host_cache_hit_rate", counter=False)


def track(*values: tuple[float, float], series: Series = OFFLOAD) -> Track:
    """A track that took (second, value) one after the other."""
    followed = Track("a", "kvbm")
    for seconds, value in values:
        t = int(seconds * SECOND)
        followed.took(Reading(t, {series: value}), t)
    return followed


def rate(followed: Track, seconds: float, series: Series = OFFLOAD) -> float | None:
    """The series' rate in a moment at this second."""
    followed.moment(int(seconds * SECOND))
    return followed.rate(followed.points[series])


def test_a_rate_takes_two_readings() -> None:
    assert rate(track((0, 10)), 0) is None
    assert rate(track((0, 10)), 1) is None
    assert rate(track((0, 10), (2, 30)), 2) == 10.0
    assert rate(track((0, 10), (2, 10)), 2) == 0.0


def test_a_reset_is_a_new_baseline_and_no_negative_rate() -> None:
    followed = track((0, 100), (1, 150))
    assert rate(followed, 1) == 50
    followed.took(Reading(2 * SECOND, {OFFLOAD: 20.0}), 2 * SECOND)
    point = followed.points[OFFLOAD]
    assert rate(followed, 2) == 20, "it grew by that much at least, from 0"
    assert (point.resets, point.gained, point.value) == (1, 70, 20)
    status = followed.status(2 * SECOND, 1.0)
    assert (status.state, status.reason) == ("reset", f"{OFFLOAD.name} restarted; its total begins again")
    followed.took(Reading(3 * SECOND, {OFFLOAD: 50.0}), 3 * SECOND)
    assert rate(followed, 3) == 30.0
    assert followed.status(30 * SECOND, 30.0).state != "reset"


@pytest.mark.parametrize("bits", [32, 64])
def test_a_wrap_is_growth(bits: int) -> None:
    series = Series("fabric_sent_bytes", wrap_bits=bits)
    top = float(1 << bits)
    followed = track((0, top - 2**20), (1, 2**20), series=series)
    point = followed.points[series]
    assert rate(followed, 1, series) == 2**21
    assert point.resets == 0


def test_a_gauge_may_fall() -> None:
    followed = track((0, 0.9), (1, 0.1), series=GAUGE)
    assert followed.points[GAUGE].resets == 0
    assert followed.status(SECOND, 1.0).state == "live"


def test_what_vanishes_is_named_and_is_not_zero() -> None:
    followed = track((0, 10), (1, 20))
    renamed = Series("kvbm_offload_blocks_down")
    followed.took(Reading(2 * SECOND, {renamed: 25}), 2 * SECOND)
    status = followed.status(2 * SECOND, 1.0)
    assert (status.state, status.reason) == ("partial", "no longer reports kvbm_offload_blocks_d2h")
    assert take([(followed, 1.0)], 2 * SECOND).flows == ()
    followed.took(Reading(3 * SECOND, {OFFLOAD: 40.0}), 3 * SECOND)
    assert rate(followed, 3) == 30.0, "what it grew by while it was absent is known now"
    followed.took(Reading(4 * SECOND, {OFFLOAD: 44.0}), 4 * SECOND)
    assert rate(followed, 4) == 4.0


def test_states() -> None:
    followed = Track("a", "kvbm")
    assert followed.status(0, 1.0).state == "unreachable"
    followed.took(Reading(0, {OFFLOAD: 1}), 0)
    assert followed.status(SECOND, 1.0).state == "live"
    followed.took(Reading(SECOND, {OFFLOAD: 2}), SECOND)
    followed.took(Reading(7 * SECOND, {OFFLOAD: 2}), 7 * SECOND)
    idle = followed.status(7 * SECOND, 1.0)
    assert (idle.state, idle.reason, idle.moved_s) == ("idle", "no counter changed for 6 s", 6.0)
    assert followed.status(20 * SECOND, 1.0).state == "stale"
    followed.failed("gone", 21 * SECOND)
    status = followed.status(24 * SECOND, 1.0)
    assert (status.state, status.reason) == ("unreachable", "gone (for 3 s)")
    assert rate(followed, 10) == 0.1, "since the first reading, for no moment was taken yet"
    assert rate(followed, 24) is None, "an old rate is no rate"
    followed.took(Reading(25 * SECOND, {OFFLOAD: 3}), 25 * SECOND)
    assert followed.status(25 * SECOND, 1.0).state == "live"


def test_noise_does_not_keep_a_source_awake() -> None:
    followed = Track("a", "vllm")
    noise = Series("process_cpu_seconds_total")
    for second in range(8):
        followed.took(Reading(second * SECOND, {OFFLOAD: 1.0, noise: float(second)}), second * SECOND)
    assert followed.status(7 * SECOND, 1.0).state == "idle"


def test_a_block_size_makes_bytes() -> None:
    (flow,) = take([(track((0, 10), (1, 12)), 1.0)], SECOND, block_bytes=1000).flows
    assert (flow.bytes_total, flow.bytes_per_s, flow.blocks_total, flow.bytes_from_blocks) == (12_000, 2000, 12, True)


def test_buckets_take_no_room_of_other_series(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvdeck.engine.telemetry.tracker.MAX_POINTS", 10)
    monkeypatch.setattr("kvdeck.engine.telemetry.tracker.MAX_BUCKETS", 50)
    buckets = {Series("vllm:e2e_request_latency_seconds_bucket", (("le", str(i)),)): 1.0 for i in range(50)}
    plain = {Series("x_total", (("id", str(i)),)): 1.0 for i in range(10)}
    followed = Track("a", "vllm")
    followed.took(Reading(0, {**buckets, **plain}), 0)
    assert len(followed.points) == 60
    assert followed.status(0, 1.0).state == "live"
    more = {Series("vllm:e2e_request_latency_seconds_bucket", (("le", "+Inf"),)): 1.0}
    followed.took(Reading(SECOND, {**buckets, **plain, **more}), SECOND)
    status = followed.status(SECOND, 1.0)
    assert (len(followed.points), status.state) == (60, "partial")
    assert status.reason == "more than 50 buckets: the rest is ignored"


def test_series_without_end_cost_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvdeck.engine.telemetry.tracker.MAX_POINTS", 100)
    followed = Track("a", "prometheus")
    followed.took(Reading(0, {Series("x_total", (("id", str(i)),)): 1.0 for i in range(500)}), 0)
    assert len(followed.points) == 100
    assert followed.status(0, 1.0).state == "partial"


def test_what_changed_is_enough_and_gives_the_same_as_everything() -> None:
    """Two tracks follow the same values, one told what changed: rates, growth, states and resets are the same."""
    chance = random.Random(3)
    every, told = Track("a", "kvbm"), Track("a", "kvbm")
    names = [Series(f"kvbm_offload_blocks_{way}") for way in ("d2h", "h2d", "d2d", "d2o")]
    values = dict.fromkeys(names, 100.0)
    before_ns = 0
    for tick in range(1, 60):
        t_ns = before_ns + chance.randrange(1, 3 * SECOND)
        changed = [series for series in names if chance.random() < 0.4]
        for series in changed:
            values[series] = 0.0 if chance.random() < 0.1 else values[series] + chance.randrange(1, 50)
        if tick == 20:  # a gap: what changed since is not known
            every.failed("gone", t_ns)
            told.failed("gone", t_ns)
            continue
        whole = Reading(t_ns, dict(values))
        every.took(whole, t_ns)
        told.took(replace(whole, changed=changed, changed_since=before_ns) if tick != 21 else whole, t_ns)
        for series in names:
            a, b = every.points[series], told.points[series]
            assert rate(every, t_ns / SECOND, series) == rate(told, t_ns / SECOND, series)
            assert (a.gained, a.value, a.moved_ns, a.resets) == (b.gained, b.value, b.moved_ns, b.resets)
        assert every.status(t_ns, 1.0) == told.status(t_ns, 1.0)
        before_ns = t_ns


def test_what_changed_since_another_reading_is_not_trusted() -> None:
    followed = track((0, 10), (1, 20))
    followed.took(Reading(3 * SECOND, {OFFLOAD: 40.0}, changed=[], changed_since=2 * SECOND), 3 * SECOND)
    assert followed.points[OFFLOAD].value == 40, "a reading in between was lost: all is looked at"
    followed.took(Reading(4 * SECOND, {OFFLOAD: 40.0}, changed=[], changed_since=3 * SECOND), 4 * SECOND)
    assert rate(followed, 4) == 7.5
    followed.took(Reading(5 * SECOND, {OFFLOAD: 40.0}, changed=[], changed_since=4 * SECOND), 5 * SECOND)
    assert rate(followed, 5) == 0.0
    followed.took(Reading(6 * SECOND, {OFFLOAD: 60.0, GAUGE: 1.0}), 6 * SECOND)
    assert rate(followed, 6) == 20.0


STORE, LOAD = (Series("vllm:kv_offload_store_bytes_total"), Series("vllm:kv_offload_load_bytes_total"))


def read(
    followed: Track, seconds: float, values: dict[Series, float], started: float | None = None, **known: object
) -> None:
    t = int(seconds * SECOND)
    followed.took(Reading(t, dict(values), started=started, **known), t)


def test_a_counter_that_appears_in_a_source_that_was_read_before_began_at_0() -> None:
    followed = Track("a", "vllm")
    read(followed, 0, {STORE: 5.0})
    read(followed, 1, {STORE: 6.0, LOAD: 3e9})
    assert rate(followed, 1, LOAD) == 3e9
    assert rate(followed, 1, STORE) == 1.0
    (load,) = [flow for flow in take([(followed, 1.0)], SECOND).flows if flow.source_tier == "G2"]
    assert (load.bytes_total, load.bytes_gained, load.bytes_per_s) == (3e9, 3e9, 3e9)
    first = Track("a", "vllm")
    read(first, 0, {LOAD: 3e9})
    read(first, 1, {LOAD: 3e9})
    assert rate(first, 1, LOAD) == 0.0, "of a first reading the total is from before"


def test_a_new_member_of_an_aggregator_may_have_counted_before() -> None:
    def of(engine: str) -> Series:
        return Series(LOAD.name, (("engine", engine),))

    followed = Track("a", "vllm")
    read(followed, 0, {of("0"): 5.0})
    read(followed, 1, {of("0"): 5.0, of("1"): 3e9})
    assert rate(followed, 1, of("1")) is None
    now = followed._began
    for number, created, grown in ((2, now + 1, 7e9), (3, now - 100, None)):
        values = {**{of(str(n)): 5.0 for n in range(number)}, of(str(number)): 7e9}
        read(followed, number, values, created=lambda _, at=created: at)
        assert rate(followed, number, of(str(number))) == grown, "its creation time decides"


def test_a_torn_answer_and_dropped_series_prove_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    torn = Track("a", "vllm")
    read(torn, 0, {STORE: 5.0}, missing="the last line is incomplete")
    read(torn, 1, {STORE: 5.0, LOAD: 3e9})
    assert rate(torn, 1, LOAD) is None
    monkeypatch.setattr("kvdeck.engine.telemetry.tracker.MAX_POINTS", 1)
    full = Track("a", "vllm")
    read(full, 0, {STORE: 5.0, LOAD: 1e9})
    monkeypatch.setattr("kvdeck.engine.telemetry.tracker.MAX_POINTS", 10)
    read(full, 1, {STORE: 5.0, LOAD: 3e9})
    assert rate(full, 1, LOAD) is None


@pytest.mark.parametrize("says_when", [True, False])
def test_a_restart_counts_from_0_once_and_nothing_is_missing_after_it(says_when: bool) -> None:
    other = Series("vllm:prompt_tokens_total")
    first, second = (1000.0, 2000.0) if says_when else (None, None)
    followed = Track("a", "vllm")
    read(followed, 0, {STORE: 80.0, LOAD: 40.0, other: 9.0}, first)
    read(followed, 1, {STORE: 90.0, LOAD: 40.0, other: 10.0}, first)
    assert rate(followed, 1, STORE) == 10.0
    read(followed, 2, {STORE: 70.0, other: 1.0}, second)
    status = followed.status(2 * SECOND, 1.0)
    assert status.state == "reset"
    assert status.reason.startswith("restarted")
    assert rate(followed, 2, STORE) == 70.0
    read(followed, 3, {STORE: 70.0, other: 1.0, LOAD: 95.0}, second)
    assert rate(followed, 3, LOAD) == 95.0, "more than before the restart, and all of it is new"
    assert followed.points[LOAD].gained == 95.0
    read(followed, 13, {STORE: 70.0, other: 2.0}, None if says_when else second)
    read(followed, 14, {STORE: 1.0, other: 0.5}, 3000.0 if says_when else None)
    read(followed, 25, {STORE: 1.0, other: 1.0}, 3000.0 if says_when else None)
    assert followed.status(25 * SECOND, 1.0).state == "live", "what the new process hasn't counted yet is not missing"


def test_a_process_that_started_while_its_address_was_sampled_began_at_0() -> None:
    followed = Track("a", "vllm")
    followed.failed("cannot connect", 1)
    followed.moment(1)
    read(followed, 1, {LOAD: 3e9}, followed._began + 1)
    read(followed, 2, {LOAD: 3e9}, followed._began + 1)
    assert rate(followed, 2, LOAD) == pytest.approx(1.5e9)
    old = Track("a", "vllm")
    old.failed("cannot connect", 0)
    read(old, 1, {LOAD: 3e9}, old._began - 100)
    read(old, 2, {LOAD: 3e9}, old._began - 100)
    assert rate(old, 2, LOAD) == 0.0


def of_engine(series: Series, engine: str) -> Series:
    return Series(series.name, (("engine", engine),))


@pytest.mark.parametrize("says_when", [True, False])
def test_one_of_two_engines_behind_an_address_restarts_and_the_other_goes_on(says_when: bool) -> None:
    """The address is an aggregator: its own process, if it says when that began, goes on too."""
    began = 1000.0 if says_when else None
    (store0, load0), (store1, load1) = ([of_engine(one, str(n)) for one in (STORE, LOAD)] for n in range(2))
    followed = Track("a", "vllm")
    read(followed, 0, {store0: 70.0, load0: 50.0, store1: 1e12, load1: 2e12}, began)
    read(followed, 1, {store0: 80.0, load0: 60.0, store1: 1e12, load1: 2e12}, began)
    followed.moment(SECOND)
    read(followed, 2, {store0: 3.0, load0: 4.0, store1: 1e12 + 5, load1: 2e12}, began)
    assert [rate(followed, 2, one) for one in (store0, load0, store1, load1)] == [3.0, 4.0, 5.0, 0.0]
    status = followed.status(2 * SECOND, 1.0)
    assert (status.state, status.reason) == ("reset", "engine 0 restarted; totals begin again")
    read(followed, 3, {store1: 1e12 + 6, load1: 2e12}, began)
    assert "no longer reports" in followed.status(30 * SECOND, 30.0).reason


def test_what_an_engine_that_restarted_has_not_used_yet_is_not_missing_and_begins_at_0() -> None:
    (store0, load0), (store1, load1) = ([of_engine(one, str(n)) for one in (STORE, LOAD)] for n in range(2))
    tokens0 = of_engine(Series("vllm:prompt_tokens_total"), "0")
    followed = Track("a", "vllm")
    read(followed, 0, {store0: 70.0, load0: 50.0, tokens0: 9.0, store1: 5.0, load1: 6.0})
    read(followed, 1, {store0: 3.0, tokens0: 1.0, store1: 5.0, load1: 6.0})
    assert "no longer" not in followed.status(20 * SECOND, 20.0).reason
    followed.moment(SECOND)
    read(followed, 2, {store0: 3.0, tokens0: 1.0, load0: 90.0, store1: 5.0, load1: 6.0})
    assert rate(followed, 2, load0) == 90.0


@pytest.mark.parametrize(("label", "rates"), [("agent_name", 4.0), ("server", None)])
def test_a_new_process_may_have_a_new_name_and_begins_at_0_but_not_what_another_names(
    label: str, rates: float | None
) -> None:
    """As an agent whose name is drawn at its start."""
    old, new = (Series("agent_tx_requests_num_total", ((label, name),)) for name in "ab")
    for started in ((None, None), (1000.0, 2000.0)):
        followed = Track("a", "dynamo")
        read(followed, 0, {STORE: 70.0, LOAD: 50.0, old: 9.0}, started[0])
        followed.moment(0)
        followed.failed("cannot connect", 1)
        read(followed, 1, {STORE: 1.0, LOAD: 2.0, new: 4.0}, started[1])
        assert rate(followed, 1, new) == rates


@pytest.mark.parametrize(
    ("labels", "grown"),
    [
        ({"engine": "0"}, 14.0),
        ({"worker_id": "b"}, 14.0),
        ({"server": "x"}, None),
        ({"server": "x", "engine": "0"}, None),
    ],
)
def test_a_first_use_that_names_its_process_for_the_first_time_began_at_0(
    labels: dict[str, str], grown: float | None
) -> None:
    """Dynamo's mocker prints `engine` with its first request, and a frontend a worker's id with the first to it."""
    other = Series("dynamo_component_requests_total", (("worker_id", "a"),))
    count = Series("vllm:e2e_request_latency_seconds_count", tuple(sorted(labels.items())))
    followed = Track("a", "dynamo")
    read(followed, 0, {other: 5.0})
    followed.moment(0)
    read(followed, 1, {other: 6.0, count: 14.0})
    assert rate(followed, 1, count) == grown


def test_counters_that_are_reset_do_not_let_the_others_begin_again() -> None:
    """As after a reset of a cache's statistics: that two of three fell proves no restart of what goes on."""
    tokens = Series("vllm:prompt_tokens_total")
    followed = Track("a", "vllm")
    read(followed, 0, {STORE: 70.0, LOAD: 50.0, tokens: 1e12})
    followed.moment(0)
    read(followed, 1, {STORE: 1.0, LOAD: 2.0, tokens: 1e12 + 7})
    assert [rate(followed, 1, one) for one in (STORE, LOAD, tokens)] == [1.0, 2.0, 7.0]


def test_two_processes_that_answer_in_turn_are_no_restarts_and_each_counts_on() -> None:
    """A load balancer in front of two engines: each answer is of another process."""
    followed = Track("a", "vllm")
    read(followed, 0, {LOAD: 100e9}, 1000.0)
    read(followed, 1, {LOAD: 101e9}, 1000.0)
    read(followed, 2, {LOAD: 40e9}, 2000.0)
    followed.moment(2 * SECOND)
    point = followed.points[LOAD]
    known = point.gained
    for second, value, started in ((3, 103e9, 1000.0), (4, 43e9, 2000.0), (5, 103e9, 1000.0), (6, 44e9, 2000.0)):
        read(followed, second, {LOAD: value}, started)
    assert point.gained - known == 2e9 + 3e9 + 0.0 + 1e9
    status = followed.status(20 * SECOND, 20.0)
    assert (status.state, status.reason[:44]) == ("partial", "several processes answer here in turn, so to")
    read(followed, 7, {LOAD: 9e9}, 500.0)
    assert point.gained - known == 6e9, "what an older one counted before it was first read is not known to be new"
    read(followed, 700, {LOAD: 10e9}, 500.0)
    assert point.gained - known == 7e9
    assert followed.status(700 * SECOND, 700.0).state != "partial"


@pytest.mark.parametrize(
    ("ahead_s", "started_s_ago"), [(3600.0, 600.0), (-3600.0, 600.0), (3600.0, -1.0), (-3600.0, -1.0)]
)
def test_a_process_whose_clock_is_wrong_began_when_it_did(ahead_s: float, started_s_ago: float) -> None:
    followed = Track("a", "vllm")
    followed.failed("cannot connect", 1)
    followed.moment(1)
    started = followed._began - started_s_ago + ahead_s
    for second in (1, 2):
        read(followed, second, {LOAD: 3e9}, started, ahead_s=ahead_s)
    assert followed.points[LOAD].gained == (3e9 if started_s_ago < 0 else 0.0)
    assert followed.points[LOAD].before == (0.0 if started_s_ago < 0 else 3e9)


@given(st.data())
def test_the_sum_of_rate_times_time_is_the_growth_however_late_the_answers(data: st.DataObject) -> None:
    """Answers come at any time, some fail, the process restarts and series vanish and appear; moments are regular."""
    followed = Track("a", "vllm")
    values, present, started = {STORE: 5.0, LOAD: 7.0}, {STORE: True, LOAD: True}, 1000.0
    answers = sorted(data.draw(st.lists(st.floats(0.01, 29.9), min_size=1, max_size=40)))
    summed = dict.fromkeys(values, 0.0)
    for moment_s in range(31):
        while answers and answers[0] <= moment_s:
            at = int(answers.pop(0) * SECOND)
            what = data.draw(st.sampled_from(["grow"] * 6 + ["fail", "restart", "vanish", "appear"]))
            if what == "fail":
                followed.failed("gone", at)
                continue
            if what == "restart":
                started, values = started + 10, dict.fromkeys(values, 0.0)
            for series in values:
                values[series] += data.draw(st.integers(0, 10**9))
            present[LOAD] = what != "vanish" if what in ("vanish", "appear") else present[LOAD]
            shown = {series: value for series, value in values.items() if present[series]}
            followed.took(Reading(at, shown, started=started), at)
        followed.moment(moment_s * SECOND)
        for series, point in followed.points.items():
            summed[series] += (followed.rate(point) or 0.0) * (followed.over_s or 0.0)
    present[LOAD] = True
    followed.took(Reading(31 * SECOND, values, started=started), 31 * SECOND)
    followed.moment(31 * SECOND)
    for series, point in followed.points.items():
        summed[series] += (followed.rate(point) or 0.0) * (followed.over_s or 0.0)
        assert summed[series] == pytest.approx(point.gained)
