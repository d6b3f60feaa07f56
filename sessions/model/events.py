"""The lines of `samples.jsonl`: what a worker says while it measures, and the columns of its counters.

`t` is the writer's monotonic clock in nanoseconds, `wall` the Unix time in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from kvdeck.sessions.model.records import Comparison, RunState, StepPlan, StepResult, Tuned, from_json, to_json


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The worker has begun; carries every step it means to take. After tuning it comes again, with the steps as they
    then are: the later one holds."""

    kind: ClassVar[str] = "run_started"
    t: int
    wall: float
    steps: tuple[StepPlan, ...]
    host: dict[str, Any] = field(default_factory=dict)
    """Facts that decide comparability, for `session.json`."""
    nixl: str | None = None
    spec: dict[str, Any] = field(default_factory=dict)
    """The specification with every default filled in."""


@dataclass(frozen=True, slots=True)
class StepStarted:
    """A step's memory is registered and its first round begins."""

    kind: ClassVar[str] = "step_started"
    t: int
    step: int


@dataclass(frozen=True, slots=True)
class Round:
    """One visit of the interleaved loop to one step. The three lists hold one time per request."""

    kind: ClassVar[str] = "round"
    t: int
    step: int
    round: int
    post_ns: tuple[int, ...]
    transfer_ns: tuple[int, ...]
    busy_ns: int
    """Wall time of this visit: with requests in flight beside each other, less than the sum of their times."""
    values: tuple[float | None, ...]
    """The step's counters after this visit, in the order of `COUNTERS`."""


@dataclass(frozen=True, slots=True)
class ReferenceRound:
    """One visit to the trial's reference, which moved the same bytes by plain means."""

    kind: ClassVar[str] = "reference_round"
    t: int
    trial: int
    round: int
    reference: str
    bytes: int
    busy_ns: int


@dataclass(frozen=True, slots=True)
class StepFinished:
    """A step's result, final."""

    kind: ClassVar[str] = "step_finished"
    t: int
    result: StepResult


@dataclass(frozen=True, slots=True)
class Compared:
    """A comparison, final."""

    kind: ClassVar[str] = "compared"
    t: int
    comparison: Comparison


@dataclass(frozen=True, slots=True)
class Log:
    """A line for the operator."""

    kind: ClassVar[str] = "log"
    t: int
    level: Literal["info", "warning", "error"]
    text: str


@dataclass(frozen=True, slots=True)
class StateChanged:
    """The run has moved to another state; the last line of a finished run."""

    kind: ClassVar[str] = "state"
    t: int
    wall: float
    state: RunState
    reason: str | None = None
    signal: str | None = None
    """Name of the signal that ended the worker, where one did."""
    last_words: tuple[str, ...] = ()
    """The last lines a crashed worker wrote to stderr."""


Event = RunStarted | StepStarted | Round | ReferenceRound | StepFinished | Compared | Tuned | Log | StateChanged
EVENT_TYPES: dict[str, type[Event]] = {
    event.kind: event
    for event in (
        RunStarted,
        StepStarted,
        Round,
        ReferenceRound,
        StepFinished,
        Compared,
        Tuned,
        Log,
        StateChanged,
    )
}


@dataclass(frozen=True, slots=True)
class Counter:
    """One column of a sample: counters only grow within a step, gauges are the state after the last round."""

    name: str
    unit: str
    kind: Literal["counter", "gauge"]


COUNTERS = (
    Counter("step", "", "gauge"),
    Counter("round", "", "counter"),
    Counter("iterations", "requests", "counter"),
    Counter("blocks", "blocks", "counter"),
    Counter("bytes", "B", "counter"),
    Counter("descriptors", "descriptors", "counter"),
    Counter("busy_ns", "ns", "counter"),
    Counter("post_p50_ns", "ns", "gauge"),
    Counter("transfer_p50_ns", "ns", "gauge"),
    Counter("request_p50_ns", "ns", "gauge"),
    Counter("request_p90_ns", "ns", "gauge"),
    Counter("request_p95_ns", "ns", "gauge"),
    Counter("request_p99_ns", "ns", "gauge"),
    Counter("request_max_ns", "ns", "gauge"),
    Counter("reference_gb_per_s", "GB/s", "gauge"),
    Counter("ratio", "", "gauge"),  # against the trial's first layout; null for that layout itself
    Counter("ratio_low", "", "gauge"),
    Counter("ratio_high", "", "gauge"),
    Counter("fraction", "", "gauge"),  # of the whole run, 0 to 1
    Counter("eta_s", "s", "gauge"),
)
"""Columns of `Round.values` and of the socket's samples, in order. New ones are added at the end."""

COUNTER_INDEX = {counter.name: index for index, counter in enumerate(COUNTERS)}


def event_to_json(event: Event) -> dict[str, Any]:
    """The event as a mapping for `orjson.dumps`, its kind first."""
    return {"kind": event.kind, **to_json(event)}


def event_from_json(line: dict[str, Any]) -> Event | None:
    """The event a line holds, or None for a kind that this version doesn't know, and for a damaged one."""
    kind = line.get("kind", "")
    cls = EVENT_TYPES.get(kind) if isinstance(kind, str) else None
    try:
        return None if cls is None else from_json(cls, line)
    except (ValueError, TypeError, AttributeError, KeyError):
        return None
