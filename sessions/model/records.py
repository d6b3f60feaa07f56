"""What a measurement is: the results drawn from the lines of `samples.jsonl`, and `session.json`.

Every record is a frozen dataclass whose JSON form has the same field names, so the file, the socket and
`kvdeck run --json` speak one language. Times are integer nanoseconds where they were measured
(`*_ns`) and microseconds where they are summarised (`*_us`). GB is 1e9 bytes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar

import msgspec

from kvdeck.sessions.host.documents import check_record
from kvdeck.sessions.model.references import is_limit
from kvdeck.sessions.model.telemetry import Watched

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
"""`faster`, `slower`: the whole interval lies on one side of 1. `no difference`: it lies within `SAME_WITHIN` of 1.
`undecided`: neither, or too few rounds to say."""
SAME_WITHIN = 1.05
"""What is called no difference may differ by 5 % at most: the part from which on a rate is worth a sentence."""


def is_same(low: float, high: float) -> bool:
    """Whether an interval of a ratio lies so close to 1 that both sides are the same for all purposes."""
    return 1 / SAME_WITHIN <= low <= high <= SAME_WITHIN


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
    """A median with its 95 % interval; the unit is in the field's name."""

    median: float
    low: float
    high: float

    @property
    def known(self) -> bool:
        """Whether there is an interval: a single figure has none, and is no certainty."""
        return self.low < self.high


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
    """The former name of `reference_ratio`, written for one version more."""
    verified: bool | None
    """True or false after the bytes were compared; null where verification was switched off."""
    status: ResultStatus
    reason: str | None
    settings: dict[str, Any] = field(default_factory=dict)
    """What else decides the figure: threads, pipeline_depth, files, huge_pages, error_handling, pinning, params…"""
    reference_ratio: float | None = None
    """`gb_per_s.median / reference_gb_per_s`."""
    reference_is_limit: bool | None = None
    """Whether the reference is what these bytes can't well exceed: then the ratio is the part of it that is reached."""

    def __post_init__(self) -> None:
        """Reckon the ratio from the two rates, whatever an earlier version wrote."""
        rate, reference = self.gb_per_s, self.reference_gb_per_s
        ratio = rate.median / reference if rate is not None and reference else None
        limit = None if ratio is None else is_limit(self.reference, self.block_bytes, ratio)
        for name, value in (("reference_ratio", ratio), ("efficiency", ratio), ("reference_is_limit", limit)):
            object.__setattr__(self, name, value)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two interleaved steps of one trial, set against each other.

    `ratio` is the candidate's time for the same bytes over the baseline's, with its 95 % interval over
    rounds: below 1 the candidate is faster.
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

    def __post_init__(self) -> None:
        # Files of earlier versions call every interval that holds 1 no difference, however wide.
        if self.verdict == "no difference" and not is_same(self.low, self.high):
            object.__setattr__(self, "verdict", "undecided")


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
    watched: Watched | None = None
    """Of a recording of the Monitor's: what it comes to."""


Record = TypeVar("Record")


def to_json(record: Any) -> dict[str, Any]:
    """A record's fields as they are; orjson serialises the records inside."""
    return {f.name: getattr(record, f.name) for f in dataclasses.fields(record)}


def from_json(cls: type[Record], data: Mapping[str, Any]) -> Record:
    """Build a record from its JSON mapping; unknown fields are ignored, so newer files can be read.

    Raises:
        ValueError: A field without a default is missing, or holds a value of another type; names its path.
    """
    try:
        return msgspec.convert(data, cls)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error


def decode_json(cls: type[Record], data: bytes) -> Record:
    """As `from_json`, from JSON text.

    Raises:
        ValueError: It is no JSON, or not that record.
    """
    check_record(data)
    try:
        return msgspec.json.decode(data, type=cls)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(str(error)) from error
