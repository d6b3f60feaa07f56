"""Figures of a traffic test from the times of its visits, in upstream's units: GB (1e9 bytes), ms, GB/s, epoch s."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from kvdeck.engine.traffic.config import TrafficPattern
from kvdeck.engine.traffic.ranks_here import PatternVisit
from kvdeck.sessions.model.records import Interval
from kvdeck.sessions.stats import independent_ratio, median_interval

LEAST_VALUES = 6
"""Values from which on the extremes cover 95 % of a median's distribution."""


@dataclass(frozen=True, slots=True)
class PatternFigures:
    """One pattern over all iterations; None where nothing moves or nothing was measured."""

    size: int
    """Bytes of one iteration."""
    latency_ms: float | None
    """Median time from the first initiator's start to the last end; an end is the notification's arrival for WRITE."""
    initiator_ms: float | None
    """The same to the last initiator's own completion."""
    isolated_ms: float | None
    """Median latency alone."""
    ratio: float | None
    """Congestion ratio: latency over isolated latency."""
    interval: Interval | None
    """The ratio's 95 % interval; None below `LEAST_VALUES` iterations of either."""
    aggregate: float | None
    """Bytes over median latency, GB/s."""
    straggler: tuple[int, int, int] | None
    """Rank that ended last most often, how often, and of how many; None with one initiator."""


def latency_ns(visit: PatternVisit) -> int:
    """Return the time from the first initiator's start to the last one's end."""
    parts = visit.ranks.values()
    return max(part.end for part in parts) - min(part.start for part in parts)


def pattern_figures(
    pattern: TrafficPattern, isolated: Sequence[PatternVisit], workload: Sequence[PatternVisit]
) -> PatternFigures:
    """Return a pattern's figures from its visits alone and in the workload; both may be empty."""
    total = pattern.matrix.total
    if not workload:
        return PatternFigures(total, None, None, _median_ms(map(latency_ns, isolated)), None, None, None, None)
    alone, together = [latency_ns(one) for one in isolated], [latency_ns(one) for one in workload]
    done = [max(part.done for part in one.ranks.values()) - min(part.start for part in one.ranks.values())
            for one in workload]  # fmt: skip
    latency, isolated_ms = _median_ms(together), _median_ms(alone)
    assert latency is not None
    near, far = median_interval(alone), median_interval(together)
    sure = min(len(alone), len(together)) >= LEAST_VALUES and near is not None and far is not None
    return PatternFigures(
        total,
        latency,
        _median_ms(done),
        isolated_ms,
        latency / isolated_ms if isolated_ms else None,
        independent_ratio(near, far) if sure and near is not None and far is not None else None,
        total / latency / 1e6,
        _straggler(workload),
    )


def _median_ms(times: Any) -> float | None:
    values = list(times)
    return statistics.median(values) / 1e6 if values else None


def _straggler(visits: Sequence[PatternVisit]) -> tuple[int, int, int] | None:
    if len(visits[0].ranks) < 2:
        return None
    last = Counter(max(visit.ranks, key=lambda rank, visit=visit: visit.ranks[rank].end) for visit in visits)  # type: ignore[misc]
    rank, times = last.most_common(1)[0]
    return rank, times, len(visits)


def rank_bandwidths(
    patterns: Sequence[TrafficPattern], visits: Sequence[PatternVisit], ranks: int
) -> list[tuple[int, float | None]]:
    """Return each rank's bytes as initiator, and those over its own time, in GB/s; None if it initiates nothing."""
    size, time_ns = [0] * ranks, [0] * ranks
    for visit in visits:
        for rank, part in visit.ranks.items():
            size[rank] += patterns[visit.pattern].initiated(rank) * visit.count
            time_ns[rank] += part.end - part.start
    return [(moved, moved / spent if spent else None) for moved, spent in zip(size, time_ns, strict=True)]


def start_skews(visits: Sequence[PatternVisit], process_of: Callable[[int], int]) -> list[int]:
    """Return, for each visit with initiators in several processes, the ns from the first one's start to the last's."""
    found = []
    for visit in visits:
        first: dict[int, int] = {}
        for rank, part in visit.ranks.items():
            process = process_of(rank)
            first[process] = min(part.start, first.get(process, part.start))
        if len(first) > 1:
            found.append(max(first.values()) - min(first.values()))
    return found


def upstream_row(
    pattern: TrafficPattern, isolated: Sequence[PatternVisit], visit: PatternVisit | None, epoch_ns: int
) -> dict[str, Any]:
    """Return a pattern's row of one iteration, as upstream's JSON has it; null where it moves nothing.

    Args:
        pattern: The pattern.
        isolated: Its visits alone.
        visit: Its visit in the iteration; None if it has no initiators.
        epoch_ns: What the clock of the visits is to be increased by, to be the time since 1970.
    """
    row: dict[str, Any] = {
        "size": pattern.matrix.total / 1e9,
        "latency": None,
        "isolated_latency": statistics.fmean(map(latency_ns, isolated)) / 1e6 if isolated else None,
        "num_senders": len(pattern.matrix.senders),
        "mean_bw": None,
        "min_start_ts": None,
        "max_end_ts": None,
    }
    if visit is not None:
        row["latency"] = latency_ns(visit) / 1e6
        row["mean_bw"] = statistics.fmean(
            pattern.initiated(rank) / (part.end - part.start) for rank, part in visit.ranks.items()
        )
        row["min_start_ts"] = (min(part.start for part in visit.ranks.values()) + epoch_ns) / 1e9
        row["max_end_ts"] = (max(part.end for part in visit.ranks.values()) + epoch_ns) / 1e9
    return row
