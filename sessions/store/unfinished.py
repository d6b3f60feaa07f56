"""Results of steps whose worker died before reporting them, computed from the recorded rounds."""

from __future__ import annotations

import statistics

from msgspec.structs import asdict

from kvdeck.sessions import stats
from kvdeck.sessions.model.disturbance import disturbance_of
from kvdeck.sessions.model.events import Event, ReferenceRound, Round, RunStarted, StepFinished
from kvdeck.sessions.model.records import StepResult
from kvdeck.sessions.model.run_state import RunState, StepState
from kvdeck.sessions.units import many


class Rounds:
    """The rounds of a run's steps that have no result yet; the state alone has only their newest counters."""

    def __init__(self) -> None:
        self._rounds: dict[int, list[Round]] = {}
        self._references: dict[int, list[ReferenceRound]] = {}

    def take(self, event: Event) -> None:
        """Process the next event of the run."""
        if isinstance(event, Round):
            self._rounds.setdefault(event.step, []).append(event)
        elif isinstance(event, ReferenceRound):
            self._references.setdefault(event.trial, []).append(event)
        elif isinstance(event, StepFinished):
            self._rounds.pop(event.result.step, None)
        elif isinstance(event, RunStarted):
            self._rounds, self._references = {}, {}

    def results(self, state: RunState) -> tuple[StepResult, ...]:
        """Return a result for each step of an ended run without one: `failed` if it had started, else `cancelled`."""
        reason = state.reason or state.state
        return tuple(self._result(step, reason) for step in state.steps if step.result is None)

    def _result(self, step: StepState, reason: str) -> StepResult:
        plan, rounds = step.plan, self._rounds.get(step.plan.step, [])
        post = [time for each in rounds for time in each.post_ns]
        transfer = [time for each in rounds for time in each.transfer_ns]
        size = plan.block_bytes * plan.batch
        rate = stats.median_interval([len(each.post_ns) * size / each.busy_ns for each in rounds if each.busy_ns])
        references = [each for each in self._references.get(plan.trial, ()) if each.busy_ns]
        reference = statistics.median([each.bytes / each.busy_ns for each in references]) if references else None
        return StepResult(
            **asdict(plan),
            page_cache=None,
            durable=None,
            descriptors_per_request=plan.descriptors_per_block * plan.batch,
            merged=False,
            iterations=len(post),
            warmup_iterations=0,
            bytes=len(post) * size,
            prep_us=None,
            post_us=stats.summarise(post),
            transfer_us=stats.summarise(transfer),
            request_us=stats.summarise([a + b for a, b in zip(post, transfer, strict=False)]),
            gb_per_s=rate,
            reference_gb_per_s=reference,
            reference=references[0].reference if references else None,
            efficiency=rate.median / reference if rate and reference else None,
            verified=None,
            status="failed" if step.begun else "cancelled",
            reason=f"{reason} after {many(len(post), 'request')}" if step.begun else f"not reached: {reason}",
            settings={"rounds": len(rounds)},
            disturbance=disturbance_of((each.waits_ns, each.busy_ns) for each in rounds),
        )
