"""Totals of a telemetry session: bytes and rates per flow, gauge values and counter growth."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Struct, UnsetType


class Spread(Struct, frozen=True):
    """Distribution of a value over its samples.

    Consecutive samples are not independent, so the interval comes from a block bootstrap.
    """

    moments: int
    median: float
    low: float | None
    """95 % interval of the median; null with too few samples."""
    high: float | None
    p95: float
    least: float
    greatest: float


class FlowTotals(Struct, frozen=True):
    """Totals of one flow of one source over the whole session, corrected for counter resets."""

    source: str
    source_kind: str
    name: str
    source_tier: str | None
    target_tier: str | None
    metric: str
    bytes_moved: float | None = None
    """Null if the source reports no bytes and no block size was given."""
    blocks_moved: float | None = None
    transfers: float | None = None
    failures: float | None = None
    moving_s: float = 0.0
    """Seconds of the session in which the flow moved data."""
    unit: Literal["B/s", "blocks/s"] = "B/s"
    """Unit of `mean` and `rate`."""
    mean: float | None = None
    """Mean over the whole session, idle time included."""
    rate: Spread | None = None
    """Rates of the samples in which the flow moved data; null if it never did."""
    bytes_from_blocks: bool = False


class GaugeTotals(Struct, frozen=True):
    """A gauge's distribution over the whole session."""

    source: str
    source_kind: str
    name: str
    labels: dict[str, str]
    unit: str
    group: str | None
    value: Spread


class CounterTotals(Struct, frozen=True):
    """Growth of a counter that is not a flow, over the whole session."""

    source: str
    source_kind: str
    name: str
    labels: dict[str, str]
    unit: str
    group: str | None
    gained: float


class HistogramTotals(Struct, frozen=True):
    """What a histogram of one source observed over the whole session."""

    source: str
    source_kind: str
    name: str
    labels: dict[str, str]
    what: str
    """What is observed: `ttft`, …"""
    unit: str
    edges: tuple[float, ...]
    """Finite upper edges of the buckets in `unit`, rising."""
    counts: tuple[int, ...]
    """Cumulative counts per edge, and, last, the count of all observations."""
    total: float | None = None
    """Sum of the observed values."""


class SourceSeen(Struct, frozen=True):
    """A source, and the number of samples in each of its states."""

    name: str
    kind: str
    states: dict[str, int] = {}


class TelemetryTotals(Struct, frozen=True):
    """Totals of a whole telemetry session."""

    begin: float | None = None
    """Unix time of the first sample, in seconds; null if there is none."""
    end: float | None = None
    moments: int = 0
    bytes: int = 0
    """Size on disk."""
    thinned: tuple[tuple[float, float, int], ...] = ()
    """Thinned spans: begin, end (Unix seconds) and N, where one in N samples remains."""
    sources: tuple[SourceSeen, ...] = ()
    flows: tuple[FlowTotals, ...] = ()
    gauges: tuple[GaugeTotals, ...] = ()
    counters: tuple[CounterTotals, ...] = ()
    marks: tuple[tuple[float, str, str], ...] = ()
    """The latest annotations: Unix time in seconds, text, kind."""
    failure: str | UnsetType = UNSET
    """Why a recording inside a run or a trace did not end well; in no file."""

    histograms: tuple[HistogramTotals, ...] | UnsetType = UNSET
    """Unset without any, as in sessions of kvdeck 0.1."""

    @property
    def observed(self) -> tuple[HistogramTotals, ...]:
        return () if isinstance(self.histograms, UnsetType) else self.histograms

    @property
    def duration_s(self) -> float:
        return 0.0 if self.begin is None or self.end is None else max(0.0, self.end - self.begin)
