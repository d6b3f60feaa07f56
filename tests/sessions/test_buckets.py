"""Quantiles from buckets against the exact ones of known distributions."""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Callable

import pytest

from kvdeck.sessions.buckets import Quantile, added, bounded, quantile, rising

TTFT = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0)
"""Upper edges of vLLM's time to first token."""
DISTRIBUTIONS: dict[str, Callable[[random.Random], float]] = {
    "uniform": lambda dice: dice.uniform(0.0, 3.0),
    "exponential": lambda dice: dice.expovariate(4.0),
    "lognormal": lambda dice: dice.lognormvariate(-2.0, 1.0),
    "two peaks": lambda dice: dice.gauss(0.03, 0.003) if dice.random() < 0.9 else dice.gauss(12.0, 1.0),
    "one value": lambda dice: 0.3,
}


def counted(values: list[float], edges: tuple[float, ...]) -> tuple[int, ...]:
    """Cumulative counts as prometheus-client counts them: at most the edge."""
    ordered = sorted(values)
    return (*(bisect_right(ordered, edge) for edge in edges), len(ordered))


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("q", [0.5, 0.95, 0.99])
@pytest.mark.parametrize("n", [1, 7, 100, 5000])
def test_the_true_quantile_is_between_the_bounds(name: str, q: float, n: int) -> None:
    dice = random.Random(f"{name} {n}")
    values = [abs(DISTRIBUTIONS[name](dice)) for _ in range(n)]
    true = sorted(values)[math.ceil(q * n) - 1]
    found = quantile(TTFT, counted(values, TTFT), q)
    assert found is not None
    tight = bounded(found, q, sum(values) / n)
    for one in (found, tight):
        assert one.low <= true
        assert one.high is not None
        assert true <= one.high * (1 + 1e-12)
        assert one.value is not None
        assert one.low <= one.value <= one.high, "the interpolated value is within the bounds it names"


def test_interpolation_is_exact_for_uniform_observations() -> None:
    edges = tuple(edge / 10 for edge in range(1, 11))
    values = [place / 1000 for place in range(1, 1001)]
    for q in (0.05, 0.5, 0.95, 0.99):
        found = quantile(edges, counted(values, edges), q)
        assert found is not None
        assert found.value == pytest.approx(q, abs=1e-9)


def test_beyond_the_last_edge_only_the_edge_is_known() -> None:
    assert quantile((1.0, 2.0), (0, 1, 100), 0.5) == Quantile(None, 2.0, None)
    assert bounded(Quantile(None, 2.0, None), 0.5, 4.0) == Quantile(None, 2.0, 8.0), "the mean bounds it"


def test_the_mean_bounds_what_a_wide_bucket_does_not() -> None:
    # All of vLLM's queue times are in its first bucket, up to 0.3 s; their mean is 6 ms.
    found = quantile((0.3, 0.5), (72, 72, 72), 0.5)
    assert found == Quantile(pytest.approx(0.15), 0.0, 0.3)
    assert bounded(found, 0.5, 0.006) == Quantile(pytest.approx(0.012), 0.0, pytest.approx(0.012))


def test_nothing_observed_has_no_quantile() -> None:
    assert quantile((1.0, 2.0), (0, 0, 0), 0.99) is None
    assert quantile((), (12,), 0.99) is None, "a sum and a count without buckets"


def test_counts_that_fall_are_no_histogram() -> None:
    assert rising((0, 3, 3, 9))
    assert not rising((3, 2, 9))
    assert not rising((-1, 2, 9))


def test_only_histograms_with_the_same_edges_are_added() -> None:
    assert added([((1.0, 2.0), (1, 2, 3)), ((1.0, 2.0), (10, 20, 30))]) == ((1.0, 2.0), (11, 22, 33))
    assert added([((1.0, 2.0), (1, 2, 3)), ((1.0, 3.0), (10, 20, 30))]) is None
