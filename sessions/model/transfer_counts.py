"""Arithmetic on transfer counts (`Tally`): sums, rates and histogram percentiles."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from kvdeck.sessions.model.records import PATHS, Percentiles, Tally

UNKNOWN_LAYOUT = "Unknown"
LAYOUTS = (
    "FullyContiguous",
    "LayerSeparate { outer_contiguous: false }",
    "LayerSeparate { outer_contiguous: true }",
)
"""Layouts, in display order."""
BUCKETS_AN_OCTAVE = 16


def ordered(tallies: Iterable[Tally]) -> tuple[Tally, ...]:
    """Sort by path, then by layout, in display order; unknown ones last, by name."""
    return tuple(sorted(tallies, key=lambda tally: (*_rank(PATHS, tally.path), *_rank(LAYOUTS, tally.layout))))


def _rank(known: Sequence[str], text: str) -> tuple[int, str]:
    return (known.index(text), "") if text in known else (len(known), text)


def added(tallies: Iterable[Tally]) -> tuple[Tally, ...]:
    """Merge into one tally per path and layout: sums, minimum and maximum, merged histograms."""
    groups: dict[tuple[str, str], list[Tally]] = {}
    for tally in tallies:
        groups.setdefault((tally.path, tally.layout), []).append(tally)
    return ordered(group[0] if len(group) == 1 else _sum(group) for group in groups.values())


def _sum(group: Sequence[Tally]) -> Tally:
    least = [tally.min_bytes for tally in group if tally.min_bytes is not None]
    sizes, times = Counter[int](), Counter[float]()
    for tally in group:
        sizes.update(dict(tally.sizes))
        times.update(dict(tally.times))
    return replace(
        group[0],
        **{name: sum(getattr(tally, name) for tally in group) for name in _SUMS},
        min_bytes=min(least, default=None),
        max_bytes=max(tally.max_bytes for tally in group),
        sizes=tuple(sorted(sizes.items())),
        times=tuple(sorted(times.items())),
        stated_bytes_per_s=_sum_known([tally.stated_bytes_per_s for tally in group]),
        stated_blocks_per_s=_sum_known([tally.stated_blocks_per_s for tally in group]),
    )


_SUMS = (
    *("transfers", "bytes", "blocks", "descriptors", "failures"),
    *("timed_transfers", "timed_bytes", "timed_blocks", "busy_s"),
)


def _sum_known(values: Sequence[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def average_bytes(tally: Tally) -> float:
    """Return the mean bytes per transfer; 0 without transfers."""
    return tally.bytes / tally.transfers if tally.transfers else 0.0


def gb_per_s(tally: Tally) -> float | None:
    """Return the rate of the timed transfers over the sum of their times, in GB/s; None without times."""
    return tally.timed_bytes / tally.busy_s / 1e9 if tally.busy_s > 0 else None


def seconds_a_block(tally: Tally) -> float | None:
    """Return the mean time per block in seconds; None without times or blocks."""
    return tally.busy_s / tally.timed_blocks if tally.timed_blocks and tally.busy_s > 0 else None


def pieces_a_block(tally: Tally) -> float | None:
    """Return descriptors per block, or transfers per block if descriptors were not counted; None without blocks."""
    return (tally.descriptors or tally.transfers) / tally.blocks if tally.blocks else None


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
