"""Records of a traffic test: its patterns, its visits, and what they come to.

A visit is one pattern carried out once, or several times in succession. Times are ns of the writer's monotonic clock;
those of ranks on other hosts are converted to it.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from kvdeck.sessions.model.measures import Interval, Percentiles

TRAFFIC = "traffic"
"""Kind of the job and of the session."""
MOST_CELLS = 100_000
"""Largest number of cells that a plan names one by one."""

UNKNOWN_TRAFFIC = "unknown"
"""Operation and memory of a pattern in NIXL's own file, which doesn't name them."""

TrafficMode = Literal["single", "sequential"]
"""`single`: one pattern in successive iterations. `sequential`: each pattern alone, then all in sequence."""
VisitPhase = Literal["alone", "together"]
"""`together`: in sequence with the others; also the successive iterations of a single pattern."""


class PatternPlan(Struct, frozen=True):
    """One pattern of a test."""

    pattern: int
    """Number, from 0."""
    ranks: int
    operation: Literal["WRITE", "READ"]
    """WRITE: senders initiate; READ: receivers do."""
    memory: str
    """`DRAM`, `VRAM`, or SOURCE`->`DESTINATION if they differ."""
    shards: int
    bytes: int
    """Sum of all cells."""
    sent: tuple[int, ...]
    """Bytes that each rank sends: the row sums."""
    received: tuple[int, ...]
    """Bytes that each rank receives: the column sums."""
    cells: tuple[tuple[int, int, int], ...] | None
    """Source, destination and bytes of each cell that isn't 0, by rows; null with more than `MOST_CELLS`."""
    sleep_before_s: float = 0.0
    sleep_after_s: float = 0.0
    metadata: dict[str, Any] = {}
    """What the file says about the pattern, such as `isl`."""

    @property
    def initiators(self) -> tuple[int, ...]:
        """Ranks that post the requests."""
        sizes = self.sent if self.operation == "WRITE" else self.received
        return tuple(rank for rank, size in enumerate(sizes) if size)


class ProcessPlace(Struct, frozen=True):
    """A process of a test, and the ranks that it plays: `first` to `last`."""

    name: str
    host: str
    """Label of the host; empty for the one that measures."""
    first: int
    last: int


class RankPart(Struct, frozen=True, array_like=True):
    """An initiator's part in a visit."""

    rank: int
    bytes: int
    """Of all iterations of the visit."""
    start: int
    posted: int
    done: int
    """Its requests are done, as NIXL tells the initiator."""
    arrived: int
    """Its last notification has arrived at the target; 0 for READ."""

    @property
    def end(self) -> int:
        """A WRITE ends at the arrival: done alone does not mean that the target has the bytes."""
        return self.arrived or self.done


class VisitRecord(Struct, frozen=True):
    """One visit, complete."""

    pattern: int
    phase: VisitPhase
    iteration: int
    """Number within its phase, from 0."""
    count: int
    """Successive iterations in it."""
    parts: tuple[RankPart, ...]

    @property
    def start(self) -> int:
        return min(part.start for part in self.parts)

    @property
    def end(self) -> int:
        return max(part.end for part in self.parts)

    @property
    def done(self) -> int:
        """Time at which the last initiator was done."""
        return max(part.done for part in self.parts)

    @property
    def latency_ns(self) -> float:
        """Time of one iteration, from the first start to the last end."""
        return (self.end - self.start) / self.count

    @property
    def last(self) -> int:
        """Rank that ended last."""
        return max(self.parts, key=lambda part: part.end).rank


class Straggler(Struct, frozen=True):
    """The rank that ended last most often."""

    rank: int
    times: int
    of: int


class PatternResult(Struct, frozen=True):
    """Figures of one pattern; null where nothing moves or nothing was measured."""

    pattern: int
    operation: str
    memory: str
    shards: int
    bytes: int
    """Of one iteration."""
    senders: int
    initiators: int
    alone_ms: Interval | None = None
    """Latency alone: from the first start to the last end, which for WRITE is the arrival at the target."""
    together_ms: Interval | None = None
    """Latency in sequence with the others."""
    together_us: Percentiles | None = None
    """The same latency's percentiles over iterations, in µs."""
    initiator_ms: float | None = None
    """Median time until the last initiator itself was done, together."""
    ratio: Interval | None = None
    """Congestion ratio: latency together over latency alone. Its bounds are equal with fewer than six iterations."""
    gb_per_s: float | None = None
    """Bytes over the median latency together."""
    mean_gb_per_s: float | None = None
    """Mean over initiators of own bytes over own time, together."""
    straggler: Straggler | None = None
    """Null with one initiator."""
    skew_us: float | None = None
    """Median time between the first and the last process's start; null with one process."""
    verified: bool | None = None
    """Whether every byte was right; null if it wasn't verified."""
    wrong: tuple[str, ...] = ()
    """The cells that differ, in words."""


class RankResult(Struct, frozen=True):
    """Figures of one rank as initiator, over all visits together."""

    rank: int
    host: str
    bytes: int
    gb_per_s: float | None
    """Own bytes over own time; null if it initiates nothing."""
    last: int = 0
    """Visits in which it ended last, of those with several initiators."""


class TrafficResult(Struct, frozen=True):
    """What a traffic test comes to, as `session.json` keeps it."""

    mode: TrafficMode
    ranks: int
    processes: int
    hosts: tuple[str, ...] = ()
    """Labels of the other hosts."""
    iterations: int = 0
    patterns: tuple[PatternResult, ...] = ()
    rank_results: tuple[RankResult, ...] = ()
    prepared_s: float | None = None
    descriptors: int | None = None
    region_bytes: int | None = None
    gb_per_s: float | None = None
    """All bytes together over the time from the first start to the last end of each iteration, sleeps included."""
    skew_us: Percentiles | None = None
    """Start skew between processes, over all visits."""
    clock_error_us: float | None = None
    """Largest error of another host's clock against this one's; null on one host."""
    verified: bool | None = None
