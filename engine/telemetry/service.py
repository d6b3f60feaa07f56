"""Rows that say whether requests are served: latencies, requests and tokens, and the hit rate of each tier."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

ServiceState = Literal["online", "sleeping", "down", "unknown"]
"""`down`: it doesn't answer. `unknown`: it answers, and nothing in its answer says that it serves requests."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Distribution of one observed time (or size) in a window, from a histogram of the source.

    The true median lies from `p50_low` to `p50_high`: in its bucket, and not above what `mean` allows. `p50` is
    interpolated in the bucket, and not above `p50_high`; so are the others. Beyond the last finite edge the low end is
    that edge, the value is None, and so is the high end where no mean is known.
    """

    source: str
    member: str
    """Which engine of the source: `engine 1`; empty if it is the only one."""
    what: str
    """What is observed, as `Histogram.what` names it."""
    unit: str
    count: float
    """Observations in the window."""
    over_s: float | None
    """Seconds of the window; None if it is all since the engine started."""
    metric: str
    mean: float | None = None
    p50: float | None = None
    p50_low: float | None = None
    p50_high: float | None = None
    p95: float | None = None
    p95_low: float | None = None
    p95_high: float | None = None
    p99: float | None = None
    p99_low: float | None = None
    p99_high: float | None = None
    stale: bool = False
    """True if the source doesn't answer, so the figures are as old as its last answer."""


@dataclass(frozen=True, slots=True)
class Service:
    """Requests and tokens of one engine or frontend; what it doesn't report is None, not 0."""

    source: str
    member: str
    kind: str
    state: ServiceState
    over_s: float | None
    """Seconds of the window that `finished` and the rates cover; None if it is all since the engine started."""
    running: float | None = None
    waiting: float | None = None
    waiting_by_reason: dict[str, float] = field(default_factory=dict)
    kv_fetch: dict[str, float] = field(default_factory=dict)
    """Requests that wait for KV from elsewhere, by stage."""
    finished: dict[str, float | None] = field(default_factory=dict)
    """Requests that ended in the window, by reason; None of a reason whose growth isn't known."""
    finished_per_s: float | None = None
    failed_per_s: float | None = None
    """Requests that ended with an error of the server."""
    aborted_per_s: float | None = None
    tokens_in_per_s: float | None = None
    tokens_out_per_s: float | None = None
    preempted: float | None = None
    """Preemptions in the window."""
    preempted_per_s: float | None = None
    kv_usage: float | None = None
    """Share of the device's KV cache in use, 0 to 1."""
    stale: bool = False


@dataclass(frozen=True, slots=True)
class TierHits:
    """Hits of one tier in a window with the queries it had, and its evictions."""

    source: str
    member: str
    tier: str
    """`G1` … `G4`, `remote`, or empty if the source doesn't say."""
    what: str
    """Which count it is: `prefix`, `external`, `prompt`, …, followed by the exporter's label of its tier, if any."""
    unit: str
    over_s: float | None
    hits: float | None = None
    asked: float | None = None
    """Queries that the tier had, the denominator of `share`; None if the source gives only a share."""
    share: float | None = None
    evicted: float | None = None
    evicted_per_s: float | None = None
    claim: str = ""
    stale: bool = False
