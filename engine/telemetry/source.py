"""Interface of a telemetry source, its series and its readings."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from kvdeck.sessions.errors import KvdeckError

Kind = Literal[
    "kvbm",
    "vllm",
    "dynamo",
    "sglang",
    "trtllm",
    "triton",
    "lmcache",
    "mooncake",
    "router",
    "dcgm",
    "nixl",
    "prometheus",
    "ring",
    "session",
    "nvidia_fs",
    "gpu",
    "fabric",
    "disk",
    "network",
    "process",
]
State = Literal["live", "idle", "stale", "unreachable", "partial", "reset"]
"""`partial`: readable, but expected values are missing. `reset`: a counter decreased recently."""

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Series:
    """One time series: metric name, labels sorted by name, and whether it is a cumulative counter."""

    name: str
    labels: Labels = ()
    counter: bool = True
    wrap_bits: int = 64
    """A counter that falls from near 2 ** wrap_bits to near 0 has wrapped; any other decrease is a reset."""
    _hash: int = field(init=False, repr=False, compare=False, default=0)
    is_bucket: bool = field(init=False, repr=False, compare=False, default=False)
    """Whether it is a bucket of a histogram."""

    def __post_init__(self) -> None:
        # A series is looked up several times per reading; hash its labels only once.
        object.__setattr__(self, "_hash", hash((self.name, self.labels)))
        object.__setattr__(self, "is_bucket", self.name.endswith("_bucket"))

    def __hash__(self) -> int:
        return self._hash

    def label(self, name: str) -> str:
        """Return a label's value, or an empty string if it is missing."""
        return next((value for key, value in self.labels if key == name), "")


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading of a source; a series that it doesn't report is absent from `values`, not 0."""

    t_ns: int
    """Time in ns: the source's own if it has one, otherwise this process's monotonic clock."""
    values: Mapping[Series, float]
    kind: Kind | None = None
    """Kind recognised from the reading; None if unchanged."""
    missing: str = ""
    """What is missing and why; not empty sets the state `partial`."""
    quiet: str = ""
    """Why a healthy source has no values; not empty sets the state `idle`."""
    limits: Mapping[Series, float] = field(default_factory=dict)
    """Physical limits of series in units per second: a link's bandwidth, a NIC's line rate."""
    changed: Collection[Series] | None = None
    """Series whose value differs from the reading at `changed_since`, which had the same set of series; None if
    unknown."""
    changed_since: int = 0
    """`t_ns` of the reading that `changed` refers to."""
    took_s: float = 0.0
    """Seconds that the source took to answer."""
    started: float | None = None
    """Unix time in seconds at which the process that counts was started; None if the source doesn't report it."""
    created: Callable[[Series], float | None] | None = None
    """Returns the Unix time in seconds at which a series began at 0, or None if the source doesn't report it."""
    ahead_s: float = 0.0
    """Seconds by which the clock of `started` and `created` is ahead of this host's."""


class SourceGone(KvdeckError):
    """A source can't be read; the message gives the reason."""


class Source(Protocol):
    """A telemetry source; reading it never modifies the system it reads."""

    name: str
    kind: Kind
    least_period_s: float
    """Minimum time between readings, s; more frequent ones would load the source without new information."""

    async def read(self) -> Reading:
        """Return one reading.

        Raises:
            SourceGone: The source can't be read.
        """
        ...

    async def close(self) -> None:
        """Close files, connections and threads used for reading."""
        ...
