"""Run events (the lines of `samples.jsonl`) and the columns of the worker's counters.

`t` is the writer's monotonic clock in ns, `wall` the Unix time in seconds.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import Struct

from kvdeck.sessions.host.documents import check_record
from kvdeck.sessions.model.records import Comparison, RunState, StepPlan, StepResult, Tuned
from kvdeck.sessions.model.traffic import PatternPlan, ProcessPlace, TrafficMode, VisitPhase, VisitRecord


class RunStarted(Struct, frozen=True, tag="run_started", tag_field="kind"):
    """The worker started; lists all planned steps. Sent again after tuning with the final steps: the later one
    applies."""

    t: int
    wall: float
    steps: tuple[StepPlan, ...]
    host: dict[str, Any] = {}
    """Facts that decide comparability, stored in `session.json`."""
    nixl: str | None = None
    spec: dict[str, Any] = {}
    """The specification with all defaults filled in."""


class StepStarted(Struct, frozen=True, tag="step_started", tag_field="kind"):
    """A step's memory is registered and its first round starts."""

    t: int
    step: int
    reference: str | msgspec.UnsetType | None = msgspec.UNSET
    """Name of the reference that the step will be put beside; null without one, absent in older files."""


class Round(Struct, frozen=True, tag="round", tag_field="kind"):
    """One visit of the interleaved loop to one step. `post_ns` and `transfer_ns` hold one time per request, in ns."""

    t: int
    step: int
    round: int
    post_ns: tuple[int, ...]
    transfer_ns: tuple[int, ...]
    busy_ns: int
    """Wall time of this visit; less than the sum of request times if requests overlap."""
    values: tuple[float | None, ...]
    """The step's counters after this visit, in the order of `COUNTERS`."""
    waits_ns: tuple[int, int] | msgspec.UnsetType = msgspec.UNSET
    """Time in this visit in which the initiators and the targets were runnable without a core; absent if unknown."""


class ReferenceRound(Struct, frozen=True, tag="reference_round", tag_field="kind"):
    """One visit to the trial's reference, which moves the same bytes by plain means."""

    t: int
    trial: int
    round: int
    reference: str
    bytes: int
    busy_ns: int


class StepFinished(Struct, frozen=True, tag="step_finished", tag_field="kind"):
    """A step's final result."""

    t: int
    result: StepResult


class Compared(Struct, frozen=True, tag="compared", tag_field="kind"):
    """A final comparison of two steps."""

    t: int
    comparison: Comparison


class Logged(Struct, frozen=True, tag="log", tag_field="kind"):
    """A log line for the operator."""

    t: int
    level: Literal["info", "warning", "error"]
    text: str


class StateChanged(Struct, frozen=True, tag="state", tag_field="kind"):
    """The run changed state; the last line of a finished run."""

    t: int
    wall: float
    state: RunState
    reason: str | None = None
    signal: str | None = None
    """Name of the signal that ended the worker, if any."""
    last_words: tuple[str, ...] = ()
    """The last stderr lines of a crashed worker."""


class SettingTuned(Tuned, frozen=True, tag="tuned", tag_field="kind"):
    """The result of one setting in `--tune`."""


class TrafficPlanned(Struct, frozen=True, tag="traffic_planned", tag_field="kind"):
    """A traffic test's patterns and processes, before any is started."""

    t: int
    mode: TrafficMode
    patterns: tuple[PatternPlan, ...]
    processes: tuple[ProcessPlace, ...]
    iterations: int
    warmup: int
    isolation: int
    """Visits of each pattern alone."""
    verify: bool
    region_bytes: int
    """Memory of all ranks' regions."""


class ClockCompared(Struct, frozen=True, tag="clock_compared", tag_field="kind"):
    """Another host's clock against the writer's: theirs minus ours, and the largest error of it."""

    t: int
    host: str
    offset_ns: int
    error_ns: int


class TrafficPrepared(Struct, frozen=True, tag="traffic_prepared", tag_field="kind"):
    """Requests of the first `patterns` patterns are made; of all of them, the last time it comes."""

    t: int
    patterns: int
    descriptors: int
    """Of one side, so far."""
    seconds: float
    """Since the preparation began."""


class PatternBegun(Struct, frozen=True, tag="pattern_begun", tag_field="kind"):
    """A visit of a pattern is to start at `at`; one event stands for successive visits alone."""

    t: int
    pattern: int
    phase: VisitPhase
    iteration: int
    at: int


class PatternsMoved(Struct, frozen=True, tag="patterns_moved", tag_field="kind"):
    """Visits that were completed since the last of these events, in order."""

    t: int
    visits: tuple[VisitRecord, ...]


class PatternVerified(Struct, frozen=True, tag="pattern_verified", tag_field="kind"):
    """Every byte of a pattern was compared; `wrong` names the cells that differ, in words."""

    t: int
    pattern: int
    bytes: int
    wrong: tuple[str, ...] = ()


class MessagesReceived(Struct, frozen=True, tag="messages_received", tag_field="kind"):
    """What each rank received in a pattern: destination, source, bytes, first bytes in hex, CRC-32."""

    t: int
    pattern: int
    messages: tuple[tuple[int, int, int, str, str], ...]


class TrafficEnded(Struct, frozen=True, tag="traffic_ended", tag_field="kind"):
    """The result in the form of NIXL's own tool: its JSON file's content."""

    t: int
    upstream: dict[str, Any]


TrafficEvent = (
    TrafficPlanned
    | ClockCompared
    | TrafficPrepared
    | PatternBegun
    | PatternsMoved
    | PatternVerified
    | MessagesReceived
    | TrafficEnded
)
Event = (
    RunStarted
    | StepStarted
    | Round
    | ReferenceRound
    | StepFinished
    | Compared
    | SettingTuned
    | Logged
    | StateChanged
    | TrafficPlanned
    | ClockCompared
    | TrafficPrepared
    | PatternBegun
    | PatternsMoved
    | PatternVerified
    | MessagesReceived
    | TrafficEnded
)


class Counter(Struct, frozen=True):
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

_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


def decode_event(line: bytes) -> Event | None:
    """Return the event of a line; None if its kind is unknown to this version or it is damaged."""
    try:
        check_record(line)
        return _decoder.decode(line)
    except (ValueError, RecursionError):
        return None


def convert_event(line: dict[str, Any]) -> Event | None:
    """Return the event of a line that is decoded already, as `decode_event` does."""
    try:
        event: Event = msgspec.convert(line, Event)
    except (ValueError, RecursionError):
        return None
    return event
