"""A traffic test as text: upstream's tables, the report of its session, and what its log adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kvdeck.sessions.model.measures import Interval
from kvdeck.sessions.model.traffic import PatternResult, RankResult, TrafficResult
from kvdeck.sessions.text.markdown import inline
from kvdeck.sessions.text.markdown import table as markdown_table
from kvdeck.sessions.units import many, size_text, time_text

DASH = "-"
_MOST_WRONG = 20
_MOST_ITERATIONS = 10
"""Tables of single iterations."""
MOST_RANKS = 32
"""Rows of a table per rank."""
_PATTERN_HEADS = ("Pattern", "Op", "Shards", "GB", "Latency (ms)", "p99 (ms)", "Alone (ms)", "Done (ms)", "Congestion",
                  "95 %", "GB/s", "Straggler")  # fmt: skip
UPSTREAM_HEADS = ("Transfer size (GB)", "Latency (ms)", "Isolated Latency (ms)", "Num Senders", "Mean BW (GB/s)")


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table's lines, columns flush right under their heads."""
    widths = [max(len(head), *(len(row[at]) for row in rows), 0) for at, head in enumerate(heads)]
    lines = [heads, ["-" * width for width in widths], *rows]
    return ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]


def number_cell(value: float | None, decimals: int = 3) -> str:
    """Return a number with so many decimals; a dash if it isn't known."""
    return DASH if value is None else f"{value:.{decimals}f}"


def _median(found: Interval | None, decimals: int = 3) -> str:
    return DASH if found is None else f"{found.median:.{decimals}f}"


def interval_cell(found: Interval | None, decimals: int = 2) -> str:
    """Return an interval as `LOW-HIGH`; a dash if it isn't known."""
    return f"{found.low:.{decimals}f}-{found.high:.{decimals}f}" if found is not None and found.known else DASH


def traffic_text(result: TrafficResult) -> list[str]:
    """Return the report of a test: what was started, its patterns, ranks, skew and verification."""
    if not result.patterns:
        return ["No patterns: nothing was run."]
    lines = [*placement_text(result), ""]
    if result.mode == "sequential":
        lines.append(f"Patterns, medians of {many(result.iterations, 'iteration')}; congestion = latency / alone")
    lines += pattern_table(result.patterns)
    lines += ["", *rank_table(result.rank_results), ""] if result.rank_results else [""]
    ends = "" if result.mode == "single" else " from the first start to the last end, sleeps included"
    lines.append(f"Aggregate: {number_cell(result.gb_per_s)} GB/s{ends}")
    lines += skew_text(result)
    return [*lines, *verified_text(result)]


def placement_text(result: TrafficResult) -> list[str]:
    """Return what was started and prepared."""
    where = "on this host" if not result.hosts else f"on this host and {', '.join(result.hosts)}"
    memory = ", ".join(dict.fromkeys(one.memory for one in result.patterns))
    if not result.processes:
        return [f"{many(len(result.patterns), 'pattern')} of NIXL's own tool; how its ranks lay is not in the file"]
    lines = [f"{many(result.ranks, 'rank')} in {_processes(result.processes)} {where}; {memory} over UCX"]
    if result.ranks > result.processes > 0:
        lines.append("Virtual ranks: a process plays several, which start one after the other")
    if result.prepared_s is not None and result.descriptors is not None:
        regions = "" if result.region_bytes is None else f"; regions of {size_text(result.region_bytes)}"
        lines.append(f"{many(result.descriptors, 'descriptor')} prepared in {result.prepared_s:.3f} s{regions}")
    return lines


def _processes(count: int) -> str:
    return f"{count} process{'es' * (count != 1)}"


def pattern_table(patterns: Sequence[PatternResult]) -> list[str]:
    """Return a row for each pattern."""
    return table(_PATTERN_HEADS, [_pattern_row(one) for one in patterns])


def _pattern_row(one: PatternResult) -> tuple[str, ...]:
    last = one.straggler
    times = one.together_us
    return (
        str(one.pattern),
        one.operation,
        str(one.shards),
        number_cell(one.bytes / 1e9),
        _median(one.together_ms),
        DASH if times is None else number_cell(times.p99 / 1e3),
        _median(one.alone_ms),
        number_cell(one.initiator_ms),
        _median(one.ratio, 2),
        interval_cell(one.ratio),
        number_cell(one.gb_per_s),
        DASH if last is None else f"rank {last.rank} ({last.times} of {last.of})",
    )


def rank_table(ranks: Sequence[RankResult]) -> list[str]:
    """Return a row for each rank; of many ranks the slowest, which are those to look at."""
    shown = list(ranks)
    if len(ranks) > MOST_RANKS:
        active = [one for one in ranks if one.gb_per_s is not None]
        shown = sorted(active, key=lambda one: one.gb_per_s or 0.0)[:MOST_RANKS]
    heads = ["Rank", "Moved (GB)", "BW (GB/s)", "Last"]
    rows = [[str(one.rank), number_cell(one.bytes / 1e9), number_cell(one.gb_per_s), str(one.last)] for one in shown]
    if any(one.host for one in ranks):
        heads.append("Host")
        for row, one in zip(rows, shown, strict=True):
            row.append(one.host or DASH)
    lines = table(heads, rows)
    return lines if len(shown) == len(ranks) else [f"The {len(rows)} slowest of {len(ranks)} ranks", *lines]


def skew_text(result: TrafficResult) -> list[str]:
    """Return how far apart processes started."""
    skew = result.skew_us
    if skew is None:
        return ["Start skew: - (never several processes with initiators)"]
    spread = f"p50 {time_text(skew.p50)}, p99 {time_text(skew.p99)}, max {time_text(skew.max)}"
    error = (
        "" if result.clock_error_us is None else f"; clocks of other hosts known to {time_text(result.clock_error_us)}"
    )
    return [f"Start skew between processes: {spread}{error}"]


def verified_text(result: TrafficResult) -> list[str]:
    """Return the outcome of the verification; nothing without one."""
    wrong = [text for one in result.patterns for text in one.wrong]
    if wrong:
        more = len(wrong) - _MOST_WRONG
        return ["Wrong bytes:", *wrong[:_MOST_WRONG], *([f"and {many(more, 'cell')} more"] if more > 0 else [])]
    if not result.verified:
        return []
    total = sum(one.bytes for one in result.patterns)
    return [f"Verified: all {total} bytes of {many(len(result.patterns), 'pattern')} are right, each checked alone"]


def traffic_markdown(result: TrafficResult) -> list[str]:
    """Return the patterns of a test as a Markdown table, and what was started."""
    heads, rows = _PATTERN_HEADS, [_pattern_row(one) for one in result.patterns]
    lines = [*(f"{inline(text)}  " for text in placement_text(result)), ""]
    return [*lines, *markdown_table(heads, rows, right=len(heads))]


def upstream_text(document: Mapping[str, Any]) -> list[str]:
    """Return the tables that NIXL's own tool prints of its result."""
    if "iterations_results" not in document:
        heads = "Iters", "Total time (s)", "Avg latency/iter (s)", "Total size (GB)"
        row = (str(document["iters"]), number_cell(document["total_time"], 6), number_cell(document["avg_latency"], 6),
               number_cell(document["size"], 6))  # fmt: skip
        return table(heads, [row])
    lines = []
    iterations = document["iterations_results"]
    for number, rows in enumerate(iterations[:_MOST_ITERATIONS]):
        cells = [(number_cell(row["size"]), number_cell(row["latency"]), number_cell(row["isolated_latency"]),
                  str(row["num_senders"]), number_cell(row["mean_bw"])) for row in rows]  # fmt: skip
        lines += [f"Iteration {number + 1}", *table(UPSTREAM_HEADS, cells), ""]
    if len(iterations) > _MOST_ITERATIONS:
        lines += [f"{many(len(iterations) - _MOST_ITERATIONS, 'iteration')} more: see --json-output-path", ""]
    return lines[:-1]


def received_text(received: Sequence[tuple[int, int, int, int, str, str]]) -> list[str]:
    """Return the beginning and the checksum of what each rank received."""
    lines = []
    for number in dict.fromkeys(one[0] for one in received):
        rows = [tuple(map(str, one[1:])) for one in received if one[0] == number]
        lines += [f"Received in pattern {number}", *table(("Rank", "From", "Bytes", "First bytes", "CRC-32"), rows), ""]
    return lines[:-1]
