"""The comparison of two traffic tests as text and as Markdown."""

from __future__ import annotations

from kvdeck.sessions.analysis.compare_traffic import PatternRow, TrafficDiff
from kvdeck.sessions.model.measures import Interval
from kvdeck.sessions.text import markdown
from kvdeck.sessions.text.run_report import Line
from kvdeck.sessions.text.tables import wrapped
from kvdeck.sessions.text.traffic_report import DASH, interval_cell, number_cell, table
from kvdeck.sessions.units import ratio_text

_HEADS = ("Pattern", "A (ms)", "B (ms)", "Latency B/A", "95 %", "A congestion", "B congestion", "Change", "95 %",
          "Verdict")  # fmt: skip


def traffic_diff_lines(diff: TrafficDiff, width: int = 100) -> list[Line]:
    """Return the comparison: obstacles, then a row for each pattern."""
    lines = [Line(f"A: {diff.a}", "heading"), Line(f"B: {diff.b}", "heading")]
    for text in diff.differences:
        lines += [Line(part, "warning") for part in wrapped(f"  differs: {text}", width, "    ")]
    lines += [Line(""), *(Line(text) for text in table(_HEADS, [_cells(row) for row in diff.rows]))]
    for side, numbers in (("A", diff.only_a), ("B", diff.only_b)):
        if numbers:
            lines.append(Line(f"Only in {side}: pattern {', '.join(map(str, numbers))}"))
    closing = "Times in sequence, medians. Congestion = latency in sequence over alone; changes are B over A."
    return [*lines, Line(""), *(Line(part) for part in wrapped(closing, width))]


def traffic_diff_markdown(diff: TrafficDiff) -> str:
    """Return the comparison as Markdown."""
    lines = [f"## {markdown.inline(diff.a)} and {markdown.inline(diff.b)}", ""]
    lines += [f"- differs: {markdown.inline(text)}" for text in diff.differences]
    lines += ["", *markdown.table(_HEADS, [_cells(row) for row in diff.rows], right=10), ""]
    return "\n".join(lines)


def _cells(row: PatternRow) -> tuple[str, ...]:
    return (
        str(row.pattern),
        _median(row.a.together_ms),
        _median(row.b.together_ms),
        _times(row.latency),
        interval_cell(row.latency),
        _median(row.a.ratio, 2),
        _median(row.b.ratio, 2),
        _times(row.ratio),
        interval_cell(row.ratio),
        row.verdict or DASH,
    )


def _median(found: Interval | None, decimals: int = 3) -> str:
    return number_cell(None if found is None else found.median, decimals)


def _times(found: Interval | None) -> str:
    return DASH if found is None else ratio_text(found.median)
