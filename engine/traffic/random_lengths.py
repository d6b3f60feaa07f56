"""Input lengths drawn from a normal distribution, as upstream's generator draws them: the same numbers for a seed."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

_WORDS = 624


def normal_draws(seed: int, mean: float, scale: float) -> Iterator[float]:
    """Yield what NumPy's `RandomState(seed).normal(mean, scale)` yields, one value at a time.

    Without NumPy, which takes a tenth of a second to import. Both draw from MT19937, but fill its state from a seed
    differently; the polar method is Marsaglia's (1962).

    Args:
        seed: 0 to 2**32 - 1.
        mean: Of the distribution.
        scale: Its standard deviation.
    """
    source = random.Random()
    source.setstate((3, (*_state(seed), _WORDS), None))
    while True:
        one, other = _pair(source)
        yield mean + scale * other
        yield mean + scale * one


def _pair(source: random.Random) -> tuple[float, float]:
    while True:
        x, y = 2.0 * source.random() - 1.0, 2.0 * source.random() - 1.0
        square = x * x + y * y
        if 0.0 < square < 1.0:
            factor = math.sqrt(-2.0 * math.log(square) / square)
            return factor * x, factor * y


def _state(seed: int) -> list[int]:
    """Return MT19937's state for a seed, by Knuth's recurrence (Matsumoto and Nishimura's `init_genrand`)."""
    words = [seed & 0xFFFFFFFF]
    for number in range(1, _WORDS):
        words.append((1812433253 * (words[-1] ^ (words[-1] >> 30)) + number) & 0xFFFFFFFF)
    return words


def input_lengths(seed: int, count: int, mean: float, scale: float, least: int, most: int) -> tuple[int, ...]:
    """Return input lengths in tokens, cut to whole ones and to the limits."""
    draws = normal_draws(seed, mean, scale)
    return tuple(min(max(least, int(next(draws))), most) for _ in range(count))
