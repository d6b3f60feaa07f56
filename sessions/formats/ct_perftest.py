"""The JSON file of NIXL's own `sequential-ct-perftest`, read as a session."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

import msgspec
from msgspec import Struct

from kvdeck.sessions.model.measures import Interval
from kvdeck.sessions.model.records import Session
from kvdeck.sessions.model.traffic import UNKNOWN_TRAFFIC, PatternResult, TrafficResult
from kvdeck.sessions.model.traffic_state import congestion, figure_interval
from kvdeck.sessions.stats import summarise

Number = int | float


class PerftestRow(Struct, frozen=True):
    """A pattern in one iteration: GB, ms, GB/s, seconds since 1970."""

    size: Number
    latency: Number | None
    isolated_latency: Number | None
    num_senders: int
    mean_bw: Number | None
    min_start_ts: Number | None
    max_end_ts: Number | None


class PerftestTimes(Struct, frozen=True):
    """What the file says about the whole."""

    ts: Number | None = None
    prepare_tp_time: Number | None = None
    finished_ts: Number | None = None


class PerftestFile(Struct, frozen=True):
    """The file."""

    iterations_results: tuple[tuple[PerftestRow, ...], ...]
    metadata: PerftestTimes


def is_perftest(document: Any) -> TypeGuard[dict[str, Any]]:
    """True if the document looks like such a file."""
    return isinstance(document, dict) and {"iterations_results", "metadata"} <= set(document)


def as_session(document: Mapping[str, Any], path: Path, changed: float) -> Session:
    """Return the session of such a file.

    Its isolated latency is one mean, without spread, so no ratio has an interval; its `mean_bw` is left out if all
    patterns have the same: NIXL's tool writes the last pattern's into every row.

    Raises:
        ValueError: A field is missing or has another type, or iterations have different patterns.
    """
    file = msgspec.convert(document, PerftestFile)
    counts = {len(rows) for rows in file.iterations_results}
    if len(counts) > 1:
        raise ValueError("its iterations have different numbers of patterns")
    patterns = tuple(_pattern(number, rows) for number, rows in enumerate(zip(*file.iterations_results, strict=True)))
    began, ended = file.metadata.ts, file.metadata.finished_ts
    return Session(
        path.stem,
        "done",
        began if began is not None else changed,
        started=began,
        ended=ended,
        kind="imported",
        source=str(path),
        traffic_result=TrafficResult(
            "sequential",
            0,
            0,
            iterations=len(file.iterations_results),
            patterns=_own_bandwidths(patterns),
            prepared_s=file.metadata.prepare_tp_time,
        ),
    )


def _pattern(number: int, rows: tuple[PerftestRow, ...]) -> PatternResult:
    together = [row.latency * 1e6 for row in rows if row.latency]
    alone = [row.isolated_latency * 1e6 for row in rows[:1] if row.isolated_latency]
    latency, isolated = figure_interval(together), figure_interval(alone)
    size = round(rows[0].size * 1e9)
    means = [row.mean_bw for row in rows if row.mean_bw is not None]
    return PatternResult(
        number,
        UNKNOWN_TRAFFIC,
        UNKNOWN_TRAFFIC,
        1,
        size,
        rows[0].num_senders,
        rows[0].num_senders,
        alone_ms=_in_ms(isolated),
        together_ms=_in_ms(latency),
        together_us=summarise([round(one) for one in together]),
        ratio=congestion(alone, together),
        gb_per_s=size / latency.median if latency is not None else None,
        mean_gb_per_s=sum(means) / len(means) if means else None,
    )


def _own_bandwidths(patterns: tuple[PatternResult, ...]) -> tuple[PatternResult, ...]:
    found = {one.mean_gb_per_s for one in patterns}
    if len(patterns) < 2 or len(found) > 1:
        return patterns
    return tuple(msgspec.structs.replace(one, mean_gb_per_s=None) for one in patterns)


def _in_ms(found: Interval | None) -> Interval | None:
    return found and Interval(found.median / 1e6, found.low / 1e6, found.high / 1e6)
