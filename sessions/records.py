"""What a measurement is: the lines of `samples.jsonl`, the results drawn from them, and `session.json`.

Every record is a frozen dataclass whose JSON form has the same field names, so the file, the socket and
`kvdeck run --json` speak one language. Times are integer nanoseconds where they were measured
(`*_ns`) and microseconds where they are summarised (`*_us`). GB is 1e9 bytes.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar

SCHEMA_VERSION = 1

HOST_TO_HOST = "HostToHost"
HOST_TO_DISK = "HostToDisk"
DISK_TO_HOST = "DiskToHost"
HOST_TO_DEVICE = "HostToDevice"
DEVICE_TO_HOST = "DeviceToHost"
DEVICE_TO_DEVICE = "DeviceToDevice"
DEVICE_TO_DISK = "DeviceToDisk"
DISK_TO_DEVICE = "DiskToDevice"

PATHS = (
    HOST_TO_HOST,
    HOST_TO_DISK,
    DISK_TO_HOST,
    HOST_TO_DEVICE,
    DEVICE_TO_HOST,
    DEVICE_TO_DEVICE,
    DEVICE_TO_DISK,
    DISK_TO_DEVICE,
)
"""Transfer paths, in the order in which they are listed everywhere."""

ResultStatus = Literal["ok", "unavailable", "failed", "cancelled"]
Verdict = Literal["faster", "slower", "no difference", "undecided"]
"""`undecided`: too few rounds to say."""
RunState = Literal["queued", "running", "done", "failed", "cancelled", "crashed", "interrupted"]
SessionKind = Literal["run", "recorded", "imported", "watched"]
"""`run`: measured here; `recorded`: counted in other programs; `imported`: read from a file; `watched`: what the
Monitor saw."""
FINAL_STATES: tuple[RunState, ...] = ("done", "failed", "cancelled", "crashed", "interrupted")


@dataclass(frozen=True, slots=True)
class Percentiles:
    """An exact summary of measured times, in microseconds."""

    p50: float
    p90: float
    p95: float
    p99: float
    max: float
    mean: float


@dataclass(frozen=True, slots=True)
class Interval:
    """A median with its 95 % bootstrap interval; the unit is in the field's name."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One step: one path and one layout at one block size and batch. Steps of one `trial` are interleaved."""

    step: int
    trial: int
    path: str
    layout: str
    """Text of the layout; `SOURCE -> DESTINATION` where the two differ."""
    backend: str
    """NIXL backend, or `staged:GDS`-like names where a fallback is used, which is then named here."""
    api: str | None
    """`AIO`, `URING` or `POSIXAIO` with the POSIX backend, else null."""
    direct: bool | None
    """O_DIRECT; null where there is no file."""
    block_bytes: int
    batch: int
    """Blocks in one request."""
    blocks: int
    """Blocks in the working set that the requests walk over."""
    descriptors_per_block: int


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step measured: one entry of `results[]` in `kvdeck run --json`.

    A field is null where it was not measured; `reason` says why when `status` is not `ok`.
    """

    step: int
    trial: int
    path: str
    layout: str
    backend: str
    api: str | None
    direct: bool | None
    page_cache: str | None
    """`bypassed`, `dropped before each round` or `in use`; null where there is no file."""
    durable: bool | None
    """Whether the written bytes were on the device when the time was taken; null where nothing is written to a file."""
    block_bytes: int
    batch: int
    descriptors_per_block: int
    descriptors_per_request: int
    """Descriptors that reached the backend in one request: fewer than `batch × descriptors_per_block` when merged."""
    merged: bool
    blocks: int
    iterations: int
    """Timed requests, warm-up not counted."""
    warmup_iterations: int
    bytes: int
    """Bytes moved by the timed requests."""
    prep_us: Percentiles | None
    """Making one request from prepared lists."""
    post_us: Percentiles | None
    """From before the post call to its return."""
    transfer_us: Percentiles | None
    """From the return of the post call until completion is observed."""
    request_us: Percentiles | None
    """Post and transfer together."""
    gb_per_s: Interval | None
    reference_gb_per_s: float | None
    reference: str | None
    """What the reference is: `memcpy`, `pread`, `pwrite`, `cudaMemcpy`."""
    efficiency: float | None
    """`gb_per_s.median / reference_gb_per_s`; above 1 where the reference keeps fewer operations in flight."""
    verified: bool | None
    """True or false after the bytes were compared; null where verification was switched off."""
    status: ResultStatus
    reason: str | None
    settings: dict[str, Any] = field(default_factory=dict)
    """What else decides the figure: threads, pipeline_depth, files, huge_pages, error_handling, pinning, params…"""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two interleaved steps of one trial, set against each other.

    `ratio` is the candidate's time for the same bytes over the baseline's, with its 95 % bootstrap interval
    over rounds: below 1 the candidate is faster.
    """

    trial: int
    path: str
    baseline: str
    candidate: str
    block_bytes: int
    batch: int
    ratio: float
    low: float
    high: float
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Tally:
    """Transfers counted in a running program, of one path and one layout.

    A transfer is one NIXL request or one copy; it is counted once it has completed, failures apart.
    """

    path: str
    layout: str
    """Text of the layout, or `Unknown` where nobody said."""
    transfers: int = 0
    bytes: int = 0
    blocks: int = 0
    descriptors: int = 0
    """0 where they were not counted."""
    min_bytes: int | None = None
    """Of one transfer; null where there was none."""
    max_bytes: int = 0
    failures: int = 0
    timed_transfers: int = 0
    """Those with a time; the next three are sums over them."""
    timed_bytes: int = 0
    timed_blocks: int = 0
    busy_s: float = 0.0
    sizes: tuple[tuple[int, int], ...] = ()
    """Bytes of a transfer and how many had them, ascending; with many sizes, sixteenths of an octave."""
    times: tuple[tuple[float, int], ...] = ()
    """Histogram of the times: a bucket's lower edge in seconds and its count; sixteen buckets an octave."""
    stated_bytes_per_s: int | None = None
    """What the file it was read from says; Dynamo's counts idle time as well."""
    stated_blocks_per_s: int | None = None


# --- events: the lines of samples.jsonl. `t` is the writer's monotonic clock in ns, `wall` the Unix time in s. ---


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
class Tuned:
    """What one setting gave in `--tune`, against the setting before it."""

    kind: ClassVar[str] = "tuned"
    t: int
    path: str
    setting: str
    value: str
    ratio: float
    low: float
    high: float
    chosen: bool


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


@dataclass(frozen=True, slots=True)
class Session:
    """`session.json`: who measured what, where and when, and what came of it."""

    name: str
    state: RunState
    created: float
    """Unix time in seconds."""
    started: float | None = None
    ended: float | None = None
    reason: str | None = None
    kvdeck: str = ""
    nixl: str | None = None
    host: dict[str, Any] = field(default_factory=dict)
    """Facts that decide comparability: hostname, cpu, cores, memory_bytes, kernel, gpus, filesystem."""
    spec: dict[str, Any] = field(default_factory=dict)
    """The run's specification with every default filled in: what `run.yaml` holds."""
    results: tuple[StepResult, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    tuned: tuple[Tuned, ...] = ()
    tags: tuple[str, ...] = ()
    note: str = ""
    schema: int = SCHEMA_VERSION
    kind: SessionKind = "run"
    tallies: tuple[Tally, ...] = ()
    duration_s: float | None = None
    """What an imported file says it took."""
    source: str = ""
    """The file it was imported from, or that is read where it lies."""


Record = TypeVar("Record")


def event_to_json(event: Event) -> dict[str, Any]:
    """The event as a mapping for `orjson.dumps`, its kind first."""
    return {"kind": event.kind, **to_json(event)}


def event_from_json(line: dict[str, Any]) -> Event | None:
    """The event a line holds, or None for a kind that this version doesn't know."""
    cls = EVENT_TYPES.get(line.get("kind", ""))
    return None if cls is None else from_json(cls, line)


def to_json(record: Any) -> dict[str, Any]:
    """A record's fields as they are; orjson serialises the records inside."""
    return {f.name: getattr(record, f.name) for f in dataclasses.fields(record)}


def from_json(cls: type[Record], data: dict[str, Any]) -> Record:
    """Build a record from its JSON mapping; unknown fields are ignored, so newer files can be read.

    Raises:
        TypeError: A field without a default is missing.
    """
    hints = _hints(cls)
    return cls(**{name: _convert(hints[name], value) for name, value in data.items() if name in hints})


_HINTS: dict[type, dict[str, Any]] = {}


def _hints(cls: type) -> dict[str, Any]:
    if cls not in _HINTS:
        resolved = typing.get_type_hints(cls)
        _HINTS[cls] = {f.name: resolved[f.name] for f in dataclasses.fields(cls)}
    return _HINTS[cls]


def _convert(hint: Any, value: Any) -> Any:
    if value is None:
        return None
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return from_json(hint, value)
    origin = typing.get_origin(hint)
    if origin is tuple:
        (item, *_) = typing.get_args(hint)
        return tuple(value) if item in (int, str) else tuple(_convert(item, part) for part in value)
    if origin in (types.UnionType, typing.Union):
        inner = [arg for arg in typing.get_args(hint) if arg is not type(None)]
        return _convert(inner[0], value) if len(inner) == 1 else value
    return value
