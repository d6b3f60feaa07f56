"""Arithmetic on transfer counts: sums, rates and histogram percentiles."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from kvdeck.sessions.model.records import PATHS, Percentiles, TransferCounts

UNKNOWN_LAYOUT = "Unknown"
LAYOUTS = (
    "FullyContiguous",
    "LayerSeparate { outer_contiguous: false }",
    "LayerSeparate { outer_contiguous: true }",
)
"""Layouts, in display order."""
BUCKETS_AN_OCTAVE = 16


def ordered(transfer_counts: Iterable[TransferCounts]) -> tuple[TransferCounts, ...]:
    """Sort by path, then by layout, in display order; unknown ones last, by name."""
    return tuple(
        sorted(transfer_counts, key=lambda counts: (*_rank(PATHS, counts.path), *_rank(LAYOUTS, counts.layout)))
    )


def _rank(known: Sequence[str], text: str) -> tuple[int, str]:
    return (known.index(text), "") if text in known else (len(known), text)


def added(transfer_counts: Iterable[TransferCounts]) -> tuple[TransferCounts, ...]:
    """Merge into one record per path and layout: sums, minimum and maximum, merged histograms."""
    groups: dict[tuple[str, str], list[TransferCounts]] = {}
    for counts in transfer_counts:
        groups.setdefault((counts.path, counts.layout), []).append(counts)
    return ordered(group[0] if len(group) == 1 else _sum(group) for group in groups.values())


def _sum(group: Sequence[TransferCounts]) -> TransferCounts:
    least = [counts.min_bytes for counts in group if counts.min_bytes is not None]
    sizes, times = Counter[int](), Counter[float]()
    for counts in group:
        sizes.update(dict(counts.sizes))
        times.update(dict(counts.times))
    return replace(
        group[0],
        **{name: sum(getattr(counts, name) for counts in group) for name in _SUMS},
        min_bytes=min(least, default=None),
        max_bytes=max(counts.max_bytes for counts in group),
        sizes=tuple(sorted(sizes.items())),
        times=tuple(sorted(times.items())),
        stated_bytes_per_s=_sum_known([counts.stated_bytes_per_s for counts in group]),
        stated_blocks_per_s=_sum_known([counts.stated_blocks_per_s for counts in group]),
    )


_SUMS = (
    *("transfers", "bytes", "blocks", "descriptors", "failures"),
    *("timed_transfers", "timed_bytes", "timed_blocks", "busy_s"),
)


def _sum_known(values: Sequence[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def average_bytes(counts: TransferCounts) -> float:
    """Return the mean bytes per transfer; 0 without transfers."""
    return counts.bytes / counts.transfers if counts.transfers else 0.0


def gb_per_s(counts: TransferCounts) -> float | None:
    """Return the rate of the timed transfers over the sum of their times, in GB/s; None without times."""
    return counts.timed_bytes / counts.busy_s / 1e9 if counts.busy_s > 0 else None


def seconds_a_block(counts: TransferCounts) -> float | None:
    """Return the mean time per block in seconds; None without times or blocks."""
    return counts.busy_s / counts.timed_blocks if counts.timed_blocks and counts.busy_s > 0 else None


def pieces_a_block(counts: TransferCounts) -> float | None:
    """Return descriptors per block, or transfers per block if descriptors were not counted; None without blocks."""
    return (counts.descriptors or counts.transfers) / counts.blocks if counts.blocks else None


def time_percentiles(times: Sequence[tuple[float, int]]) -> Percentiles | None:
    """Return percentiles in µs from a histogram in seconds, using bucket middles (within 3 %); None if empty."""
    total = sum(count for _, count in times)
    if not total:
        return None
    quantiles = [_quantile(times, total, fraction) for fraction in (0.5, 0.9, 0.95, 0.99, 1.0)]
    mean = sum(middle(edge) * count for edge, count in times) / total
    p50, p90, p95, p99, greatest = (value * 1e6 for value in quantiles)
    return Percentiles(p50, p90, p95, p99, greatest, mean * 1e6)


def middle(edge: float) -> float:
    """Return the middle of the bucket that starts at `edge`; an octave has 16 buckets of equal width."""
    return edge + math.ldexp(0.5 / BUCKETS_AN_OCTAVE, math.frexp(edge)[1] - 1) if edge > 0 else 0.0


def _quantile(times: Sequence[tuple[float, int]], total: int, fraction: float) -> float:
    wanted, seen = fraction * total, 0
    for edge, count in times:
        seen += count
        if seen >= wanted:
            return middle(edge)
    return middle(times[-1][0])
