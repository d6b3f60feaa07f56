"""What a set of measured values comes to: percentiles, and a median with its interval."""

from __future__ import annotations

from msgspec import Struct


class Percentiles(Struct, frozen=True):
    """Exact percentiles of measured times, in µs."""

    p50: float
    p90: float
    p95: float
    p99: float
    max: float
    mean: float


class Interval(Struct, frozen=True):
    """A median with its 95 % interval; the field that holds it names the unit."""

    median: float
    low: float
    high: float

    @property
    def known(self) -> bool:
        """True if there is an interval; a single figure has equal bounds."""
        return self.low < self.high
