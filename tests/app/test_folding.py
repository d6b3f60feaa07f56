"""The picture of a run is the same however its lines arrive."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from kvdeck.app.tui.run_state import MAX_POINTS, RunView, fold, fold_all
from kvdeck.engine.protocol import EventMessage, SampleMessage
from kvdeck.sessions.model.events import COUNTER_INDEX

from . import a_run

STREAM = list(a_run.stream())
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
    first = fold_all(RunView(a_run.NAME), STREAM[:cut])
    assert fold_all(first, STREAM[max(0, cut - overlap) :]) == WHOLE


def test_lines_of_another_run_change_nothing():
    view = a_run.view(None)
    for message in a_run.stream():
        assert fold(view, replace(message, session="another")) is view


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
    messages: list[EventMessage | SampleMessage] = [start]
    for i in range(1, 4 * MAX_POINTS):
        values[COUNTER_INDEX["bytes"]], values[COUNTER_INDEX["busy_ns"]] = 3e9 * i, 1e9 * i
        messages.append(SampleMessage(a_run.NAME, i, i * 1_000_000_000, tuple(values)))
    step = fold_all(RunView(a_run.NAME), messages).steps[0]
    assert len(step.points) <= MAX_POINTS
    assert all(rate == pytest.approx(3.0) for _, rate in step.rates())


def test_a_round_in_the_file_is_a_sample_on_the_socket():
    samples = [message for message in STREAM if isinstance(message, SampleMessage)]
    for message in samples[:3]:
        line = {"kind": "round", "t": message.t, "step": 0, "round": 1, "values": list(message.values)}
        before = fold(RunView(a_run.NAME), STREAM[0])
        assert fold(before, EventMessage(a_run.NAME, message.seq, line)) == fold(before, message)


def test_a_crash_keeps_what_was_measured_and_the_last_words():
    view = a_run.crashed().run
    assert view is not None
    assert (view.state, view.signal) == ("crashed", "SIGABRT")
    assert view.last_words == ("malloc(): corrupted top size", "Aborted")
    assert view.steps[0].result is not None


def test_lines_of_unknown_kinds_are_counted_and_left_alone():
    view = fold(a_run.view(None), EventMessage(a_run.NAME, 10_000, {"kind": "from_the_future", "t": 1}))
    assert view.unknown == 1
    assert view.steps == a_run.view(None).steps
