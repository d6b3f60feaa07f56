"""Figures per path, layout and size, in one form for measured and counted sessions."""

from __future__ import annotations

import math

from msgspec import Struct

from kvdeck.sessions.model.records import PATHS, Interval, Session, StepResult, TransferCounts
from kvdeck.sessions.model.transfer_counts import LAYOUTS
from kvdeck.sessions.stats import LEAST_ROUNDS

LEAST_TIMED = 30
"""Minimum number of timed transfers for an interval of a trace's rate."""


class Entry(Struct, frozen=True):
    """Figures of one path and layout at one size, from a step result or from transfer counts."""

    path: str
    layout: str
    block_bytes: int | None
    batch: int | None
    transfers: int | None
    """Null, like bytes, blocks and descriptors, if the file that was imported doesn't have it."""
    bytes: int | None
    blocks: int | None
    descriptors: int | None
    timed_bytes: int
    timed_blocks: int
    busy_s: float
    gb_per_s: Interval | None
    stated_bytes_per_s: int | None = None
    rounds: int = 0
    """Rounds for `stats.verdict`: `LEAST_ROUNDS` if there is enough data for a verdict (timed transfers count as
    rounds), else 0."""


def entries(session: Session) -> list[Entry]:
    """Return a session's entries in display order."""
    found = [_of_result(result) for result in session.results if result.gb_per_s is not None]
    return sorted([*found, *map(_of_counts, session.transfer_counts)], key=_order)


def _order(entry: Entry) -> tuple[object, ...]:
    rank = PATHS.index(entry.path) if entry.path in PATHS else len(PATHS)
    layout = LAYOUTS.index(entry.layout) if entry.layout in LAYOUTS else len(LAYOUTS)
    return rank, entry.path, entry.block_bytes or 0, entry.batch or 0, layout, entry.layout


def _of_result(result: StepResult) -> Entry:
    counted = bool(result.iterations)
    blocks = result.bytes // result.block_bytes if result.block_bytes else 0
    rate = result.gb_per_s
    return Entry(
        path=result.path,
        layout=result.layout,
        block_bytes=result.block_bytes,
        batch=result.batch,
        transfers=result.iterations if counted else None,
        bytes=result.bytes if counted else None,
        blocks=blocks if counted else None,
        descriptors=blocks * result.descriptors_per_block if counted else None,
        timed_bytes=result.bytes,
        timed_blocks=blocks,
        busy_s=result.bytes / rate.median / 1e9 if rate and rate.median > 0 else 0.0,
        gb_per_s=rate,
        rounds=LEAST_ROUNDS if rate and rate.low < rate.high else 0,
    )


def _of_counts(counts: TransferCounts) -> Entry:
    return Entry(
        path=counts.path,
        layout=counts.layout,
        block_bytes=None,
        batch=None,
        transfers=counts.transfers,
        bytes=counts.bytes,
        blocks=counts.blocks,
        descriptors=counts.descriptors,
        timed_bytes=counts.timed_bytes,
        timed_blocks=counts.timed_blocks,
        busy_s=counts.busy_s,
        gb_per_s=_counted_rate(counts),
        stated_bytes_per_s=counts.stated_bytes_per_s,
        rounds=LEAST_ROUNDS if counts.timed_transfers >= LEAST_TIMED else 0,
    )


def _counted_rate(counts: TransferCounts) -> Interval | None:
    """Return bytes over time in GB/s, with the 95 % interval of the mean time from the histogram."""
    if counts.busy_s <= 0:
        return None
    rate = counts.timed_bytes / counts.busy_s / 1e9
    count = sum(n for _, n in counts.times)
    if count < LEAST_TIMED:
        return Interval(rate, rate, rate)
    mean = sum(edge * n for edge, n in counts.times) / count
    spread = sum((edge - mean) ** 2 * n for edge, n in counts.times) / (count - 1)
    error = min(0.9, 1.96 * math.sqrt(spread / count) / mean) if mean else 0.0
    return Interval(rate, rate / (1 + error), rate / (1 - error))
