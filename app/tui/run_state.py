"""Immutable state of a run, folded from its lines; the same for a live stream, a late attach and a file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from kvdeck.app.cli.progress import event_text
from kvdeck.engine.protocol import EventMessage, SampleMessage
from kvdeck.sessions.model.events import (
    COUNTER_INDEX,
    COUNTERS,
    Compared,
    Logged,
    RunStarted,
    StateChanged,
    StepFinished,
    StepStarted,
    convert_event,
)
from kvdeck.sessions.model.records import FINAL_STATES, Comparison, Percentiles, RunState, StepPlan, StepResult, Tuned
from kvdeck.sessions.model.references import is_limit, reference_of
from kvdeck.sessions.text.run_report import verdict_text

MAX_POINTS = 512
"""Maximum points stored per step; beyond it every second one is dropped, which leaves rates exact."""
MAX_LOG = 500

Level = Literal["info", "warning", "error"]
StepState = Literal["waiting", "running", "ok", "unavailable", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class Point:
    """Cumulative counters of a step at time `t` of the worker's clock, in ns."""

    t: int
    bytes: float
    busy_ns: float


@dataclass(frozen=True, slots=True)
class StepView:
    """Current state of a step."""

    plan: StepPlan
    state: StepState = "waiting"
    values: tuple[float | None, ...] = ()
    """Newest counters, in the order of `COUNTERS`; empty before the first round."""
    points: tuple[Point, ...] = field(default=(), repr=False)
    result: StepResult | None = None
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
        return None if ratio is None else is_limit(reference_of(plan.path), plan.block_bytes, ratio)

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
    """A line of the log; `seconds` since the run's start."""

    seconds: float
    level: Level
    text: str


@dataclass(frozen=True, slots=True)
class RunView:
    """Current state of one run."""

    session: str
    state: RunState = "queued"
    next_seq: int = 0
    """Sequence number of the first line not folded yet: where to subscribe from."""
    first_t: int | None = None
    last_t: int | None = None
    steps: tuple[StepView, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    tuned: tuple[Tuned, ...] = ()
    log: tuple[LogLine, ...] = ()
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
    _index: dict[int, int] = field(default_factory=dict, repr=False, compare=False)

    @property
    def elapsed_s(self) -> float:
        """Seconds between the first and the newest line, by the worker's clock."""
        return 0.0 if self.first_t is None or self.last_t is None else (self.last_t - self.first_t) / 1e9

    def step(self, number: int) -> StepView | None:
        """Return the step with that number, or None."""
        index = self._index.get(number)
        return None if index is None else self.steps[index]

    def trial_of(self, number: int | None) -> tuple[StepView, ...]:
        """Return the steps interleaved with that one, itself included; empty if it is unknown."""
        chosen = None if number is None else self.step(number)
        return () if chosen is None else tuple(s for s in self.steps if s.plan.trial == chosen.plan.trial)


def fold(view: RunView, message: EventMessage | SampleMessage) -> RunView:
    """Return the state after one more line; a line of another run, or one already folded, changes nothing."""
    if message.session != view.session or message.seq < view.next_seq:
        return view
    if isinstance(message, SampleMessage):
        return _sampled(view, message.seq, message.t, message.values, message.missed)
    if message.event.get("kind") == "round":
        return _round(view, message.seq, message.event)
    return _happened(replace(view, next_seq=message.seq + 1), message.event)


def _round(view: RunView, seq: int, line: dict[str, Any]) -> RunView:
    """Fold a round as a sample; a damaged line only advances `next_seq`."""
    t, values = line.get("t"), line.get("values")
    if not (isinstance(t, int) and isinstance(values, list)):
        return replace(view, next_seq=seq + 1)
    return _sampled(view, seq, t, tuple(v if isinstance(v, (int, float)) else None for v in values), 0)


def fold_all(view: RunView, messages: Iterable[EventMessage | SampleMessage]) -> RunView:
    """Return the state after all messages."""
    for message in messages:
        view = fold(view, message)
    return view


def _happened(view: RunView, line: dict[str, Any]) -> RunView:
    event = convert_event(line)
    if event is None:
        return replace(view, unknown=view.unknown + 1)
    view = _at(view, event.t)
    if isinstance(event, RunStarted):
        return _begun(view, event)
    if isinstance(event, StepStarted):
        return _changed(replace(view, current=event.step), event.step, state="running")
    if isinstance(event, StepFinished):
        view = _changed(view, event.result.step, state=event.result.status, result=event.result)
        return _said(view, event.t, event_text(event), "error" if event.result.status == "failed" else "info")
    if isinstance(event, Compared):
        view = replace(view, comparisons=(*view.comparisons, event.comparison))
        view = replace(view, steps=tuple(_compared(step, event.comparison) for step in view.steps))
        return _said(view, event.t, f"{event.comparison.path}: {verdict_text(event.comparison)}")
    if isinstance(event, Tuned):
        return _said(replace(view, tuned=(*view.tuned, event)), event.t, event_text(event))
    if isinstance(event, Logged):
        return _said(view, event.t, event.text, event.level)
    return _moved(view, event) if isinstance(event, StateChanged) else view


def _at(view: RunView, t: int) -> RunView:
    first = t if view.first_t is None else view.first_t
    return replace(view, first_t=first, last_t=t if view.last_t is None else max(t, view.last_t))


def _begun(view: RunView, event: RunStarted) -> RunView:
    steps = tuple(StepView(plan) for plan in event.steps)
    index = {plan.step: place for place, plan in enumerate(event.steps)}
    if view.steps:  # sent again after tuning; the later one applies
        return replace(view, steps=steps, _index=index)
    # Lines before the start (queued, waiting) don't count in the run's time.
    return replace(view, state="running", steps=steps, first_t=event.t, last_t=event.t, _index=index)


def _changed(view: RunView, number: int, **changes: Any) -> RunView:
    place = view._index.get(number)
    if place is None:
        return view
    step = replace(view.steps[place], **changes)
    return replace(view, steps=(*view.steps[:place], step, *view.steps[place + 1 :]))


def _compared(step: StepView, found: Comparison) -> StepView:
    mine = (step.plan.trial, step.plan.layout) == (found.trial, found.candidate)
    return replace(step, compared=found) if mine else step


def _said(view: RunView, t: int, text: str | None, level: Level = "info") -> RunView:
    seconds = 0.0 if view.first_t is None else (t - view.first_t) / 1e9
    return replace(view, log=(*view.log[-MAX_LOG + 1 :], LogLine(seconds, level, text or "")))


def _moved(view: RunView, event: StateChanged) -> RunView:
    fraction = 1.0 if event.state == "done" else view.fraction
    if event.state in FINAL_STATES:
        view = replace(view, steps=tuple(_ended(step) for step in view.steps))
    eta = view.eta_s if event.state == "running" else None
    return replace(
        view,
        state=event.state,
        reason=event.reason,
        signal=event.signal,
        last_words=event.last_words,
        fraction=fraction,
        eta_s=eta,
    )


def _ended(step: StepView) -> StepView:
    """Cancel a step whose run has ended without a result for it."""
    return replace(step, state="cancelled") if step.state in ("waiting", "running") else step


def _sampled(view: RunView, seq: int, t: int, values: tuple[float | None, ...], missed: int) -> RunView:
    if len(values) < len(COUNTERS):  # from an older engine, or damaged
        values = (*values, *[None] * (len(COUNTERS) - len(values)))
    number = values[COUNTER_INDEX["step"]]
    place = None if number is None else view._index.get(int(number))
    if number is None or place is None:
        return replace(_at(view, t), next_seq=seq + 1)
    old = view.steps[place]
    # A sample that arrives after its step's result must not reopen the step.
    state: StepState = "running" if old.result is None else old.state
    step = StepView(old.plan, state, values, _grown(old.points, t, values), old.result)
    fraction = values[COUNTER_INDEX["fraction"]]
    # A single `replace`: this runs for every round.
    return replace(
        view,
        next_seq=seq + 1,
        first_t=t if view.first_t is None else view.first_t,
        last_t=t if view.last_t is None else max(t, view.last_t),
        steps=(*view.steps[:place], step, *view.steps[place + 1 :]),
        fraction=view.fraction if fraction is None else fraction,
        eta_s=values[COUNTER_INDEX["eta_s"]],
        current=int(number),
        missed=view.missed + missed,
    )


def _grown(points: tuple[Point, ...], t: int, values: tuple[float | None, ...]) -> tuple[Point, ...]:
    moved, busy = values[COUNTER_INDEX["bytes"]], values[COUNTER_INDEX["busy_ns"]]
    if moved is None or busy is None:
        return points
    kept = points if len(points) < MAX_POINTS else points[1::2]
    return (*kept, Point(t, moved, busy))
