"""Exact percentiles, median intervals and verdicts, in pure Python because sessions don't import numpy."""

from __future__ import annotations

import functools
import math
import random
import statistics
from collections.abc import Sequence

from kvdeck.sessions.model.records import Interval, Percentiles, Verdict, is_same


def percentile(ordered: Sequence[float], fraction: float) -> float:
    """Return a percentile of an ascending sequence, by linear interpolation between the closest ranks.

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
    """Return percentiles in µs of times in ns; None if empty."""
    if not nanoseconds:
        return None
    ordered = sorted(nanoseconds)
    p50, p90, p95, p99 = (percentile(ordered, fraction) / 1e3 for fraction in (0.5, 0.9, 0.95, 0.99))
    return Percentiles(p50, p90, p95, p99, ordered[-1] / 1e3, statistics.fmean(ordered) / 1e3)


def median_interval(values: Sequence[float]) -> Interval | None:
    """Return the median and its 95 % interval, valid for any distribution; None if empty.

    The interval bounds lie between order statistics: the number of values below the true median is binomial, so the
    coverage of two order statistics is known (Hettmansperger and Sheather 1986 interpolate to exactly 95 %). No
    resampling. Below six values even the extremes cover less than 95 %; they are the interval then.

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
"""Maximum count for the exact binomial sum; above, the normal approximation differs by less than 0.01 positions."""


@functools.lru_cache(maxsize=1024)
def _depth(count: int) -> float:
    """Return how many positions the interval starts from each end: 0 is the extreme, fractions interpolate."""
    if count > _MOST_COUNTED:
        return (count - 1) / 2 - 0.5 * statistics.NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * math.sqrt(count)
    outside, depth = 0, -1
    share = 1.0  # coverage of the interval at this depth
    while True:
        # Each value lies below the true median with probability 1/2, so the values below it are binomial.
        outside += math.comb(count, depth + 1)
        inner = 1 - 2 * outside / (1 << count)
        if inner < CONFIDENCE:
            break
        depth, share = depth + 1, inner
    if depth < 0:
        return 0.0
    taken = depth + 1
    # Hettmansperger and Sheather's weight of the next order statistic, not linear in the coverage.
    excess = (share - CONFIDENCE) / (share - inner)
    return depth + (count - taken) * excess / (taken + (count - 2 * taken) * excess)


LEAST_BLOCKS = 6
"""Minimum number of blocks for an interval of the median of dependent values."""


def block_median_interval(values: Sequence[float], resamples: int = 400, seed: int = 0) -> Interval | None:
    """Return the median of consecutive, dependent values with its 95 % interval.

    Moving-block bootstrap: resamples blocks of neighbouring values. Block length is the cube root of the number of
    values, the usual order (Künsch 1989; Hall, Horowitz and Jing 1995). None with fewer than `LEAST_BLOCKS` blocks.
    """
    count = len(values)
    length = max(1, round(count ** (1 / 3)))
    blocks = -(-count // length)
    if count // length < LEAST_BLOCKS:
        return None
    # Seeded: a session shows the same interval each time it is read.
    begin = random.Random(seed).randrange
    medians = []
    for _ in range(resamples):
        drawn = [
            value for _ in range(blocks) for at in (begin(count - length + 1),) for value in values[at : at + length]
        ]
        medians.append(statistics.median(drawn[:count]))
    medians.sort()
    return Interval(statistics.median(values), percentile(medians, 0.025), percentile(medians, 0.975))


MOST_BLOCKS = 10
"""Blocks that many rounds are divided into; more would be too short to outlast a busy neighbour."""


def block_medians(values: Sequence[float]) -> list[float]:
    """Return the median of each block of neighbouring rounds: `LEAST_BLOCKS` to `MOST_BLOCKS`, if there are as many.

    Rounds are not independent: a neighbour that runs for half a second slows several of them down. Two rounds see the
    layouts in the order A B B A, so blocks are made of such pairs of rounds, and a steady drift cancels.
    """
    count = len(values)
    pairs = count // 2
    if pairs < LEAST_BLOCKS:
        return list(values)
    blocks = max(LEAST_BLOCKS, min(MOST_BLOCKS, pairs // 2))
    ends = [2 * (pairs * number // blocks) for number in range(1, blocks)] + [count]
    return [statistics.median(values[start:end]) for start, end in zip([0, *ends], ends, strict=False)]


def paired_ratio(baseline: Sequence[float], candidate: Sequence[float]) -> Interval | None:
    """Return the ratio of the candidate's time to the baseline's, paired by round so that common drift cancels.

    The interval is that of the median over blocks of rounds (`block_medians`). Computed on the log scale, so that
    swapping the two gives the exact inverse.

    Args:
        baseline: One time per round, above 0.
        candidate: One time per round, same rounds; the longer sequence is truncated.
    """
    rounds = [math.log(b / a) for a, b in zip(baseline, candidate, strict=False)]
    found = median_interval(block_medians(rounds))
    return found and Interval(math.exp(found.median), math.exp(found.low), math.exp(found.high))


def independent_ratio(baseline: Interval, candidate: Interval) -> Interval | None:
    """Return candidate over baseline for two independently measured medians; None if a value is not positive.

    The distances from median to bound add in squares on the log scale (method of variance estimates recovery), so no
    resampling is needed.
    """
    if min(baseline.low, candidate.low, baseline.median, candidate.median) <= 0:
        return None
    log = math.log
    ratio = log(candidate.median / baseline.median)
    below = math.hypot(log(candidate.median / candidate.low), log(baseline.high / baseline.median))
    above = math.hypot(log(candidate.high / candidate.median), log(baseline.median / baseline.low))
    return Interval(math.exp(ratio), math.exp(ratio - below), math.exp(ratio + above))


def sign_chance(values: Sequence[float]) -> float:
    """Return the chance that so few values, or fewer, are at least 0 if either sign is as likely (sign test)."""
    others = sum(value >= 0 for value in values)
    return sum(math.comb(len(values), number) for number in range(others + 1)) / (1 << len(values))


def holm(chances: Sequence[float], alpha: float) -> list[bool]:
    """Return which of several tests hold, so that the chance of any false one is at most `alpha` (Holm 1979).

    The smallest chance must be below `alpha` over their number, the next one below `alpha` over one less, and so on;
    the first that isn't ends it.
    """
    kept = [False] * len(chances)
    for done, which in enumerate(sorted(range(len(chances)), key=chances.__getitem__)):
        if chances[which] > alpha / (len(chances) - done):
            break
        kept[which] = True
    return kept


LEAST_ROUNDS = 2 * LEAST_BLOCKS
"""Minimum rounds for a verdict: six blocks of A B B A. With five blocks, chance alone puts all on one side in one of
sixteen cases."""


def verdict(ratio: Interval, rounds: int) -> Verdict:
    """Return the verdict on a ratio of times, from its whole interval; `undecided` below `LEAST_ROUNDS` rounds."""
    if rounds < LEAST_ROUNDS:
        return "undecided"
    if ratio.high < 1:
        return "faster"
    if ratio.low > 1:
        return "slower"
    return "no difference" if is_same(ratio.low, ratio.high) else "undecided"
