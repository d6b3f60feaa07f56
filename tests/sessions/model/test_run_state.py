"""The state of a run is the same however its lines arrive, and whoever folds them."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvdeck.engine.client.run_log import Cursor, entry_of
from kvdeck.engine.protocol import EventMessage
from kvdeck.sessions.model.events import COUNTER_INDEX, Round
from kvdeck.sessions.model.run_state import MAX_POINTS, LogEntry, RunState, advance, advance_all
from tests.support.builders import run as a_run

STREAM = [entry_of(message) for message in a_run.stream()]
WHOLE = a_run.view()


def test_a_finished_run_shows_its_results():
    assert WHOLE.state == "done"
    assert WHOLE.fraction == 1.0
    assert [step.state for step in WHOLE.steps] == ["ok"] * 6
    assert [step.plan.descriptors_per_block for step in WHOLE.steps] == [1, 64] * 3
    assert [c.verdict for c in WHOLE.comparisons] == ["slower"] * 3
    assert WHOLE.steps[0].gb_per_s == pytest.approx(9.0)
    assert WHOLE.eta_s is None


def test_a_running_run_shows_what_came_so_far():
    view = a_run.view(None)
    assert view.state == "running"
    assert [step.state for step in view.steps] == ["ok", "ok", "running", "running", "waiting", "waiting"]
    running = view.steps[3]
    assert running.counter("ratio") == pytest.approx(1.31)
    assert running.micros("post", "p50") == pytest.approx(19.2)
    assert running.micros("transfer", "p90") is None
    assert [step.plan.step for step in view.trial_of(view.current)] == [2, 3]
    assert 0 < view.fraction < 1


@settings(max_examples=40, deadline=None)
@given(st.integers(0, len(STREAM)), st.integers(0, 20))
def test_a_late_attach_with_an_overlap_gives_the_same_picture(cut: int, overlap: int):
    first = advance_all(RunState(a_run.NAME), STREAM[:cut])
    assert advance_all(first, STREAM[max(0, cut - overlap) :]) == WHOLE


def test_lines_of_another_run_are_not_picked():
    cursor = Cursor("another")
    assert [cursor.take(message) for message in a_run.stream()] == [None] * len(STREAM)


def test_rates_come_from_the_counters_own_times():
    step = WHOLE.steps[0]
    for before, after, (t, rate) in zip(step.points, step.points[1:], step.rates()[1:], strict=False):
        assert t == after.t
        assert rate == pytest.approx((after.bytes - before.bytes) / (after.busy_ns - before.busy_ns))


def test_rates_over_longer_stretches_keep_the_mean():
    step = WHOLE.steps[0]
    coarse = step.rates(every_ns=2e9)
    assert 1 < len(coarse) < len(step.rates())
    assert all(b[0] - a[0] >= 2e9 for a, b in pairwise(coarse))


def test_a_long_run_keeps_a_bounded_line_and_exact_rates():
    start, *_ = STREAM
    values = [0.0] * len(COUNTER_INDEX)
    entries = [start]
    for i in range(1, 4 * MAX_POINTS):
        values[COUNTER_INDEX["bytes"]], values[COUNTER_INDEX["busy_ns"]] = 3e9 * i, 1e9 * i
        entries.append(LogEntry(i, Round(i * 1_000_000_000, 0, i, (), (), 0, tuple(values))))
    step = advance_all(RunState(a_run.NAME), entries).steps[0]
    assert len(step.points) <= MAX_POINTS
    assert all(rate == pytest.approx(3.0) for _, rate in step.rates())


def test_a_crash_keeps_what_was_measured_and_the_last_words():
    view = a_run.crashed().run
    assert view is not None
    assert (view.state, view.signal) == ("crashed", "SIGABRT")
    assert view.last_words == ("malloc(): corrupted top size", "Aborted")
    assert view.steps[0].result is not None


def test_lines_of_unknown_kinds_are_counted_and_left_alone():
    message = EventMessage(a_run.NAME, 10_000, {"kind": "from_the_future", "t": 1})
    view = advance(a_run.view(None), entry_of(message))
    assert view.unknown == 1
    assert view.steps == a_run.view(None).steps
