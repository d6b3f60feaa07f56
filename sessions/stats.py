"""Exact percentiles, bootstrap intervals and the verdict over them. Pure Python: sessions load no numpy."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence

from kvdeck.sessions.records import Interval, Percentiles, Verdict

RESAMPLES = 2000


def percentile(ordered: Sequence[float], fraction: float) -> float:
    """Percentile of an ascending sequence by linear interpolation between the closest ranks.

    Args:
        ordered: At least one value, ascending.
        fraction: 0 to 1.
    """
    position = (len(ordered) - 1) * fraction
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


def median_interval(values: Sequence[float], resamples: int = RESAMPLES, seed: int = 0) -> Interval | None:
    """Median with its 95 % percentile-bootstrap interval; None of no values.

    The values should be means of rounds, not single requests: neighbouring requests are not independent.
    The seed is fixed, so one session always shows one interval.
    """
    if not values:
        return None
    median, count = statistics.median(values), len(values)
    if count == 1:
        return Interval(median, median, median)
    choose = random.Random(seed).choices
    middle, even = count // 2, count % 2 == 0
    medians = []
    for _ in range(resamples):
        drawn = sorted(choose(values, k=count))
        medians.append((drawn[middle] + drawn[middle - 1]) / 2 if even else drawn[middle])
    medians.sort()
    return Interval(median, percentile(medians, 0.025), percentile(medians, 0.975))


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


def paired_ratio(baseline: Sequence[float], candidate: Sequence[float], resamples: int = RESAMPLES) -> Interval | None:
    """Candidate's time over baseline's, round by round: drift that both rounds saw cancels.

    Args:
        baseline: One time a round.
        candidate: One time a round, of the same rounds; a longer tail of either is left out.
    """
    return median_interval([b / a for a, b in zip(baseline, candidate, strict=False)], resamples)


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
    """The word for a ratio of times: it takes the whole interval on one side of 1 to name a winner."""
    if rounds < LEAST_ROUNDS:
        return "undecided"
    if ratio.high < 1:
        return "faster"
    return "slower" if ratio.low > 1 else "no difference"
