"""Records of a session: `session.json` and the results computed from `samples.jsonl`.

Every record is a frozen struct whose JSON form has the same field names, so the file, the socket and `kvdeck run
--json` share one schema; `encoding` writes and reads it. Measured times are integer nanoseconds (`*_ns`), summarised
times are microseconds (`*_us`). GB is 1e9 bytes.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType, field
from msgspec.structs import force_setattr

from kvdeck.sessions.model.disturbance import Disturbance
from kvdeck.sessions.model.measures import Interval as Interval
from kvdeck.sessions.model.measures import Percentiles as Percentiles
from kvdeck.sessions.model.open_values import SettingValues, SpecValues, check_open
from kvdeck.sessions.model.references import is_limit
from kvdeck.sessions.model.telemetry import TelemetryTotals
from kvdeck.sessions.model.traffic import TrafficResult

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
"""Transfer paths, in display order."""
FILE_PATHS = tuple(path for path in PATHS if "Disk" in path)
"""Paths with a file at one end."""

ResultStatus = Literal["ok", "suspect", "unavailable", "failed", "cancelled"]
"""`suspect`: measured, but the bytes did not go where they should have, or the rate can't be."""
Verdict = Literal["faster", "slower", "no difference", "undecided"]
"""`faster`, `slower`: the whole interval lies on one side of 1. `no difference`: it lies within `SAME_WITHIN` of 1.
`undecided`: neither, or too few rounds."""
SAME_WITHIN = 1.05
"""Maximum ratio that counts as no difference (5 %), equal to the smallest rate change that is reported."""


def is_same(low: float, high: float) -> bool:
    """True if the interval of a ratio lies within `SAME_WITHIN` of 1."""
    return 1 / SAME_WITHIN <= low <= high <= SAME_WITHIN


RunState = Literal["queued", "running", "done", "failed", "cancelled", "crashed", "interrupted"]
SessionKind = Literal["run", "trace", "imported", "telemetry", "traffic"]
"""`run`: measured here; `trace`: transfers counted in other programs; `imported`: read from a file; `telemetry`:
samples recorded by the Monitor; `traffic`: patterns between ranks, measured here."""
FormerKind = Literal["recorded", "watched"]
KIND_V1 = {"trace": "recorded", "telemetry": "watched"}
"""Former words of two kinds. Files of earlier versions hold them; printed JSON holds them as `kind_v1` for one more
version."""
_PRESENT_KIND = {former: kind for kind, former in KIND_V1.items()}


def present_kind(kind: str) -> str:
    """Return the kind for a word of this version or of an earlier one."""
    return _PRESENT_KIND.get(kind, kind)


FINAL_STATES: tuple[RunState, ...] = ("done", "failed", "cancelled", "crashed", "interrupted")


class StepPlan(Struct, frozen=True):
    """One step: one path and one layout at one block size and batch. Steps of one `trial` are interleaved."""

    step: int
    trial: int
    path: str
    layout: str
    """Text of the layout; `SOURCE -> DESTINATION` if they differ."""
    backend: str
    """NIXL backend, or the name of the fallback, such as `staged:GDS`."""
    api: str | None
    """`AIO`, `URING` or `POSIXAIO` with the POSIX backend, else null."""
    direct: bool | None
    """O_DIRECT; null if no file is involved."""
    block_bytes: int
    batch: int
    """Blocks per request."""
    blocks: int
    """Blocks in the working set that the requests cycle over."""
    descriptors_per_block: int


class StepResult(Struct, frozen=True):
    """Result of a step: one entry of `results[]` in `kvdeck run --json`.

    A field is null if not measured; `reason` explains a `status` other than `ok`.
    """

    step: int
    trial: int
    path: str
    layout: str
    backend: str
    api: str | None
    direct: bool | None
    page_cache: str | None
    """`bypassed`, `dropped before each round` or `in use`; null if no file is involved."""
    durable: bool | None
    """True if the time includes writing the bytes to the device; null if no file is written."""
    block_bytes: int
    batch: int
    descriptors_per_block: int
    descriptors_per_request: int
    """Descriptors per request that reached the backend: fewer than `batch × descriptors_per_block` when merged."""
    merged: bool
    blocks: int
    iterations: int
    """Timed requests, excluding warm-up."""
    warmup_iterations: int
    bytes: int
    """Bytes moved by the timed requests."""
    prep_us: Percentiles | None
    """Time to create one request from prepared lists."""
    post_us: Percentiles | None
    """Time from before the post call to its return."""
    transfer_us: Percentiles | None
    """Time from the return of the post call to observed completion."""
    request_us: Percentiles | None
    """Post plus transfer."""
    gb_per_s: Interval | None
    reference_gb_per_s: float | None
    reference: str | None
    """Name of the reference: `memcpy`, `pread`, `pwrite`, `cudaMemcpy`."""
    efficiency: float | None
    """Former name of `reference_ratio`, still written for one more version."""
    verified: bool | None
    """Whether the compared bytes match; null if verification was off."""
    status: ResultStatus
    reason: str | None
    settings: dict[str, Any] = {}
    """Other settings that affect the figures: threads, pipeline_depth, files, huge_pages, error_handling, pinning,
    params…"""
    reference_ratio: float | None = None
    """`gb_per_s.median / reference_gb_per_s`."""
    reference_is_limit: bool | None = None
    """True if the reference is an upper limit for these bytes; the ratio is then the part of it that is reached."""
    disturbance: Disturbance | UnsetType = UNSET
    """Absent if no round was disturbed, or if the kernel doesn't count the time without a core."""

    def __post_init__(self) -> None:
        """Check the settings, and recompute the ratio from the two rates: earlier versions' files may hold another."""
        check_open(self.settings, SettingValues, "settings")
        rate, reference = self.gb_per_s, self.reference_gb_per_s
        ratio = rate.median / reference if rate is not None and reference else None
        limit = None if ratio is None else is_limit(self.reference, self.block_bytes, ratio)
        for name, value in (("reference_ratio", ratio), ("efficiency", ratio), ("reference_is_limit", limit)):
            force_setattr(self, name, value)


class Comparison(Struct, frozen=True):
    """Two interleaved steps of one trial, compared.

    `ratio` is the candidate's time for the same bytes over the baseline's, with its 95 % interval over rounds: below 1
    the candidate is faster.
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
        # Earlier versions wrote "no difference" for every interval that contains 1, however wide.
        if self.verdict == "no difference" and not is_same(self.low, self.high):
            force_setattr(self, "verdict", "undecided")


class TransferCounts(Struct, frozen=True):
    """Transfer counts of a program, for one path and one layout.

    A transfer is one NIXL request or one copy, counted on completion; failures are counted separately.
    """

    path: str
    layout: str
    """Text of the layout, or `Unknown` if not given."""
    transfers: int = 0
    bytes: int = 0
    blocks: int = 0
    descriptors: int = 0
    """0 if not counted."""
    min_bytes: int | None = None
    """Bytes of the smallest transfer; null if there is none."""
    max_bytes: int = 0
    failures: int = 0
    timed_transfers: int = 0
    """Transfers with a time; the next three fields are sums over them."""
    timed_bytes: int = 0
    timed_blocks: int = 0
    busy_s: float = 0.0
    sizes: tuple[tuple[int, int], ...] = ()
    """Histogram of sizes: bytes per transfer and count, ascending; with many sizes, 16 buckets per octave."""
    times: tuple[tuple[float, int], ...] = ()
    """Histogram of times: lower bucket edge in seconds and count, 16 buckets per octave."""
    stated_bytes_per_s: int | None = None
    """Rate stated in the imported file; Dynamo's rate includes idle time."""
    stated_blocks_per_s: int | None = None


class Tuned(Struct, frozen=True):
    """Result of one setting in `--tune`, compared with the best before it."""

    t: int
    path: str
    setting: str
    value: str
    ratio: float
    low: float
    high: float
    chosen: bool
    heats: int | UnsetType = UNSET
    """Fresh openings of both settings; below `stats.LEAST_BLOCKS` the bounds are their extremes, no 95 % interval.
    Absent in files of earlier versions, whose bounds are of rounds of one opening."""


class Session(Struct, frozen=True):
    """`session.json`: what was measured, where, when, and the results."""

    name: str
    state: RunState
    created: float
    """Unix time in seconds."""
    started: float | None = None
    ended: float | None = None
    reason: str | None = None
    kvdeck: str = ""
    nixl: str | None = None
    host: dict[str, Any] = {}
    """Facts that decide comparability: hostname, cpu, cores, memory_bytes, kernel, gpus, filesystem."""
    spec: dict[str, Any] = {}
    """The run's specification with all defaults filled in, as in `run.yaml`."""
    results: tuple[StepResult, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    tuned: tuple[Tuned, ...] = ()
    tags: tuple[str, ...] = ()
    note: str = ""
    schema: int = SCHEMA_VERSION
    kind: SessionKind | FormerKind = "run"
    """A `SessionKind`; the former words are replaced when a file of an earlier version is read."""
    transfer_counts: tuple[TransferCounts, ...] = field(default=(), name="tallies")
    duration_s: float | None = None
    """Duration in seconds that an imported file states."""
    source: str = ""
    """The imported file, or the foreign file that is read in place."""
    telemetry: TelemetryTotals | None = field(default=None, name="watched")
    """Totals of a telemetry session, or of the telemetry inside this one; `session.json` has only the former."""
    traffic_result: TrafficResult | UnsetType = field(default=UNSET, name="traffic")
    """Result of a traffic test, measured here or imported. Unset without one, as in sessions of kvdeck 0.1."""

    @property
    def traffic(self) -> TrafficResult | None:
        return None if isinstance(self.traffic_result, UnsetType) else self.traffic_result

    def __post_init__(self) -> None:
        check_open(self.spec, SpecValues, "spec")
        if self.kind in _PRESENT_KIND:
            force_setattr(self, "kind", _PRESENT_KIND[self.kind])
