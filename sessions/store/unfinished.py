"""Results of steps whose worker died before reporting them, computed from the recorded rounds."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

from msgspec.structs import asdict

from kvdeck.sessions import stats
from kvdeck.sessions.model.events import Event, ReferenceRound, Round, RunStarted, StepFinished, StepStarted
from kvdeck.sessions.model.records import StepPlan, StepResult
from kvdeck.sessions.units import many


@dataclass(slots=True)
class _Gathered:
    plan: StepPlan
    begun: bool = False
    rounds: list[Round] = field(default_factory=list)


class Unfinished:
    """Collects a run's rounds until their step's own result arrives."""

    def __init__(self) -> None:
        self._steps: dict[int, _Gathered] = {}
        self._references: dict[int, list[ReferenceRound]] = {}

    def take(self, event: Event) -> None:
        """Process the next event of the run."""
        if isinstance(event, RunStarted):
            self._steps = {plan.step: _Gathered(plan) for plan in event.steps}
            self._references = {}
        elif isinstance(event, ReferenceRound):
            self._references.setdefault(event.trial, []).append(event)
        elif isinstance(event, StepFinished):
            self._steps.pop(event.result.step, None)
        elif isinstance(event, (StepStarted, Round)) and event.step in self._steps:
            step = self._steps[event.step]
            step.begun = True
            if isinstance(event, Round):
                step.rounds.append(event)

    def results(self, reason: str) -> tuple[StepResult, ...]:
        """Return a result for each step without one: `failed` if it had started, else `cancelled`.

        Args:
            reason: Why the run ended.
        """
        return tuple(self._result(step, reason) for step in self._steps.values())

    def _result(self, step: _Gathered, reason: str) -> StepResult:
        plan, rounds = step.plan, step.rounds
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
        )
