"""256 virtual ranks in two processes: prepared, moved and verified."""

from __future__ import annotations

import threading

from kvdeck.engine.ranks.board import Board
from kvdeck.engine.traffic.config import TrafficPattern
from kvdeck.engine.traffic.job import workload_pass
from kvdeck.engine.traffic.matrix import Matrix
from kvdeck.engine.traffic.placement import divide, memories
from kvdeck.engine.traffic.rank_set import RankSet, local_members


def hand_over(number: int) -> TrafficPattern:
    """Eight prefill ranks that each send to a decode rank, and to the worker after it."""
    rows = [[0] * 256 for _ in range(256)]
    for rank in range(8):
        source = number % 16 * 8 + rank
        rows[source][128 + source] = 4096 + number
        rows[source][128 + (source + 8) % 128] = 100
    return TrafficPattern(Matrix(tuple(map(tuple, rows))), "READ" if number % 3 == 2 else "WRITE")


def test_256_virtual_ranks_of_20_patterns() -> None:
    patterns = [hand_over(number) for number in range(20)]
    board = Board()
    ranks = RankSet(board, patterns, memories(patterns, 256), local_members(board, divide(256, 2)))
    ranks.open()
    assert ranks.clocks == []
    ready: list[tuple[int, int]] = []
    assert ranks.prepare(lambda *told: ready.append(told)) == 20 * 16
    assert ready == [(count, 16 * count) for count in range(1, 21)]
    ranks.start_series()
    visits = {one.pattern: one for one in workload_pass(patterns, ranks)}
    ranks.end_series()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("reports-")]
    assert not [key for key in board._values if key.startswith("report/")]
    assert sorted(visits) == list(range(20))
    for number, visit in visits.items():
        assert set(visit.ranks) == set(patterns[number].initiators)
        assert all(part.start < part.end and part.missing == 0 for part in visit.ranks.values())
        assert all(bool(part.arrived) == (patterns[number].operation == "WRITE") for part in visit.ranks.values())
    # A rank takes part in one pattern at a time: 0 and 16 have the same senders.
    assert max(part.end for part in visits[0].ranks.values()) <= min(part.start for part in visits[16].ranks.values())
    assert [ranks.verify(number) for number in (0, 2, 19)] == [[], [], []]
    ranks.close()
    board.leave()
