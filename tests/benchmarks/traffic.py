"""The runner of traffic tests: preparation, what it adds to a pair's own time, and how exactly ranks start."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from kvdeck.engine.ranks.board import Board
from kvdeck.engine.traffic.config import TrafficPattern
from kvdeck.engine.traffic.matrix import Matrix
from kvdeck.engine.traffic.placement import divide, memories
from kvdeck.engine.traffic.rank_set import RankSet, local_members
from kvdeck.sessions.stats import percentile
from kvdeck.sessions.units import number_text, time_text
from tests.benchmarks.table import Row

CELL = 64 << 20
VISITS = 20
STARTS = 200


def measure() -> list[Row]:
    """Every row about traffic; the load of the machine stands on stderr, since these need it idle."""
    print(f"load {os.getloadavg()[0]:.2f} on {len(os.sched_getaffinity(0))} cores", file=sys.stderr)
    return [
        _prepared(256, 100, "< 10 s"),
        _prepared(8, 10, "< 1 s"),
        _overhead(),
        _skew(),
    ]


@contextmanager
def _opened(patterns: Sequence[TrafficPattern], processes: int) -> Iterator[RankSet]:
    board = Board()
    ranks = patterns[0].matrix.ranks
    made = RankSet(board, patterns, memories(patterns, ranks), local_members(board, divide(ranks, processes)))
    made.open()
    try:
        yield made
    finally:
        made.close()
        board.leave()


def _hand_over(ranks: int, number: int) -> TrafficPattern:
    """Each rank of one prefill worker sends to one rank of a decode worker."""
    rows, half = [[0] * ranks for _ in range(ranks)], ranks // 2
    width = min(8, half)
    for rank in range(width):
        source = (number * width + rank) % half
        rows[source][half + source] = 4096
    return TrafficPattern(Matrix(tuple(map(tuple, rows))))


def _prepared(ranks: int, count: int, budget: str) -> Row:
    with _opened([_hand_over(ranks, number) for number in range(count)], 2) as made:
        began = time.perf_counter()
        made.prepare(lambda *_: None)
        spent = time.perf_counter() - began
    return Row(f"traffic: {count} patterns of {ranks} virtual ranks prepared, 2 processes", f"{spent:.2f} s", budget)


def _overhead() -> Row:
    """One rank sends to another: what is around the transfer's own time, which its initiator measures."""
    with _opened([TrafficPattern(Matrix(((0, CELL), (0, 0))))], 2) as made:
        made.prepare(lambda *_: None)
        made.start_series()
        for _ in range(3):
            made.visit(0)
        ratios = []
        for _ in range(VISITS):
            part = made.visit(0).ranks[0]
            ratios.append((part.end - part.start) / (part.done - part.start))
        made.end_series()
    found = statistics.median(ratios)
    return Row(
        "traffic: latency of a pattern over its slowest pair's own transfer, 64 MiB", number_text(found), "≤ 1.1"
    )


def _skew() -> Row:
    with _opened([TrafficPattern(Matrix(((0, 4096), (4096, 0))))], 2) as made:
        made.prepare(lambda *_: None)
        made.start_series()
        found = []
        for _ in range(STARTS):
            starts = [part.start for part in made.visit(0).ranks.values()]
            found.append(max(starts) - min(starts))
        made.end_series()
    skews = sorted(found)
    p50, p99 = (percentile(skews, fraction) / 1e3 for fraction in (0.5, 0.99))
    return Row("traffic: start skew of 2 processes, p50 and p99", f"{time_text(p50)}, {time_text(p99)}", "p99 ≤ 200 µs")
