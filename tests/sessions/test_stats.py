"""Percentiles, intervals and verdicts."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvdeck.sessions import stats
from kvdeck.sessions.model.encoding import convert
from kvdeck.sessions.model.records import Comparison, Interval
from kvdeck.sessions.stats import verdict


def test_percentiles_are_exact() -> None:
    found = stats.summarise([ns * 1000 for ns in range(1, 102)])
    assert found is not None
    assert (found.p50, found.p90, found.p99, found.max, found.mean) == (51, 91, 100, 101, 51)
    assert stats.summarise([]) is None


@given(st.lists(st.floats(0.1, 1e6), min_size=1, max_size=300))
def test_the_interval_holds_its_median(values: list[float]) -> None:
    found = stats.median_interval(values)
    assert found is not None
    assert min(values) <= found.low <= found.median <= found.high <= max(values)


def test_the_interval_lies_between_order_statistics() -> None:
    """Of nine, the second and the eighth enclose the median with 96.1 %, the third and the seventh with 82.0 %."""
    found = stats.median_interval([float(value) for value in range(9)])
    assert found is not None
    assert 1 < found.low < 1.3
    assert found.low + found.high == pytest.approx(8)
    few = stats.median_interval([3.0, 1.0, 2.0])
    assert few == Interval(2.0, 1.0, 3.0)


def test_many_rounds_change_the_formula_and_not_the_interval() -> None:
    exact, near = (stats.median_interval([number / count for number in range(count)]) for count in (200, 201))
    assert exact is not None
    assert near is not None
    assert (near.low, near.high) == pytest.approx((exact.low, exact.high), abs=0.002)


Rounds = Callable[[random.Random, int], tuple[list[float], list[float]]]


def _alike(one: Callable[[random.Random], float]) -> Rounds:
    return lambda source, count: ([one(source) for _ in range(count)], [one(source) for _ in range(count)])


def _drifting(source: random.Random, count: int) -> tuple[list[float], list[float]]:
    """A host that gets faster and slower all the while; A B, then B A, as a run visits its steps."""
    level, visits = 0.0, []
    for _ in range(2 * count):
        level += source.gauss(0, 0.04)
        visits.append(math.exp(level + source.gauss(0, 0.02)))
    first, second = visits[::2], visits[1::2]
    for number in range(1, count, 2):
        first[number], second[number] = second[number], first[number]
    return first, second


HOSTS: dict[str, Rounds] = {
    "even": _alike(lambda source: source.gauss(1, 0.03)),
    "skewed": _alike(lambda source: source.lognormvariate(0, 0.08)),
    "heavy tails": _alike(lambda source: 1 + 0.02 * abs(source.gauss(0, 1) / max(1e-3, abs(source.gauss(0, 1))))),
    "stalls": _alike(lambda source: source.gauss(1, 0.01) + (source.random() < 0.1) * source.expovariate(1)),
    "drift": _drifting,
}


def share_of_verdicts(host: Rounds, rounds: int, factor: float, times: int) -> float:
    """How often a comparison of a thing with itself, slowed down by a factor, calls it anything but alike."""
    source = random.Random(f"{rounds}{factor}")
    given = 0
    for _ in range(times):
        a, b = host(source, rounds)
        ratio = stats.paired_ratio(a, [factor * time for time in b])
        assert ratio is not None
        given += stats.verdict(ratio, rounds) in ("faster", "slower")
    return given / times


@pytest.mark.parametrize("rounds", [12, 21, 40])
@pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)
def test_a_thing_against_itself_gets_a_verdict_once_in_twenty_times(host: Rounds, rounds: int) -> None:
    """A percentile bootstrap of the same rounds gave one in up to 10 % of such comparisons."""
    assert 0.02 <= share_of_verdicts(host, rounds, 1.0, 2000) <= 0.06


@pytest.mark.parametrize(
    ("name", "rounds", "share"),
    [("even", 12, 0.98), ("skewed", 40, 0.9), ("heavy tails", 40, 0.97), ("stalls", 40, 0.95), ("drift", 20, 0.97)],
)
def test_a_tenth_slower_is_still_found(name: str, rounds: int, share: float) -> None:
    assert share_of_verdicts(HOSTS[name], rounds, 1.1, 500) >= share


def _busy(source: random.Random, count: int) -> tuple[list[float], list[float]]:
    """A neighbour that comes and goes, and slows one side down for several rounds."""
    sides: tuple[list[float], list[float]] = ([], [])
    left, hit = 0, 0
    for _ in range(count):
        if not left and source.random() < 0.1:
            left, hit = source.randrange(1, 7), source.randrange(2)
        for which, side in enumerate(sides):
            side.append(source.gauss(1, 0.02) * (1.5 if left and which == hit else 1))
        left = max(0, left - 1)
    return sides


@pytest.mark.parametrize(("rounds", "most"), [(12, 0.15), (40, 0.12), (200, 0.08)])
def test_a_neighbour_that_stays_for_several_rounds_is_not_taken_for_a_difference(rounds: int, most: float) -> None:
    """By single rounds in place of blocks, 200 rounds gave a verdict in 16 % of such comparisons."""
    assert share_of_verdicts(_busy, rounds, 1.0, 1000) <= most


def test_the_chance_of_signs_and_its_correction() -> None:
    assert stats.sign_chance([-1.0] * 8) == 1 / 256
    assert stats.sign_chance([-1.0] * 7 + [1.0]) == 9 / 256
    assert stats.sign_chance([1.0] * 3) == 1
    assert stats.holm([0.04, 0.001, 0.02], 0.05) == [True, True, True]
    assert stats.holm([0.04, 0.02, 0.03], 0.05) == [False, False, False]
    assert stats.holm([], 0.05) == []


def test_blocks_hold_every_round_once_and_whole_turns() -> None:
    for count in range(1, 500):
        blocks = stats.block_medians([float(number) for number in range(count)])
        assert len(blocks) == count if count < 12 else 6 <= len(blocks) <= stats.MOST_BLOCKS
        assert blocks == sorted(blocks)


def test_sessions_measured_apart_that_are_alike_get_few_verdicts() -> None:
    source = random.Random(3)
    given = 0
    for _ in range(2000):
        a, b = (stats.median_interval([source.lognormvariate(0, 0.1) for _ in range(20)]) for _ in "ab")
        assert a is not None
        assert b is not None
        ratio = stats.independent_ratio(a, b)
        assert ratio is not None
        given += stats.verdict(ratio, 20) in ("faster", "slower")
    assert 0.02 <= given / 2000 <= 0.06


def test_exchanging_the_two_gives_the_inverse() -> None:
    a, b = _drifting(random.Random(2), 21)
    one, other = stats.paired_ratio(a, b), stats.paired_ratio(b, a)
    assert one is not None
    assert other is not None
    assert (one.low, one.median, one.high) == pytest.approx((1 / other.high, 1 / other.median, 1 / other.low))


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
        (0.9, 1.1, 20, "undecided"),
        (1.1, 1.2, 11, "undecided"),
    ],
)
def test_verdicts(low: float, high: float, rounds: int, word: str) -> None:
    assert stats.verdict(Interval((low + high) / 2, low, high), rounds) == word


@pytest.mark.parametrize(
    ("low", "high", "rounds", "word"),
    [
        (0.91, 1.76, 20, "undecided"),
        (0.5, 1.01, 20, "undecided"),
        (0.96, 1.04, 20, "no difference"),
        (0.96, 1.04, 11, "undecided"),
        (1.001, 3.0, 20, "slower"),
        (0.2, 0.999, 20, "faster"),
        (1.0, 1.0, 20, "no difference"),
    ],
)
def test_the_verdict_says_no_more_than_the_interval(low: float, high: float, rounds: int, word: str):
    assert verdict(Interval((low * high) ** 0.5, low, high), rounds) == word


def test_a_saved_verdict_that_said_too_much_is_corrected():
    data = {"trial": 0, "path": "HostToHost", "baseline": "a", "candidate": "b", "block_bytes": 1, "batch": 1,
            "ratio": 1.2, "low": 0.91, "high": 1.76, "verdict": "no difference"}  # fmt: skip
    assert convert(Comparison, data).verdict == "undecided"
    assert convert(Comparison, {**data, "low": 0.99, "high": 1.02}).verdict == "no difference"
