"""What a recording comes to: what moved over which flow, how fast, and what gauges stood at meanwhile."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Spread:
    """How a value was spread over the moments in which it was taken.

    Consecutive moments are not independent, so the interval comes of whole blocks of them drawn anew.
    """

    moments: int
    median: float
    low: float | None
    """95 % interval of the median; null with too few moments to say."""
    high: float | None
    p95: float
    least: float
    greatest: float


@dataclass(frozen=True, slots=True)
class FlowTotals:
    """One flow of one source, over the whole recording. Resets of the counters are accounted for."""

    source: str
    source_kind: str
    name: str
    source_tier: str | None
    target_tier: str | None
    metric: str
    bytes_moved: float | None = None
    """Null where the source tells no bytes and nobody gave the size of a block."""
    blocks_moved: float | None = None
    transfers: float | None = None
    failures: float | None = None
    moving_s: float = 0.0
    """Seconds of the recording in which it moved."""
    unit: Literal["B/s", "blocks/s"] = "B/s"
    """Of the next two."""
    mean: float | None = None
    """Over the whole recording, idle time included."""
    rate: Spread | None = None
    """Over the moments in which it moved; null where it never did."""
    bytes_from_blocks: bool = False


@dataclass(frozen=True, slots=True)
class GaugeTotals:
    """A gauge over the whole recording."""

    source: str
    source_kind: str
    name: str
    labels: dict[str, str]
    unit: str
    group: str | None
    value: Spread


@dataclass(frozen=True, slots=True)
class CounterTotals:
    """A counter that is no flow, over the whole recording."""

    source: str
    source_kind: str
    name: str
    labels: dict[str, str]
    unit: str
    group: str | None
    gained: float


@dataclass(frozen=True, slots=True)
class SourceSeen:
    """A source, and in how many moments it was in which state."""

    name: str
    kind: str
    states: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Watched:
    """A recording as a whole."""

    begin: float | None = None
    """Unix time of the first moment, s; null while there is none."""
    end: float | None = None
    moments: int = 0
    bytes: int = 0
    """On the disk."""
    thinned: tuple[tuple[float, float, int], ...] = ()
    """Spans of which one moment in so many is kept: begin, end, and that number."""
    sources: tuple[SourceSeen, ...] = ()
    flows: tuple[FlowTotals, ...] = ()
    gauges: tuple[GaugeTotals, ...] = ()
    counters: tuple[CounterTotals, ...] = ()
    marks: tuple[tuple[float, str, str], ...] = ()
    """The last of them: Unix time, text, kind."""

    @property
    def duration_s(self) -> float:
        return 0.0 if self.begin is None or self.end is None else max(0.0, self.end - self.begin)
