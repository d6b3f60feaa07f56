"""Exact percentiles, intervals of medians and the verdict over them. Pure Python: sessions load no numpy."""

from __future__ import annotations

import functools
import math
import random
import statistics
from collections.abc import Sequence

from kvdeck.sessions.model.records import Interval, Percentiles, Verdict, is_same


def percentile(ordered: Sequence[float], fraction: float) -> float:
    """Percentile of an ascending sequence by linear interpolation between the closest ranks.

    Args:
        ordered: At least one value, ascending.
        fraction: 0 to 1.
    """
    return _at(ordered, (len(ordered) - 1) * fraction)


def _at(ordered: Sequence[float], position: float) -> float:
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def summarise(nanoseconds: Sequence[int]) -> Percentiles | None:
    """Percentiles in microseconds of times in nanoseconds; None of no times."""
    if not nanoseconds:
        return None
    ordered = sorted(nanoseconds)
    p50, p90, p95, p99 = (percentile(ordered, fraction) / 1e3 for fraction in (0.5, 0.9, 0.95, 0.99))
    return Percentiles(p50, p90, p95, p99, ordered[-1] / 1e3, statistics.fmean(ordered) / 1e3)


def median_interval(values: Sequence[float]) -> Interval | None:
    """Median with its 95 % interval, whatever the values' distribution; None of no values.

    The interval lies between order statistics: the number of values below the true median is binomial, so how often
    two of them enclose it is known (Hettmansperger and Sheather 1986 interpolate to just 95 %). Nothing is drawn by
    chance. Below six values even the extremes enclose it less often; they are the interval then.

    The values should be means of rounds, not single requests: neighbouring requests are not independent.
    """
    if not values:
        return None
    ordered = sorted(values)
    last = len(ordered) - 1
    depth = _depth(len(ordered))
    return Interval(_at(ordered, last / 2), _at(ordered, depth), _at(ordered, last - depth))


CONFIDENCE = 0.95
_MOST_COUNTED = 200
"""Values up to which the binomial is summed; above, its normal form differs by less than a hundredth of a position."""


@functools.lru_cache(maxsize=1024)
def _depth(count: int) -> float:
    """How far in from each end the interval begins, in positions: 0 is the extreme; a fraction lies between two."""
    if count > _MOST_COUNTED:
        return (count - 1) / 2 - 0.5 * statistics.NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * math.sqrt(count)
    outside, depth = 0, -1
    share = 1.0  # how often the values at this depth and the same from the other end enclose the median
    while True:
        outside += math.comb(count, depth + 1)
        inner = 1 - 2 * outside / (1 << count)
        if inner < CONFIDENCE:
            break
        depth, share = depth + 1, inner
    if depth < 0:
        return 0.0
    taken = depth + 1
    excess = (share - CONFIDENCE) / (share - inner)
    return depth + (count - taken) * excess / (taken + (count - 2 * taken) * excess)


LEAST_BLOCKS = 6
"""Blocks of neighbours below which a median of dependent values has no interval."""


def block_median_interval(values: Sequence[float], resamples: int = 400, seed: int = 0) -> Interval | None:
    """Median of values that come one after the other and are not independent, with its 95 % interval.

    Whole blocks of neighbours are drawn anew (the moving-block bootstrap), each as long as the cube root of how
    many values there are, the usual order (Künsch 1989; Hall, Horowitz and Jing 1995). None with fewer than
    `LEAST_BLOCKS` blocks.
    """
    count = len(values)
    length = max(1, round(count ** (1 / 3)))
    blocks = -(-count // length)
    if count // length < LEAST_BLOCKS:
        return None
    begin = random.Random(seed).randrange
    medians = []
    for _ in range(resamples):
        drawn = [
            value for _ in range(blocks) for at in (begin(count - length + 1),) for value in values[at : at + length]
        ]
        medians.append(statistics.median(drawn[:count]))
    medians.sort()
    return Interval(statistics.median(values), percentile(medians, 0.025), percentile(medians, 0.975))


def paired_ratio(baseline: Sequence[float], candidate: Sequence[float]) -> Interval | None:
    """Candidate's time over baseline's, round by round: drift that both rounds saw cancels.

    On the logarithmic scale, so that exchanging the two gives just the inverse.

    Args:
        baseline: One time a round, above 0.
        candidate: One time a round, of the same rounds; a longer tail of either is left out.
    """
    found = median_interval([math.log(b / a) for a, b in zip(baseline, candidate, strict=False)])
    return found and Interval(math.exp(found.median), math.exp(found.low), math.exp(found.high))


def independent_ratio(baseline: Interval, candidate: Interval) -> Interval | None:
    """Candidate over baseline, of two medians that were measured apart, each with its own interval.

    The intervals' distances add in squares on the logarithmic scale (the method of variance estimates recovery),
    so nothing is drawn anew. None where a value is not positive.
    """
    if min(baseline.low, candidate.low, baseline.median, candidate.median) <= 0:
        return None
    log = math.log
    ratio = log(candidate.median / baseline.median)
    below = math.hypot(log(candidate.median / candidate.low), log(baseline.high / baseline.median))
    above = math.hypot(log(candidate.high / candidate.median), log(baseline.median / baseline.low))
    return Interval(math.exp(ratio), math.exp(ratio - below), math.exp(ratio + above))


LEAST_ROUNDS = 6
"""Rounds below which no verdict is given: with five, chance alone puts all on one side once in sixteen times."""


def verdict(ratio: Interval, rounds: int) -> Verdict:
    """The word for a ratio of times: what the whole interval allows to be named, else `undecided`."""
    if rounds < LEAST_ROUNDS:
        return "undecided"
    if ratio.high < 1:
        return "faster"
    if ratio.low > 1:
        return "slower"
    return "no difference" if is_same(ratio.low, ratio.high) else "undecided"
