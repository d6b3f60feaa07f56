"""A source followed over time: resets, wraps, its own times, what vanishes, its states."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

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


def test_a_rate_takes_two_readings() -> None:
    assert track((0, 10)).points[OFFLOAD].rate is None
    assert track((0, 10), (2, 30)).points[OFFLOAD].rate == 10.0
    assert track((0, 10), (2, 10)).points[OFFLOAD].rate == 0.0


def test_a_reset_is_a_new_baseline_and_no_negative_rate() -> None:
    followed = track((0, 100), (1, 150), (2, 20))
    point = followed.points[OFFLOAD]
    assert point.rate is None
    assert (point.resets, point.gained, point.value) == (1, 70, 20)
    assert followed.status(2 * SECOND, 1.0).state == "reset"
    followed.took(Reading(3 * SECOND, {OFFLOAD: 50.0}), 3 * SECOND)
    assert point.rate == 30.0
    assert followed.status(30 * SECOND, 30.0).state != "reset"


@pytest.mark.parametrize("bits", [32, 64])
def test_a_wrap_is_growth(bits: int) -> None:
    series = Series("fabric_sent_bytes", wrap_bits=bits)
    top = float(1 << bits)
    point = track((0, top - 2**20), (1, 2**20), series=series).points[series]
    assert point.rate == 2**21
    assert point.resets == 0


def test_a_gauge_may_fall() -> None:
    followed = track((0, 0.9), (1, 0.1), series=GAUGE)
    assert followed.points[GAUGE].resets == 0
    assert followed.status(SECOND, 1.0).state == "live"


def test_the_sources_own_time_makes_the_rate() -> None:
    followed = Track("a", "kvbm")
    followed.took(Reading(0, {OFFLOAD: 0}, {OFFLOAD: 10 * SECOND}), 0)
    followed.took(Reading(SECOND, {OFFLOAD: 50}, {OFFLOAD: 15 * SECOND}), SECOND)
    assert followed.points[OFFLOAD].rate == 10.0
    followed.took(Reading(2 * SECOND, {OFFLOAD: 50}, {OFFLOAD: 15 * SECOND}), 2 * SECOND)
    assert followed.points[OFFLOAD].rate == 10.0, "nothing newer was said"


def test_what_vanishes_is_named_and_is_not_zero() -> None:
    followed = track((0, 10), (1, 20))
    renamed = Series("kvbm_offload_blocks_down")
    followed.took(Reading(2 * SECOND, {renamed: 25}), 2 * SECOND)
    status = followed.status(2 * SECOND, 1.0)
    assert (status.state, status.reason) == ("partial", "no longer says kvbm_offload_blocks_d2h")
    assert take([(followed, 1.0)], 2 * SECOND).flows == ()
    followed.took(Reading(3 * SECOND, {OFFLOAD: 40.0}), 3 * SECOND)
    assert followed.points[OFFLOAD].rate is None, "nobody knows when it grew"
    followed.took(Reading(4 * SECOND, {OFFLOAD: 44.0}), 4 * SECOND)
    assert followed.points[OFFLOAD].rate == 4.0


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
    assert followed.points[OFFLOAD].rate is None, "an old rate is no rate"
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
            assert (a.rate, a.gained, a.value, a.moved_ns, a.resets) == (
                b.rate,
                b.gained,
                b.value,
                b.moved_ns,
                b.resets,
            )
        assert every.status(t_ns, 1.0) == told.status(t_ns, 1.0)
        before_ns = t_ns


def test_what_changed_since_another_reading_is_not_trusted() -> None:
    followed = track((0, 10), (1, 20))
    followed.took(Reading(3 * SECOND, {OFFLOAD: 40.0}, changed=[], changed_since=2 * SECOND), 3 * SECOND)
    assert followed.points[OFFLOAD].value == 40, "a reading in between was lost: all is looked at"
    followed.took(Reading(4 * SECOND, {OFFLOAD: 40.0}, changed=[], changed_since=3 * SECOND), 4 * SECOND)
    assert followed.points[OFFLOAD].rate == 0.0
    followed.took(Reading(6 * SECOND, {OFFLOAD: 60.0, GAUGE: 1.0}), 6 * SECOND)
    assert followed.points[OFFLOAD].rate == 10.0, "from the last reading, not from its last change"
