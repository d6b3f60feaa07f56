"""When a helper process is started again, by events alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kvdeck.engine.children.restarts import FIRST_PAUSE_S, HEALTHY_S, MOST_FAILURES, Restarts


def fail(helper: Restarts, now: float = 0.0, ran_s: float = 0.0) -> float | None:
    helper.started(now)
    assert helper.state == "running"
    pause = helper.ended(now + ran_s, "died of SIGSEGV")
    if pause is not None:
        assert helper.state == "backoff"
        assert helper.due()
    return pause


def test_pauses_grow_and_the_fifth_failure_is_the_last():
    helper = Restarts()
    pauses = [fail(helper) for _ in range(MOST_FAILURES)]
    assert pauses == [FIRST_PAUSE_S * factor for factor in (1, 2, 4, 8)] + [None]
    assert (helper.state, helper.failures, helper.reason) == ("failed", MOST_FAILURES, "died of SIGSEGV")
    assert not helper.due()


def test_one_that_cannot_be_started_fails_too():
    helper = Restarts()
    assert helper.ended(0.0, "it can't be started") == FIRST_PAUSE_S
    assert helper.failures == 1


def test_one_that_ran_long_begins_anew():
    helper = Restarts()
    for _ in range(20):
        assert fail(helper, ran_s=HEALTHY_S) == FIRST_PAUSE_S


def test_a_failed_one_can_be_asked_for_again():
    helper = Restarts()
    assert not helper.again()
    for _ in range(MOST_FAILURES):
        fail(helper)
    assert helper.again()
    assert helper.state == "starting"
    assert fail(helper) == FIRST_PAUSE_S


@given(st.lists(st.sampled_from(["started", "ended", "due", "again", "stop"]), max_size=40))
def test_any_order_of_events_keeps_the_limit(events: list[str]):
    helper, stopped = Restarts(), False
    for event in events:
        before = helper.state
        if event == "started":
            helper.started(0.0)
        elif event == "ended":
            pause = helper.ended(1.0, "it ended")
            assert (pause is not None) == (before in ("starting", "running") and helper.state == "backoff")
        elif event == "due":
            assert helper.due() == (helper.state == "starting")
        elif event == "again":
            assert helper.again() == (before == "failed")
        else:
            helper.stop()
            stopped = True
        assert helper.failures <= MOST_FAILURES
        assert (helper.state == "stopped") == stopped
