"""State of a run, folded from the lines of its log: the one fold, whether they come from a file or the engine."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from msgspec.structs import astuple, replace

from kvdeck.sessions.model.events import (
    COUNTER_INDEX,
    COUNTERS,
    Compared,
    Event,
    Logged,
    ReferenceRound,
    Round,
    RunStarted,
    SettingTuned,
    StateChanged,
    StepFinished,
    StepStarted,
    TrafficEvent,
)
from kvdeck.sessions.model.records import FINAL_STATES, Comparison, Percentiles, StepPlan, StepResult, Tuned
from kvdeck.sessions.model.records import RunState as StateName
from kvdeck.sessions.model.references import is_limit, reference_of
from kvdeck.sessions.model.traffic_state import TrafficState, take

MAX_POINTS = 512
"""Maximum points stored per step; beyond it every second one is dropped, which leaves rates exact."""
MAX_LOG = 500
CUT_SHORT: tuple[StateName, ...] = ("crashed", "failed", "interrupted")
"""Final states of a run whose worker, or one of its ranks, may have died before it reported every step."""

Level = Literal["info", "warning", "error"]
StepStateName = Literal["waiting", "running", "ok", "suspect", "unavailable", "failed", "cancelled"]
Values = tuple[float | None, ...]
"""Counters of a round, in the order of `COUNTERS`."""


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One line of a run's log."""

    seq: int
    """Its number in `samples.jsonl`, from 0."""
    event: Event | None
    """None if the line is damaged, or of a kind this version doesn't know."""
    missed: int = 0
    """Samples the engine dropped before this one because the client was too slow."""

    @property
    def ends(self) -> bool:
        """True if the run is over with this line."""
        return isinstance(self.event, StateChanged) and self.event.state in FINAL_STATES


@dataclass(frozen=True, slots=True)
class Point:
    """Cumulative counters of a step at time `t` of the worker's clock, in ns."""

    t: int
    bytes: float
    busy_ns: float


class StepState(msgspec.Struct, frozen=True):
    """Current state of a step."""

    plan: StepPlan
    state: StepStateName = "waiting"
    begun: bool = False
    """True once its first round has started."""
    values: Values = ()
    """Newest counters; empty before the first round."""
    points: tuple[Point, ...] = ()
    result: StepResult | None = None
    named_reference: str | None = None
    """Name of the reference, as told when the step began."""
    compared: Comparison | None = None
    """The step against the first of its trial, once both have ended; the same comparison as in the report."""

    def counter(self, name: str) -> float | None:
        """Return the newest value of a counter, or None if the sample has none."""
        index = COUNTER_INDEX[name]
        return self.values[index] if index < len(self.values) else None

    @property
    def gb_per_s(self) -> float | None:
        """The result's median in GB/s; while the step runs, all bytes over all busy time."""
        if self.result is not None and self.result.gb_per_s is not None:
            return self.result.gb_per_s.median
        moved, busy = self.counter("bytes"), self.counter("busy_ns")
        return moved / busy if moved is not None and busy else None

    def micros(self, what: Literal["post", "transfer", "request"], which: str) -> float | None:
        """Return a percentile (`p50`, `p90`, `p95`, `p99`, `max`) in µs, from the result or the newest counters."""
        if self.result is not None:
            times: Percentiles | None = getattr(self.result, f"{what}_us")
            if times is not None:
                return float(getattr(times, which))
        name = f"{what}_{which}_ns"
        value = self.counter(name) if name in COUNTER_INDEX else None
        return None if value is None else value / 1e3

    @property
    def reference(self) -> str:
        """Name of the reference: the result's, or the one told at the start, or that of older files."""
        told = None if self.result is None else self.result.reference
        return told or self.named_reference or reference_of(self.plan.path)

    @property
    def reference_gb_per_s(self) -> float | None:
        return self.counter("reference_gb_per_s") if self.result is None else self.result.reference_gb_per_s

    @property
    def reference_ratio(self) -> float | None:
        """GB/s over the reference's GB/s; None if either is unknown."""
        if self.result is not None:
            return self.result.reference_ratio
        rate, reference = self.gb_per_s, self.reference_gb_per_s
        return rate / reference if rate is not None and reference else None

    @property
    def reference_is_limit(self) -> bool | None:
        """True if the ratio is the fraction of a limit that is reached; None without a ratio."""
        ratio, plan = self.reference_ratio, self.plan
        return None if ratio is None else is_limit(self.reference, plan.block_bytes, ratio)

    def rates(self, every_ns: float = 0.0) -> tuple[tuple[int, float], ...]:
        """Return (worker clock in ns, GB/s) by the counters' busy time, over intervals of at least `every_ns`."""
        found, last = [], Point(0, 0.0, 0.0)
        for point in self.points:
            if point.busy_ns > last.busy_ns and point.t - last.t >= every_ns:
                found.append((point.t, (point.bytes - last.bytes) / (point.busy_ns - last.busy_ns)))
                last = point
        return tuple(found)


@dataclass(frozen=True, slots=True)
class LogLine:
    """An event that the operator reads; `seconds` since the run's start."""

    seconds: float
    event: StepFinished | Compared | SettingTuned | Logged

    @property
    def level(self) -> Level:
        if isinstance(self.event, Logged):
            return self.event.level
        return (
            "error"
            if isinstance(self.event, StepFinished) and self.event.result.status in ("failed", "suspect")
            else "info"
        )


class RunState(msgspec.Struct, frozen=True):
    """Current state of one run."""

    session: str
    state: StateName = "queued"
    next_seq: int = 0
    """Sequence number of the first line not folded yet: where to follow from."""
    first_t: int | None = None
    first_wall: float | None = None
    """Unix time of `first_t` in seconds; None before the run has started."""
    last_t: int | None = None
    measured_t: int | None = None
    """Time of the newest round or reference round, ns of the worker's clock."""
    started: float | None = None
    """Unix time in seconds."""
    ended: float | None = None
    host: dict[str, Any] = msgspec.field(default_factory=dict)
    nixl: str | None = None
    spec: dict[str, Any] = msgspec.field(default_factory=dict)
    steps: tuple[StepState, ...] = ()
    results: tuple[StepResult, ...] = ()
    """In the order in which the steps finished."""
    comparisons: tuple[Comparison, ...] = ()
    tuned: tuple[Tuned, ...] = ()
    log: tuple[LogLine, ...] = ()
    newest: Values = ()
    """Newest counters of any step; empty before the first round."""
    fraction: float = 0.0
    eta_s: float | None = None
    current: int | None = None
    """Number of the step visited last."""
    reason: str | None = None
    signal: str | None = None
    last_words: tuple[str, ...] = ()
    missed: int = 0
    """Samples the engine dropped because this client was too slow."""
    unknown: int = 0
    """Lines of kinds this version doesn't know."""
    traffic: TrafficState | None = None
    """Of a traffic test."""
    _index: dict[int, int] = msgspec.field(default_factory=dict)

    @property
    def over(self) -> bool:
        return self.state in FINAL_STATES

    @property
    def paths(self) -> tuple[str, ...]:
        """Distinct paths of the planned steps, in order."""
        return tuple(dict.fromkeys(step.plan.path for step in self.steps))

    @property
    def elapsed_s(self) -> float:
        """Seconds between the first and the newest line, by the worker's clock."""
        return 0.0 if self.first_t is None or self.last_t is None else (self.last_t - self.first_t) / 1e9

    def unix_time(self, t: int) -> float | None:
        """Return the Unix time in seconds of a time of the worker's clock; None before the run has started.

        The first `run_started` line holds both clocks: telemetry of the same time is found by it.
        """
        return None if self.first_wall is None or self.first_t is None else self.first_wall + (t - self.first_t) / 1e9

    def step(self, number: int) -> StepState | None:
        """Return the step with that number, or None."""
        index = self._index.get(number)
        return None if index is None else self.steps[index]

    def trial_of(self, number: int | None) -> tuple[StepState, ...]:
        """Return the steps interleaved with that one, itself included; empty if it is unknown."""
        chosen = None if number is None else self.step(number)
        return () if chosen is None else tuple(s for s in self.steps if s.plan.trial == chosen.plan.trial)


def apply(state: RunState, event: Event) -> RunState:
    """Return the state after one more event."""
    if isinstance(event, Round):
        return _sampled(state, event, state.next_seq, 0)
    state = _at(state, event.t)
    if isinstance(event, TrafficEvent):
        traffic = take(state.traffic, event)
        return replace(state, traffic=traffic, fraction=traffic.fraction)
    if isinstance(event, RunStarted):
        return _begun(state, event)
    if isinstance(event, StepStarted):
        named = event.reference if isinstance(event.reference, str) else None
        state = replace(state, current=event.step)
        return _changed(state, event.step, state="running", begun=True, named_reference=named)
    if isinstance(event, ReferenceRound):
        return replace(state, measured_t=event.t)
    if isinstance(event, StateChanged):
        return _moved(state, event)
    if isinstance(event, StepFinished):
        state = replace(state, results=(*state.results, event.result))
        state = _changed(state, event.result.step, state=event.result.status, result=event.result)
    elif isinstance(event, Compared):
        steps = tuple(_compared(step, event.comparison) for step in state.steps)
        state = replace(state, comparisons=(*state.comparisons, event.comparison), steps=steps)
    elif isinstance(event, SettingTuned):
        state = replace(state, tuned=(*state.tuned, Tuned(*astuple(event))))
    seconds = 0.0 if state.first_t is None else (event.t - state.first_t) / 1e9
    return replace(state, log=(*state.log[-MAX_LOG + 1 :], LogLine(seconds, event)))


def advance(state: RunState, entry: LogEntry) -> RunState:
    """Return the state after one more line of the log; a line already folded changes nothing."""
    if entry.seq < state.next_seq:
        return state
    if isinstance(entry.event, Round):
        return _sampled(state, entry.event, entry.seq + 1, entry.missed)
    if entry.event is None:
        return replace(state, next_seq=entry.seq + 1, unknown=state.unknown + 1)
    return apply(replace(state, next_seq=entry.seq + 1), entry.event)


def advance_all(state: RunState, entries: Iterable[LogEntry]) -> RunState:
    """Return the state after all these lines."""
    for entry in entries:
        state = advance(state, entry)
    return state


def _at(state: RunState, t: int) -> RunState:
    first = t if state.first_t is None else state.first_t
    return replace(state, first_t=first, last_t=t if state.last_t is None else max(t, state.last_t))


def _begun(state: RunState, event: RunStarted) -> RunState:
    again = bool(state.steps)  # sent again after tuning; the later one applies
    return replace(
        state,
        state="running",
        # Lines before the start (queued, waiting) don't count in the run's time.
        first_t=state.first_t if again else event.t,
        first_wall=state.first_wall if again else event.wall,
        last_t=state.last_t if again else event.t,
        started=state.started or event.wall,
        host=event.host or state.host,
        nixl=event.nixl or state.nixl,
        spec=event.spec or state.spec,
        steps=tuple(StepState(plan) for plan in event.steps),
        _index={plan.step: place for place, plan in enumerate(event.steps)},
    )


def _changed(run: RunState, number: int, **changes: Any) -> RunState:
    place = run._index.get(number)
    if place is None:
        return run
    step = replace(run.steps[place], **changes)
    return replace(run, steps=(*run.steps[:place], step, *run.steps[place + 1 :]))


def _compared(step: StepState, found: Comparison) -> StepState:
    mine = (step.plan.trial, step.plan.layout) == (found.trial, found.candidate)
    return replace(step, compared=found) if mine else step


def _moved(state: RunState, event: StateChanged) -> RunState:
    final = event.state in FINAL_STATES
    return replace(
        state,
        state=event.state,
        reason=event.reason,
        signal=event.signal,
        last_words=event.last_words,
        steps=tuple(_ended(step, event.state) for step in state.steps) if final else state.steps,
        ended=event.wall if final else None,
        fraction=1.0 if event.state == "done" else state.fraction,
        eta_s=state.eta_s if event.state == "running" else None,
    )


def _ended(step: StepState, state: StateName) -> StepState:
    """Return the step after its run has ended: without a result it failed or, if not begun, was cancelled."""
    if step.state not in ("waiting", "running"):
        return step
    return replace(step, state="failed" if step.begun and state in CUT_SHORT else "cancelled")


def _sampled(state: RunState, event: Round, next_seq: int, missed: int) -> RunState:
    values = event.values
    if len(values) < len(COUNTERS):  # from an older engine, or damaged
        values = (*values, *[None] * (len(COUNTERS) - len(values)))
    steps, place = state.steps, state._index.get(event.step)
    if place is not None:
        old = steps[place]
        step = StepState(
            old.plan,
            # A sample that arrives after its step's result must not reopen the step.
            "running" if old.result is None else old.state,
            True,
            values,
            _grown(old.points, event.t, values),
            old.result,
            old.named_reference,
            old.compared,
        )
        steps = (*steps[:place], step, *steps[place + 1 :])
    fraction = values[COUNTER_INDEX["fraction"]]
    # A single `replace`: this runs for every round.
    return replace(
        state,
        next_seq=next_seq,
        first_t=event.t if state.first_t is None else state.first_t,
        last_t=event.t if state.last_t is None else max(event.t, state.last_t),
        measured_t=event.t,
        steps=steps,
        newest=values,
        fraction=state.fraction if fraction is None else fraction,
        eta_s=values[COUNTER_INDEX["eta_s"]],
        current=state.current if place is None else event.step,
        missed=state.missed + missed,
    )


def _grown(points: tuple[Point, ...], t: int, values: Values) -> tuple[Point, ...]:
    moved, busy = values[COUNTER_INDEX["bytes"]], values[COUNTER_INDEX["busy_ns"]]
    if moved is None or busy is None:
        return points
    kept = points if len(points) < MAX_POINTS else points[1::2]
    return (*kept, Point(t, moved, busy))
