"""What a dead worker measured is still told."""

from __future__ import annotations

from kvdeck.sessions.model.events import ReferenceRound, Round, RunStarted, StateChanged, StepStarted
from kvdeck.sessions.model.records import Session, StepPlan
from kvdeck.sessions.store.store import fold


def plan(step: int) -> StepPlan:
    return StepPlan(step, 0, "HostToHost", f"layout {step}", "UCX", None, None, 1000, 2, 64, 4)


def run(state: str) -> Session:
    steps = tuple(plan(step) for step in range(3))
    return fold(
        Session("x", "running", 1.0),
        [
            RunStarted(1, 2.0, steps[:1]),
            Round(2, 0, 0, (9, 9), (9, 9), 9, ()),  # of a trial before tuning: the later start holds
            RunStarted(3, 3.0, steps),
            StepStarted(4, 0),
            StepStarted(4, 1),
            ReferenceRound(5, 0, 0, "memcpy", 4000, 1000),
            Round(6, 0, 0, (100, 200), (1000, 3000), 2000, ()),
            Round(7, 0, 1, (300, 400), (2000, 4000), 4000, ()),
            StateChanged(8, 4.0, state, "the worker died of SIGSEGV"),  # type: ignore[arg-type]
        ],
    )


def test_rounds_of_a_step_without_result_are_summed_up():
    first, second, third = run("crashed").results
    assert (first.status, first.iterations, first.bytes, first.settings) == ("failed", 4, 8000, {"rounds": 2})
    assert first.reason == "the worker died of SIGSEGV after 4 requests"
    assert first.request_us is not None
    assert (first.request_us.max, first.request_us.mean) == (4.4, 2.75)
    assert first.gb_per_s is not None
    assert first.gb_per_s.median == 1.5  # of 4000 B in 2000 ns and 4000 B in 4000 ns
    assert (first.reference, first.reference_gb_per_s, first.efficiency) == ("memcpy", 4.0, 0.375)
    assert (second.status, second.iterations, second.gb_per_s) == ("failed", 0, None)
    assert (third.status, third.reason) == ("cancelled", "not reached: the worker died of SIGSEGV")


def test_a_worker_that_ended_by_itself_has_told_all():
    assert run("cancelled").results == ()
