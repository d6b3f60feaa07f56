"""What a source is and what one reading of it gives."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from kvdeck.sessions.errors import KvdeckError

Kind = Literal[
    "kvbm",
    "vllm",
    "dynamo",
    "lmcache",
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
"""`partial`: answers, but something it should say is missing. `reset`: a counter went backwards just now."""

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Series:
    """One line of numbers: a metric's name, its labels in order of name, and whether it only grows."""

    name: str
    labels: Labels = ()
    counter: bool = True
    wrap_bits: int = 64
    """A counter that falls from near 2 ** wrap_bits to near 0 has wrapped; any other fall is a reset."""
    _hash: int = field(init=False, repr=False, compare=False, default=0)

    def __post_init__(self) -> None:
        # Each is looked up several times a reading: its labels are hashed once.
        object.__setattr__(self, "_hash", hash((self.name, self.labels)))

    def __hash__(self) -> int:
        return self._hash

    def label(self, name: str) -> str:
        """A label's value, empty where there is none."""
        return next((value for key, value in self.labels if key == name), "")


@dataclass(frozen=True, slots=True)
class Reading:
    """What a source said once. A series that it did not say is not in `values`: missing is not zero."""

    t_ns: int
    """When: the source's own time where it has one, else this process's monotonic clock."""
    values: Mapping[Series, float]
    times: Mapping[Series, int] = field(default_factory=dict)
    """Times of single series that the source gave with them, in nanoseconds."""
    kind: Kind | None = None
    """Set where the answer showed what the source is."""
    missing: str = ""
    """What was left out and why, for the state `partial`."""
    quiet: str = ""
    """Why there is nothing to say although all is well: the source is idle."""
    limits: Mapping[Series, float] = field(default_factory=dict)
    """Physical limits of counters in units a second: a link's width, a NIC's rate."""
    changed: Collection[Series] | None = None
    """Those whose value differs from the reading of `changed_since`, which named the very same series; None where that
    is not known."""
    changed_since: int = 0
    """`t_ns` of that reading."""


class SourceGone(KvdeckError):
    """A source gave no reading: the message says why."""


class Source(Protocol):
    """Something to watch. Reading never writes to what is watched."""

    name: str
    kind: Kind
    least_period_s: float
    """Asking more often than this would cost the watched more than it tells."""

    async def read(self) -> Reading:
        """One reading.

        Raises:
            SourceGone: There is none, and why.
        """
        ...

    async def close(self) -> None:
        """Let go of what reading holds open."""
        ...
