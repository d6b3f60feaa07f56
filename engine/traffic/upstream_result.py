"""The result of a traffic test in the form of NIXL's own tool: keys and units of its JSON file.

Sizes are GB (1e9 bytes), latencies ms, rates GB/s, times seconds since 1970; null where a pattern moves nothing.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from kvdeck.engine.traffic.config import TrafficPattern
from kvdeck.sessions.model.traffic import VisitRecord
from kvdeck.sessions.model.traffic_state import mean_bandwidth


def upstream_row(
    pattern: TrafficPattern, alone: Sequence[VisitRecord], visit: VisitRecord | None, epoch_ns: int
) -> dict[str, Any]:
    """Return a pattern's row of one iteration.

    Args:
        pattern: The pattern.
        alone: Its visits alone.
        visit: Its visit in the iteration; None if it has no initiators.
        epoch_ns: What the clock of the visits is to be increased by, to be the time since 1970.
    """
    return {
        "size": pattern.matrix.total / 1e9,
        "latency": None if visit is None else visit.latency_ns / 1e6,
        "isolated_latency": statistics.fmean(one.latency_ns for one in alone) / 1e6 if alone else None,
        "num_senders": len(pattern.matrix.senders),
        "mean_bw": None if visit is None else mean_bandwidth(visit),
        "min_start_ts": None if visit is None else (visit.start + epoch_ns) / 1e9,
        "max_end_ts": None if visit is None else (visit.end + epoch_ns) / 1e9,
    }


def of_rank_0(visit: VisitRecord | None, name: str, epoch_ns: int) -> float | None:
    """Return rank 0's `start` or `end` in a visit, since 1970; None if it isn't an initiator."""
    parts = () if visit is None else visit.parts
    return next((float(getattr(part, name) + epoch_ns) / 1e9 for part in parts if part.rank == 0), None)


def single_result(
    pattern: TrafficPattern, visit: VisitRecord | None, iterations: int, began: float, prepared_s: float
) -> dict[str, Any]:
    """Return the result of `ct-perftest`, which upstream only prints."""
    seconds = None if visit is None else (visit.end - visit.start) / 1e9
    rates = {} if visit is None else {part.rank: part.bytes / max(1, part.end - part.start) for part in visit.parts}
    return {
        "iters": iterations,
        "total_time": seconds,
        "avg_latency": None if seconds is None else seconds / iterations,
        "size": pattern.matrix.total / 1e9,
        "rank_bw": [rates.get(rank) for rank in range(pattern.matrix.ranks)],
        "metadata": {"ts": began, "prepare_time": prepared_s},
    }


def sequential_result(
    patterns: Sequence[TrafficPattern],
    alone: Sequence[Sequence[VisitRecord]],
    passes: Sequence[dict[int, VisitRecord]],
    epoch_ns: int,
    metadata: dict[str, Any],
    starts: Sequence[float],
) -> dict[str, Any]:
    """Return the content of upstream's JSON file.

    Args:
        patterns: The patterns.
        alone: Each pattern's visits alone.
        passes: For each iteration, the visit of each pattern that has initiators.
        epoch_ns: What the clock of the visits is to be increased by, to be the time since 1970.
        metadata: `ts`, `prepare_tp_time`, `sol_calculation_ts` and `finished_ts`.
        starts: Start of each iteration, seconds since 1970.
    """
    numbers = range(len(patterns))
    return {
        "iterations_results": [
            [upstream_row(patterns[number], alone[number], one.get(number), epoch_ns) for number in numbers]
            for one in passes
        ],
        "metadata": {
            "ts": metadata["ts"],
            "iters": [
                {
                    "start_ts": start,
                    "tps_start_ts": [of_rank_0(one.get(number), "start", epoch_ns) for number in numbers],
                    "tps_end_ts": [of_rank_0(one.get(number), "end", epoch_ns) for number in numbers],
                }
                for start, one in zip(starts, passes, strict=True)
            ],
            **{name: value for name, value in metadata.items() if name != "ts"},
        },
    }
