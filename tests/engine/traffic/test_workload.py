"""The order of the workload pass: one after the other for each rank, at the same time for disjoint initiators."""

from __future__ import annotations

from kvdeck.engine.traffic.config import TrafficPattern
from kvdeck.engine.traffic.matrix import Matrix
from kvdeck.engine.traffic.workload import WorkloadOrder


def pattern(*senders: int, before: float = 0.0, after: float = 0.0, operation: str = "WRITE") -> TrafficPattern:
    rows = tuple(tuple(int(rank in senders and to == 3) for to in range(4)) for rank in range(4))
    return TrafficPattern(Matrix(rows), operation, sleep_before_s=before, sleep_after_s=after)


def test_disjoint_senders_overlap_and_shared_ones_wait() -> None:
    order = WorkloadOrder([pattern(0, 1), pattern(2), pattern(1, 2)], 100)
    assert order.ready() == [(0, 100), (1, 100)]
    assert order.ready() == []
    order.end(1, 2, 500)
    order.end(0, 0, 600)
    assert order.ready() == []
    order.end(0, 1, 400)
    assert order.ready() == [(2, 500)]
    order.end(2, 1, 900)
    assert not order.finished
    order.end(2, 2, 900)
    assert order.finished


def test_sleeps_are_before_and_after() -> None:
    order = WorkloadOrder([pattern(0, before=1e-6, after=2e-6), pattern(0, before=3e-6)], 0)
    assert order.ready() == [(0, 1000)]
    order.end(0, 0, 5000)
    assert order.ready() == [(1, 10_000)]


def test_receivers_initiate_a_read_and_an_empty_pattern_never_begins() -> None:
    order = WorkloadOrder([pattern(), pattern(0, operation="READ"), pattern(0)], 7)
    assert order.ready() == [(1, 7), (2, 7)]
    assert WorkloadOrder([pattern()], 0).finished
