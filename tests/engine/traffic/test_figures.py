"""Figures from times: latency to the arrival, each row its own bandwidth, dashes where nothing moves."""

from __future__ import annotations

import pytest

from kvdeck.engine.traffic.config import TrafficPattern
from kvdeck.engine.traffic.figures import pattern_figures, rank_bandwidths, start_skews, upstream_row
from kvdeck.engine.traffic.matrix import Matrix
from kvdeck.engine.traffic.ranks_here import PatternVisit, RankTimes

PATTERN = TrafficPattern(Matrix(((0, 0, 4000), (0, 0, 1000), (0, 0, 0))))


def visit(*parts: tuple[int, int, int, int]) -> PatternVisit:
    """A visit of rank, start, done and arrival in ns."""
    return PatternVisit(0, 1, {rank: RankTimes(start, start, done, arrived, 0) for rank, start, done, arrived in parts})


def test_a_row_ends_at_the_arrival_and_has_its_own_bandwidth() -> None:
    alone = visit((0, 0, 800, 1000), (1, 0, 100, 200))
    row = upstream_row(PATTERN, [alone], visit((0, 50, 900, 1050), (1, 100, 300, 600)), 10**18)
    assert row == {"size": 5e-6, "latency": 1e-3, "isolated_latency": 1e-3, "num_senders": 2,
                   "mean_bw": (4000 / 1000 + 1000 / 500) / 2, "min_start_ts": (10**18 + 50) / 1e9,
                   "max_end_ts": (10**18 + 1050) / 1e9}  # fmt: skip


def test_a_pattern_that_moves_nothing_has_no_figures() -> None:
    empty = TrafficPattern(Matrix(((0, 0), (0, 0))))
    row = upstream_row(empty, [], None, 0)
    assert (row["size"], row["num_senders"], row["latency"], row["mean_bw"], row["min_start_ts"]) == (
        0,
        0,
        None,
        None,
        None,
    )
    assert pattern_figures(empty, [], []).latency_ms is None


def test_congestion_has_an_interval_from_six_iterations_on() -> None:
    alone = [visit((0, 0, 10, 1000 + step), (1, 0, 10, 20)) for step in range(6)]
    crowded = [visit((0, 0, 10, 2000 + step), (1, 0, 10, 20)) for step in range(6)]
    found = pattern_figures(PATTERN, alone, crowded)
    assert found.ratio == pytest.approx(2, rel=0.01)
    assert found.interval is not None
    assert found.interval.low <= found.ratio <= found.interval.high
    assert found.straggler == (0, 6, 6)
    assert pattern_figures(PATTERN, alone, crowded[:5]).interval is None


def test_the_initiators_own_completion_stands_apart() -> None:
    found = pattern_figures(PATTERN, [], [visit((0, 0, 400_000, 1_000_000), (1, 0, 200_000, 300_000))])
    assert (found.latency_ms, found.initiator_ms, found.isolated_ms, found.ratio) == (1.0, 0.4, None, None)


def test_an_arrival_before_the_initiators_completion_is_the_end() -> None:
    found = visit((0, 0, 900_000, 500_000))
    assert pattern_figures(PATTERN, [], [found]).latency_ms == 0.5
    assert found.ranks[0].free == 900_000


def test_a_rank_has_its_own_bytes_over_its_own_time() -> None:
    rows = rank_bandwidths([PATTERN], [visit((0, 0, 10, 2000), (1, 0, 10, 250))] * 2, 3)
    assert rows == [(8000, 2.0), (2000, 4.0), (0, None)]


def test_skew_is_between_processes() -> None:
    one = visit((0, 0, 1, 1), (1, 500, 501, 501), (2, 30, 40, 40))
    assert start_skews([one, visit((0, 0, 1, 1))], lambda rank: rank // 2) == [30]
