"""A comparison of two telemetry sessions as text and as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kvdeck.sessions.analysis.compare import percent_change
from kvdeck.sessions.analysis.compare_telemetry import FlowRow, LatencyRow, NumberRow, TelemetryDiff
from kvdeck.sessions.buckets import Quantile
from kvdeck.sessions.model.telemetry import FlowTotals
from kvdeck.sessions.text.markdown import inline, table
from kvdeck.sessions.text.run_report import Line, Tone
from kvdeck.sessions.text.tables import TextColumn, fit, render, wrapped
from kvdeck.sessions.text.telemetry_report import NOTE, arrow, moved_text, p95_text, rate_text
from kvdeck.sessions.units import UNKNOWN, change_text, duration_text, quantity_text, range_text, ratio_text

_TONES: dict[str | None, Tone] = {"faster": "heading", "slower": "bad"}


def telemetry_diff_lines(diff: TelemetryDiff, width: int = 100) -> list[Line]:
    """Return the comparison as text, at most `width` characters wide."""
    lines = [Line(text, "heading") for text in wrapped(_title(diff), width)]
    if diff.differences:
        lines.append(Line("These differ, so compare with care:", "warning"))
        lines += [Line(text, "warning") for item in diff.differences for text in wrapped(f"  {item}", width, "    ")]
    if diff.latencies:
        lines += [Line(text, "heading") for text in wrapped(diff.conclusion, width)]
        lines += [Line(""), Line("Latencies", "heading"), *_latency_lines(diff.latencies, width)]
    moving = [row for row in diff.flows if _moved(row.a) or _moved(row.b)]
    if moving:
        lines += [Line(""), Line("Flows", "heading")]
    for index, row in enumerate(moving):
        lines += [Line("")] * bool(index) + _flow_lines(row, width)
    if not moving:
        lines += [Line(""), Line("Neither has transfers in a common flow.", "warning")]
    still = dict.fromkeys(f"{arrow(row.a)} {row.a.name}" for row in diff.flows if row not in moving)
    if still:
        lines += [Line(text) for text in wrapped(f"Moved in neither: {'; '.join(still)}", width, "  ")]
    for title, rows in _tables(diff):
        lines += [Line(""), Line(title, "heading"), *_number_lines(rows, width)]
    for name, texts in (("A", diff.only_a), ("B", diff.only_b)):
        if texts:
            lines += [Line(""), Line(f"Only in {name}")]
            lines += [Line(text) for item in texts for text in wrapped(f"  {item}", width, "    ")]
    return [*lines, Line(""), *(Line(text) for text in wrapped(NOTE, width))]


def _tables(diff: TelemetryDiff) -> Iterable[tuple[str, Sequence[NumberRow]]]:
    for title, rows in (
        ("Queues and caches, medians", [row for row in diff.gauges if row.a or row.b]),
        ("Hits per query", diff.hit_rates),
        ("Counted over the session", diff.counters),
    ):
        if rows:
            yield title, rows


def _title(diff: TelemetryDiff) -> str:
    lengths = [duration_text(seconds) for seconds in diff.durations_s]
    return f"A = {diff.a} ({lengths[0]}) · B = {diff.b} ({lengths[1]})"


def _moved(flow: FlowTotals) -> bool:
    return bool(flow.rate is not None or flow.bytes_moved or flow.blocks_moved)


def ratio_sentence(row: FlowRow) -> str:
    """Return the ratio of a flow's rates (B over A) as a sentence, with its 95 % interval."""
    if row.ratio is None:
        return "no rate in both" if not (_moved(row.a) and _moved(row.b)) else "no rate to compare"
    if row.low is None or row.high is None:
        return f"B moves at {ratio_text(row.ratio)} A's rate: undecided, too few samples with transfers"
    return f"B moves at {ratio_text(row.ratio)} A's rate (95 % {range_text(row.low, row.high)}): {row.trend}"


def _flow_lines(row: FlowRow, width: int) -> list[Line]:
    sides = (row.a, row.b)
    change = _changes(row)
    p95 = tuple(p95_text(side) for side in sides)
    columns = [
        TextColumn("", "", ("A", "B", ""), left=True),
        TextColumn("", "moved", (*map(moved_text, sides), change["moved"])),
        TextColumn("", "blocks", (*(quantity_text(side.blocks_moved, "") for side in sides), change["blocks"]), rank=4),
        TextColumn("", "moving", (*(duration_text(side.moving_s) for side in sides), ""), rank=3),
        TextColumn(
            "median rate", "while moving", (*(rate_text(side.rate, side.unit) for side in sides), change["rate"])
        ),
        TextColumn("", "p95", (*p95, change["p95"]), rank=2),
        TextColumn("", "mean", (*(quantity_text(side.mean, side.unit) for side in sides), change["mean"]), rank=1),
        TextColumn("", "failed", (*(quantity_text(side.failures, "") for side in sides), ""), rank=5),
    ]
    title = f"{arrow(row.a)}  {row.a.name}"
    sources = row.a.source if row.same_source else f"{row.a.source} and {row.b.source}, matched by kind"
    lines = [Line(text) for text in wrapped(f"{title} · {sources}", width, "  ")]
    lines += [Line(text[:width]) for text in render(fit(columns, width)[0], width)]
    tone = _TONES.get(row.trend, "plain")
    return lines + [Line(text, tone) for text in wrapped(f"  {ratio_sentence(row)}", width, "    ")]


def _changes(row: FlowRow) -> dict[str, str]:
    a, b = row.a, row.b
    pairs = {
        "moved": (a.blocks_moved, b.blocks_moved) if a.bytes_moved is None else (a.bytes_moved, b.bytes_moved),
        "blocks": (a.blocks_moved, b.blocks_moved),
        "rate": (a.rate.median if a.rate else None, b.rate.median if b.rate else None),
        "p95": (a.rate.p95 if a.rate else None, b.rate.p95 if b.rate else None),
        "mean": (a.mean, b.mean),
    }
    return {name: _percent(before, after) for name, (before, after) in pairs.items()}


def _percent(before: float | None, after: float | None) -> str:
    if before is None or after is None:
        return ""
    return change_text(percent_change(before, after))


def _quantile_text(found: Quantile | None, unit: str) -> str:
    if found is None:
        return UNKNOWN
    return f"> {quantity_text(found.low, unit)}" if found.value is None else quantity_text(found.value, unit)


def _pair_text(pair: tuple[Quantile | None, Quantile | None], unit: str) -> str:
    return " → ".join(_quantile_text(found, unit) for found in pair)


def _latency_cells(row: LatencyRow) -> tuple[str, ...]:
    means = " → ".join(quantity_text(mean, row.unit) for mean in row.means)
    counts = " → ".join(quantity_text(count, "") for count in row.counts)
    percentiles = (_pair_text(pair, row.unit) for pair in (row.p50, row.p95, row.p99))
    return row.what, counts, means, *percentiles, row.trend or ""


_LATENCY_TITLES = ("of", "count", "mean", "p50", "p95", "p99", "B by its median")
_LATENCY_NOTE = "Percentiles are interpolated in histograms' buckets; B is faster or slower if these don't overlap."


def _latency_lines(rows: Sequence[LatencyRow], width: int) -> list[Line]:
    cells = list(zip(*map(_latency_cells, rows), strict=True))
    ranks = (0, 3, 2, 0, 1, 0, 0)
    columns = [
        TextColumn("", title, tuple(texts), left=title == "of", rank=rank)
        for title, texts, rank in zip(_LATENCY_TITLES, cells, ranks, strict=True)
    ]
    table_lines = [Line(text[:width]) for text in render(fit(columns, width)[0], width)]
    return [*table_lines, *(Line(text) for text in wrapped(f"  {_LATENCY_NOTE}", width, "  "))]


def _number_lines(rows: Sequence[NumberRow], width: int) -> list[Line]:
    columns = [
        TextColumn("", "", tuple(row.name for row in rows), left=True),
        TextColumn("", "A", tuple(quantity_text(row.a, row.unit) for row in rows)),
        TextColumn("", "B", tuple(quantity_text(row.b, row.unit) for row in rows)),
        TextColumn("", "change", tuple(_percent(row.a, row.b) for row in rows), rank=1),
    ]
    return [Line(text[:width]) for text in render(fit(columns, width)[0], width)]


def telemetry_diff_markdown(diff: TelemetryDiff, before: str = "") -> str:
    """Return the comparison as Markdown; its title begins with `before`."""
    out = [f"## {before}{inline(_title(diff))}", ""]
    if diff.differences:
        out += ["**These differ, so compare with care:**", "", *(f"- {inline(item)}" for item in diff.differences), ""]
    if diff.latencies:
        out += [inline(diff.conclusion), "", "### Latencies", ""]
        out += [*table(_LATENCY_TITLES, map(_latency_cells, diff.latencies)), "", _LATENCY_NOTE, ""]
    rows = [row for row in diff.flows if _moved(row.a) or _moved(row.b)]
    if rows:
        titles = "move", "flow", "moved A → B", "median rate while moving", "p95", "mean", "B's rate over A's", ""
        out += ["### Flows", "", *table(titles, map(_markdown_cells, rows)), ""]
    for title, numbers in _tables(diff):
        cells = [(n.name, quantity_text(n.a, n.unit), quantity_text(n.b, n.unit), _percent(n.a, n.b)) for n in numbers]
        out += [f"### {title}", "", *table(("", "A", "B", "change"), cells, right=3), ""]
    for name, texts in (("A", diff.only_a), ("B", diff.only_b)):
        out += [inline(f"Only in {name}: {'; '.join(texts)}"), ""] if texts else []
    return "\n".join([*out, NOTE, ""])


def _markdown_cells(row: FlowRow) -> tuple[str, ...]:
    a, b = row.a, row.b
    p95 = [p95_text(side) for side in (a, b)]
    return (
        arrow(a),
        a.name,
        f"{moved_text(a)} → {moved_text(b)}",
        f"{rate_text(a.rate, a.unit)} → {rate_text(b.rate, b.unit)}",
        f"{p95[0]} → {p95[1]}",
        f"{quantity_text(a.mean, a.unit)} → {quantity_text(b.mean, b.unit)}",
        ratio_text(row.ratio, row.low, row.high),
        row.trend or "",
    )
