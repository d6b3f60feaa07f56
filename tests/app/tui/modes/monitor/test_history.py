"""The Monitor's history where it is pieced together: past samples, missing ones, and a clock that is set."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvdeck.app.tui.modes.monitor.alerts import Thresholds
from kvdeck.app.tui.modes.monitor.history import Rates, flow_key, pack
from kvdeck.app.tui.modes.monitor.timeline import Timeline
from kvdeck.engine.telemetry.sample import Snapshot, take
from kvdeck.engine.telemetry.source import Reading, Series
from kvdeck.engine.telemetry.tracker import Track

SECOND = 1_000_000_000
BYTES = Series("vllm:kv_offload_load_bytes_total", (("engine", "0"),))
WALL = 1_700_000_000.0


def moments(chance: random.Random, count: int, since_ns: int = 1) -> list[Snapshot]:
    """Return the moments of a sampler whose source answers late, or not at all."""
    track, value, found = Track("s", "vllm"), 0.0, []
    for second in range(1, count + 1):
        value += chance.choice((0.0, 1e6, 1e9))
        at = int((100 + second) * SECOND)
        if second == 1 or chance.random() < 0.7:
            track.took(Reading(at, {BYTES: value}), at)
        now = at + int(chance.uniform(0.1, 0.9) * SECOND)
        moment = take([(track, 1.0)], now, wall=WALL + now / 1e9)
        found.append(replace(moment, at_ns=now, since_ns=since_ns))
    return found


def drawn(rates: Rates) -> float:
    """Return the growth that the rates of the only flow come to."""
    (found,) = rates._rates.values()
    return sum(rate.value * (rate.end - rate.begin) for rate in found)


def gained(moment: Snapshot) -> float:
    return moment.flows[0].bytes_gained or 0.0


@given(st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_rate_times_time_is_the_growth_over_every_joint(seed: int) -> None:
    """Live, away, then the engine's past (some of its seconds), and live again, as often as it happens."""
    chance = random.Random(seed)
    course = moments(chance, 90)
    timeline = Timeline(Thresholds())
    at = 0
    while at < len(course):
        live = course[at : at + chance.randint(1, 12)]
        at += len(live) + chance.choice((0, 0, 5, 30))
        for moment in live:
            timeline.note(moment, ())
        past = [moment for moment in course[:at] if chance.random() < 0.5]
        if past and chance.random() < 0.7:
            for moment in past:
                timeline.note_past(moment, (), pack(moment), whole=moment is past[-1])
    times = timeline.history._times
    assert times == sorted(set(times)), "no moment twice"
    rated = [moment for moment in course if moment.t in times and moment.flows[0].bytes_per_s is not None]
    if rated:
        assert drawn(timeline.rates) == pytest.approx(gained(rated[-1]) - before(rated[0], timeline, course), rel=1e-6)


def before(rated: Snapshot, timeline: Timeline, course: list[Snapshot]) -> float:
    """Return the growth before the time that the rates cover: up to the first moment with a reading that was noted."""
    noted = [one for one in course if one.t in timeline.history._times and one.sources[0].over_s is not None]
    if noted[0] is rated:
        return gained(rated) - (rated.flows[0].bytes_per_s or 0.0) * (rated.sources[0].over_s or 0.0)
    return gained(noted[0])


def test_another_sampler_begins_its_counts_anew_and_no_growth_is_made_of_that() -> None:
    chance = random.Random(3)
    old, new = moments(chance, 20), moments(chance, 40, since_ns=2)[20:]
    timeline = Timeline(Thresholds())
    for moment in old:
        timeline.note(moment, ())
    before = drawn(timeline.rates)
    timeline.note(new[0], ())
    rate, over = new[0].flows[0].bytes_per_s, new[0].sources[0].over_s
    expected = 0.0 if rate is None or over is None else rate * over
    assert drawn(timeline.rates) - before == pytest.approx(expected, rel=0.5, abs=1.0)


def test_a_past_sample_without_its_numbers_is_in_the_history_and_never_on_the_screen() -> None:
    course = moments(random.Random(1), 5)
    timeline = Timeline(Thresholds())
    for moment in course[:4]:
        timeline.note_past(moment, (), pack(moment), whole=False)
        assert timeline.newest is None
    timeline.note_past(course[4], (), pack(course[4]), whole=True)
    assert timeline.newest == course[4]
    assert [timeline.history.at(moment.t) for moment in course] == course


def test_a_clock_that_is_set_back_moves_the_past_with_it() -> None:
    course = moments(random.Random(2), 60)
    straight, moved = Timeline(Thresholds()), Timeline(Thresholds())
    for number, moment in enumerate(course):
        straight.note(moment, ())
        moved.note(moment if number < 30 else replace(moment, t=moment.t - 3600.0), ())
    key = f"{flow_key(course[0].flows[0])} bytes"
    end = course[-1].t
    assert len(moved.history) == len(straight.history), "no sample is refused because the clock is behind the newest"
    assert drawn(moved.rates) == pytest.approx(drawn(straight.rates))
    assert moved.rates.cells(key, end - 3600.0, 24) == pytest.approx(straight.rates.cells(key, end, 24))
    texts = [mark.text for mark in moved.marks.until(float("inf"))]
    assert [text for text in texts if text.startswith("the clock was set back by ")] != []
    moved.step(-40.0)
    assert moved.shown is not None
    assert moved.shown == pytest.approx(end - 3600.0 - 40.0, abs=1.5)
    assert moved.view(()).now == moved.shown


def test_the_age_of_the_newest_sample_is_by_the_monotonic_clock() -> None:
    timeline = Timeline(Thresholds())
    assert timeline.age_s(5 * SECOND) is None
    timeline.note(Snapshot(WALL), ())
    assert timeline.age_s(5 * SECOND) is None, "a sample without a time says nothing of its age"
    timeline.note(Snapshot(WALL + 1, at_ns=2 * SECOND), ())
    assert timeline.age_s(5 * SECOND) == 3.0
