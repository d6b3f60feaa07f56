"""Run events (the lines of `samples.jsonl`) and the columns of the worker's counters.

`t` is the writer's monotonic clock in ns, `wall` the Unix time in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from kvdeck.sessions.model.records import Comparison, RunState, StepPlan, StepResult, Tuned, from_json, to_json


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The worker started; lists all planned steps. Sent again after tuning with the final steps: the later one
    applies."""

    kind: ClassVar[str] = "run_started"
    t: int
    wall: float
    steps: tuple[StepPlan, ...]
    host: dict[str, Any] = field(default_factory=dict)
    """Facts that decide comparability, stored in `session.json`."""
    nixl: str | None = None
    spec: dict[str, Any] = field(default_factory=dict)
    """The specification with all defaults filled in."""


@dataclass(frozen=True, slots=True)
class StepStarted:
    """A step's memory is registered and its first round starts."""

    kind: ClassVar[str] = "step_started"
    t: int
    step: int


@dataclass(frozen=True, slots=True)
class Round:
    """One visit of the interleaved loop to one step. `post_ns` and `transfer_ns` hold one time per request, in ns."""

    kind: ClassVar[str] = "round"
    t: int
    step: int
    round: int
    post_ns: tuple[int, ...]
    transfer_ns: tuple[int, ...]
    busy_ns: int
    """Wall time of this visit; less than the sum of request times if requests overlap."""
    values: tuple[float | None, ...]
    """The step's counters after this visit, in the order of `COUNTERS`."""


@dataclass(frozen=True, slots=True)
class ReferenceRound:
    """One visit to the trial's reference, which moves the same bytes by plain means."""

    kind: ClassVar[str] = "reference_round"
    t: int
    trial: int
    round: int
    reference: str
    bytes: int
    busy_ns: int


@dataclass(frozen=True, slots=True)
class StepFinished:
    """A step's final result."""

    kind: ClassVar[str] = "step_finished"
    t: int
    result: StepResult


@dataclass(frozen=True, slots=True)
class Compared:
    """A final comparison of two steps."""

    kind: ClassVar[str] = "compared"
    t: int
    comparison: Comparison


@dataclass(frozen=True, slots=True)
class Log:
    """A log line for the operator."""

    kind: ClassVar[str] = "log"
    t: int
    level: Literal["info", "warning", "error"]
    text: str


@dataclass(frozen=True, slots=True)
class StateChanged:
    """The run changed state; the last line of a finished run."""

    kind: ClassVar[str] = "state"
    t: int
    wall: float
    state: RunState
    reason: str | None = None
    signal: str | None = None
    """Name of the signal that ended the worker, if any."""
    last_words: tuple[str, ...] = ()
    """The last stderr lines of a crashed worker."""


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
    """One column of a sample: a `counter` only grows within a step, a `gauge` is the state after the last round."""

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
    Counter("ratio", "", "gauge"),  # to the trial's first layout; null for that layout itself
    Counter("ratio_low", "", "gauge"),
    Counter("ratio_high", "", "gauge"),
    Counter("fraction", "", "gauge"),  # of the whole run, 0 to 1
    Counter("eta_s", "s", "gauge"),
)
"""Columns of `Round.values` and of the socket's samples, in order. Append new ones at the end."""

COUNTER_INDEX = {counter.name: index for index, counter in enumerate(COUNTERS)}


def event_to_json(event: Event) -> dict[str, Any]:
    """Return the event as a mapping for `orjson.dumps`, `kind` first."""
    return {"kind": event.kind, **to_json(event)}


def event_from_json(line: dict[str, Any]) -> Event | None:
    """Return the event of a line; None if its kind is unknown to this version or its data is invalid."""
    kind = line.get("kind", "")
    cls = EVENT_TYPES.get(kind) if isinstance(kind, str) else None
    try:
        return None if cls is None else from_json(cls, line)
    except (ValueError, TypeError, AttributeError, KeyError):
        return None
