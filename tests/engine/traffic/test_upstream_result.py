"""Upstream's rows from times: latency to the arrival, each row its own bandwidth, null where nothing moves."""

from __future__ import annotations

from kvdeck.engine.traffic.config import TrafficPattern
from kvdeck.engine.traffic.matrix import Matrix
from kvdeck.engine.traffic.upstream_result import of_rank_0, sequential_result, single_result, upstream_row
from kvdeck.sessions.model.traffic import RankPart, VisitPhase, VisitRecord

PATTERN = TrafficPattern(Matrix(((0, 0, 4000), (0, 0, 1000), (0, 0, 0))))
EMPTY = TrafficPattern(Matrix(((0,) * 3,) * 3))


def visit(phase: VisitPhase, *parts: tuple[int, int, int, int, int], count: int = 1) -> VisitRecord:
    """A visit of rank, bytes, start, done and arrival in ns."""
    made = (RankPart(rank, size, start, start, done, arrived) for rank, size, start, done, arrived in parts)
    return VisitRecord(0, phase, 0, count, tuple(made))


ALONE = visit("alone", (0, 4000, 0, 800, 1000), (1, 1000, 0, 100, 200))
TOGETHER = visit("together", (0, 4000, 50, 900, 1050), (1, 1000, 100, 300, 600))


def test_a_row_ends_at_the_arrival_and_has_its_own_bandwidth() -> None:
    assert upstream_row(PATTERN, [ALONE], TOGETHER, 10**18) == {
        "size": 5e-6, "latency": 1e-3, "isolated_latency": 1e-3, "num_senders": 2,
        "mean_bw": (4000 / 1000 + 1000 / 500) / 2, "min_start_ts": (10**18 + 50) / 1e9,
        "max_end_ts": (10**18 + 1050) / 1e9,
    }  # fmt: skip


def test_a_pattern_that_moves_nothing_is_a_row_of_nulls() -> None:
    row = upstream_row(EMPTY, [], None, 0)
    assert (row["size"], row["num_senders"], row["latency"], row["mean_bw"], row["min_start_ts"]) == (0, 0, *[None] * 3)


def test_the_file_has_upstream_s_keys_in_their_order() -> None:
    metadata = {"ts": 1.0, "prepare_tp_time": 2.0, "sol_calculation_ts": 3.0, "finished_ts": 4.0}
    found = sequential_result([PATTERN, EMPTY], [[ALONE], []], [{0: TOGETHER}], 0, metadata, [9.0])
    assert list(found) == ["iterations_results", "metadata"]
    assert list(found["metadata"]) == ["ts", "iters", "prepare_tp_time", "sol_calculation_ts", "finished_ts"]
    assert found["metadata"]["iters"] == [
        {"start_ts": 9.0, "tps_start_ts": [5e-8, None], "tps_end_ts": [1.05e-6, None]}
    ]
    assert of_rank_0(visit("alone", (1, 1, 2, 3, 4)), "start", 0) is None


def test_a_single_pattern_has_a_bandwidth_for_each_rank() -> None:
    found = single_result(
        PATTERN, visit("together", (0, 8000, 0, 10, 2000), (1, 2000, 0, 10, 250), count=2), 2, 5.0, 1.0
    )
    assert found["rank_bw"] == [4.0, 8.0, None]
    assert (found["total_time"], found["avg_latency"]) == (2e-6, 1e-6)
    assert single_result(EMPTY, None, 3, 5.0, 1.0)["rank_bw"] == [None] * 3
