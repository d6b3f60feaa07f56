"""Results of a traffic test as text: upstream's tables, and kvdeck's beside them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from kvdeck.engine.traffic.config import TrafficPattern
from kvdeck.engine.traffic.figures import latency_ns, pattern_figures, rank_bandwidths, start_skews
from kvdeck.engine.traffic.ranks_here import PatternVisit
from kvdeck.sessions.stats import percentile
from kvdeck.sessions.units import many, size_text, time_text

_DASH = "-"
_MOST_WRONG = 20
_MOST_ITERATIONS = 10
"""Tables of single iterations."""
_MOST_RANKS = 32
"""Rows of a table per rank."""


class Placed(Protocol):
    """What the texts need of the ranks' placement."""

    @property
    def ranks(self) -> int: ...
    @property
    def processes(self) -> int: ...
    @property
    def region_bytes(self) -> int: ...
    @property
    def descriptors(self) -> int: ...
    @property
    def prepare_s(self) -> float: ...
    @property
    def process_of(self) -> Callable[[int], int]: ...


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table's lines, columns flush right under their heads."""
    widths = [max(len(head), *(len(row[at]) for row in rows), 0) for at, head in enumerate(heads)]
    lines = [heads, ["-" * width for width in widths], *rows]
    return ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]


def _number(value: float | None, decimals: int = 3) -> str:
    return _DASH if value is None else f"{value:.{decimals}f}"


def placement_lines(placed: Placed) -> list[str]:
    """Return what was started and prepared."""
    shared = placed.ranks > placed.processes
    virtual = ["Virtual ranks: a process plays several, which start one after the other"] if shared else []
    processes = f"{placed.processes} process{'es' * (placed.processes > 1)}"
    prepared = f"{many(placed.descriptors, 'descriptor')} prepared in {placed.prepare_s:.3f} s"
    return [
        f"{many(placed.ranks, 'rank')} in {processes} on this host; host memory over UCX",
        *virtual,
        f"{prepared}; regions of {size_text(placed.region_bytes)}",
    ]


def single_lines(
    pattern: TrafficPattern, visit: PatternVisit | None, iterations: int, placed: Placed
) -> list[str]:  # fmt: skip
    """Return the lines of `ct-perftest`."""
    seconds = None if visit is None else latency_ns(visit) / 1e9
    each = None if seconds is None else seconds / iterations
    row = str(iterations), _number(seconds, 6), _number(each, 6), _number(pattern.matrix.total / 1e9, 6)
    lines = [*placement_lines(placed), ""]
    lines += table(("Iters", "Total time (s)", "Avg latency/iter (s)", "Total size (GB)"), [row])
    visits = [] if visit is None else [visit]
    lines += ["", *_rank_lines([pattern], visits, placed.ranks), ""]
    total = None if seconds is None else pattern.matrix.total * iterations / seconds / 1e9
    return [*lines, f"Aggregate: {_number(total)} GB/s", *_skew_lines(visits, placed)]


def single_json(pattern: TrafficPattern, visit: PatternVisit | None, iterations: int) -> dict[str, Any]:
    """Return the result of `ct-perftest`, which upstream only prints."""
    seconds = None if visit is None else latency_ns(visit) / 1e9
    ranks = rank_bandwidths([pattern], [] if visit is None else [visit], pattern.matrix.ranks)
    return {
        "iters": iterations,
        "total_time": seconds,
        "avg_latency": None if seconds is None else seconds / iterations,
        "size": pattern.matrix.total / 1e9,
        "rank_bw": [bandwidth for _, bandwidth in ranks],
    }


def sequential_lines(
    patterns: Sequence[TrafficPattern],
    rows: Sequence[Sequence[dict[str, Any]]],
    isolated: Sequence[Sequence[PatternVisit]],
    passes: Sequence[dict[int, PatternVisit]],
    placed: Placed,
) -> list[str]:
    """Return the lines of `sequential-ct-perftest`: upstream's table per iteration, and the figures over all."""
    heads = "Transfer size (GB)", "Latency (ms)", "Isolated Latency (ms)", "Num Senders", "Mean BW (GB/s)"
    lines = placement_lines(placed)
    for number, iteration in enumerate(rows[:_MOST_ITERATIONS]):
        cells = [(_number(row["size"]), _number(row["latency"]), _number(row["isolated_latency"]),
                  str(row["num_senders"]), _number(row["mean_bw"])) for row in iteration]  # fmt: skip
        lines += ["", f"Iteration {number + 1}", *table(heads, cells)]
    if len(rows) > _MOST_ITERATIONS:
        lines += ["", f"{many(len(rows) - _MOST_ITERATIONS, 'iteration')} more: see --json-output-path"]
    lines += ["", f"Patterns, medians of {many(len(rows), 'iteration')}; congestion = latency / isolated latency"]
    lines += _pattern_lines(patterns, isolated, passes)
    visits = [visit for one in passes for visit in one.values()]
    lines += ["", *_rank_lines(patterns, visits, placed.ranks), ""]
    spans = [
        max(part.end for visit in one.values() for part in visit.ranks.values())
        - min(part.start for visit in one.values() for part in visit.ranks.values())
        for one in passes
        if one
    ]
    total = sum(pattern.matrix.total for pattern in patterns)
    aggregate = total * len(spans) / sum(spans) if spans else None
    lines.append(f"Aggregate: {_number(aggregate)} GB/s from the first start to the last end, sleeps included")
    return [*lines, *_skew_lines([*itertools.chain.from_iterable(isolated), *visits], placed)]


def _pattern_lines(
    patterns: Sequence[TrafficPattern],
    isolated: Sequence[Sequence[PatternVisit]],
    passes: Sequence[dict[int, PatternVisit]],
) -> list[str]:
    heads = (
        "Pattern",
        "Op",
        "Shards",
        "Latency (ms)",
        "Initiator done (ms)",
        "Congestion",
        "95 %",
        "GB/s",
        "Straggler",
    )
    rows = []
    for number, pattern in enumerate(patterns):
        found = pattern_figures(pattern, isolated[number], [one[number] for one in passes if number in one])
        interval = found.interval and f"{found.interval.low:.2f}-{found.interval.high:.2f}"
        last = found.straggler and f"rank {found.straggler[0]} ({found.straggler[1]} of {found.straggler[2]})"
        rows.append((str(number), pattern.operation, str(pattern.shards), _number(found.latency_ms),
                     _number(found.initiator_ms), _number(found.ratio, 2), interval or _DASH,
                     _number(found.aggregate), last or _DASH))  # fmt: skip
    return table(heads, rows)


def _rank_lines(patterns: Sequence[TrafficPattern], visits: Sequence[PatternVisit], ranks: int) -> list[str]:
    found = list(enumerate(rank_bandwidths(patterns, visits, ranks)))
    shown = found
    if ranks > _MOST_RANKS:  # the slowest, which are those to look at
        active = [row for row in found if row[1][1] is not None]
        shown = sorted(active, key=lambda row: row[1][1] or 0.0)[:_MOST_RANKS]
    rows = [(str(rank), _number(size / 1e9), _number(bandwidth)) for rank, (size, bandwidth) in shown]
    lines = table(("Rank", "Moved (GB)", "BW (GB/s)"), rows)
    return lines if shown is found else [f"The {len(rows)} slowest of {ranks} ranks", *lines]


def _skew_lines(visits: Sequence[PatternVisit], placed: Placed) -> list[str]:
    skews = sorted(start_skews(visits, placed.process_of))
    if not skews:
        return ["Start skew: - (never several processes with initiators)"]
    p50, p99 = (percentile(skews, fraction) / 1e3 for fraction in (0.5, 0.99))
    spread = f"p50 {time_text(p50)}, p99 {time_text(p99)}, max {time_text(skews[-1] / 1e3)}"
    return [f"Start skew between processes: {spread} over {many(len(skews), 'start')}"]


def verified_lines(patterns: Sequence[TrafficPattern], wrong: Sequence[str]) -> list[str]:
    """Return the outcome of the verification."""
    if not wrong:
        total = sum(pattern.matrix.total for pattern in patterns)
        return [f"Verified: all {total} bytes of {many(len(patterns), 'pattern')} are right, each checked alone"]
    more = len(wrong) - _MOST_WRONG
    return ["Wrong bytes:", *wrong[:_MOST_WRONG], *([f"and {many(more, 'cell')} more"] if more > 0 else [])]


def received_lines(number: int, heads: Sequence[Sequence[Any]]) -> list[str]:
    """Return the beginning and the checksum of what each rank received in a pattern."""
    rows = [(str(to), str(source), str(size), first, crc) for to, source, size, first, crc in heads]
    return [f"Received in pattern {number}", *table(("Rank", "From", "Bytes", "First bytes", "CRC-32"), rows), ""]
