"""Percentiles, intervals and verdicts."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvdeck.sessions import stats
from kvdeck.sessions.records import Interval


def test_percentiles_are_exact() -> None:
    found = stats.summarise([ns * 1000 for ns in range(1, 102)])
    assert found is not None
    assert (found.p50, found.p90, found.p99, found.max, found.mean) == (51, 91, 100, 101, 51)
    assert stats.summarise([]) is None


@given(st.lists(st.floats(0.1, 1e6), min_size=1, max_size=40))
def test_the_interval_holds_its_median(values: list[float]) -> None:
    found = stats.median_interval(values, resamples=50)
    assert found is not None
    assert min(values) <= found.low <= found.high <= max(values)


def test_an_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    source = random.Random(1)
    hits = 0
    for seed in range(200):
        found = stats.median_interval([source.gauss(10, 1) for _ in range(30)], resamples=200, seed=seed)
        assert found is not None
        hits += found.low <= 10 <= found.high
    assert 180 <= hits <= 199


def test_drift_that_both_saw_cancels() -> None:
    baseline = [1.0 + 0.1 * number for number in range(20)]
    found = stats.paired_ratio(baseline, [2 * value for value in baseline])
    assert found is not None
    assert (found.low, found.median, found.high) == pytest.approx((2, 2, 2))


@pytest.mark.parametrize(
    ("low", "high", "rounds", "word"),
    [
        (0.7, 0.9, 20, "faster"),
        (1.1, 1.2, 20, "slower"),
        (0.9, 1.1, 20, "no difference"),
        (1.1, 1.2, 5, "undecided"),
    ],
)
def test_verdicts(low: float, high: float, rounds: int, word: str) -> None:
    assert stats.verdict(Interval((low + high) / 2, low, high), rounds) == word
