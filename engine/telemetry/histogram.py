"""Histogram of one source with its cumulative buckets."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Histogram:
    """One known histogram of one source and set of labels."""

    source: str
    name: str
    """Name of the metric, without `_bucket`."""
    labels: dict[str, str]
    what: str
    """What is observed: `ttft`, `itl`, …"""
    unit: str
    edges: tuple[float, ...]
    """Finite upper edges of the buckets in `unit`, rising; empty if the exporter prints no buckets."""
    before: tuple[int, ...]
    """Cumulative counts per edge at the first reading, and, last, the count of all observations."""
    gained: tuple[int, ...] | None = None
    """Growth of these counts since sampling began, across restarts; None after a single reading."""
    sum_before: float | None = None
    """Sum of the observed values at the first reading; None if the exporter doesn't print it."""
    sum_gained: float | None = None
    claim: str = ""
    """Provenance of the metric's definition."""
    stale: bool = False
    """True if the source doesn't answer, so the counts are those of its last answer."""
