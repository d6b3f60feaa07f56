"""Quantiles of observations that are known only by the cumulative counts of a histogram's buckets.

A bucket says how many observations were at most its upper edge, and nothing of where in the bucket they lie. So a
quantile is exact only to the bucket in which it falls: the true one is between that bucket's edges, and the value
within is linear interpolation, as Prometheus' `histogram_quantile` computes it. Where the mean of the observations is
known, it bounds the quantile too: of values that are not negative at most a share 1 - q is above mean / (1 - q).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Quantile:
    """A quantile: the true one is from `low` to `high` for certain."""

    value: float | None
    """Linear interpolation within the bucket; None if it lies beyond the last finite edge."""
    low: float
    high: float | None
    """None beyond the last finite edge, where no mean bounds it: only that it is above `low` is known."""


def quantile(edges: Sequence[float], counts: Sequence[float], q: float) -> Quantile | None:
    """Return the quantile `q` (0 to 1) of observations given as cumulative counts; None without any.

    Args:
        edges: Finite upper edges, rising.
        counts: Cumulative counts per edge, and, last, the count of all.
    """
    if len(counts) != len(edges) + 1 or not edges or counts[-1] <= 0:
        return None
    rank = q * counts[-1]
    bucket = bisect_left(counts, max(rank, 1e-9))
    if bucket >= len(edges):
        return Quantile(None, edges[-1], None)
    high, below = edges[bucket], counts[bucket - 1] if bucket else 0.0
    low = edges[bucket - 1] if bucket else min(0.0, high)
    inside = counts[bucket] - below
    return Quantile(low + (high - low) * (rank - below) / inside, low, high)


def bounded(found: Quantile, q: float, mean: float | None) -> Quantile:
    """Return the quantile `q` of values that are not negative, with its upper bound by their mean (Markov).

    Beyond the last finite edge it has that bound as its high end, and no value still.
    """
    if mean is None or q >= 1 or found.low < 0:
        return found
    high = mean / (1 - q)
    if high < found.low or (found.high is not None and high >= found.high):
        return found
    return Quantile(None if found.value is None else min(found.value, high), found.low, high)


def rising(counts: Sequence[float]) -> bool:
    """True if counts are cumulative: none falls below the one before, and the first isn't negative."""
    return (not counts or counts[0] >= 0) and all(a <= b for a, b in pairwise(counts))


def added(
    parts: Sequence[tuple[tuple[float, ...], Sequence[float]]],
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return edges and counts of several histograms together; None if their edges differ, so they can't be added."""
    if not parts or any(edges != parts[0][0] for edges, _ in parts):
        return None
    return parts[0][0], tuple(map(sum, zip(*(counts for _, counts in parts), strict=True)))
