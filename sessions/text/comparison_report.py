"""A comparison of sessions as text and as Markdown: differences in setup, then the rows, then the insights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from kvdeck.sessions.analysis.compare import (
    Diff,
    Insight,
    Row,
    Side,
    key_text,
    percent_change,
    ratio_sentence,
    undecidable,
)
from kvdeck.sessions.text.markdown import inline, table
from kvdeck.sessions.text.run_report import Line, Tone
from kvdeck.sessions.text.tables import TextColumn, fit, render, wrapped
from kvdeck.sessions.text.telemetry_comparison_report import telemetry_diff_lines, telemetry_diff_markdown
from kvdeck.sessions.units import (
    UNKNOWN,
    bounded_text,
    change_text,
    count_text,
    figure,
    layout_name,
    many,
    number_text,
    ratio_text,
    shape_text,
    short_layout_name,
    size_text,
    time_text,
)

Key = tuple[str, "str | None", "int | None", "int | None"]
_TONES: dict[str | None, Tone] = {"slower": "bad", "faster": "heading"}
TELEMETRY = "Telemetry of that time"
"""Title of the telemetry recorded during the compared sessions."""


def diff_lines(diff: Diff, width: int = 100) -> list[Line]:
    """Return the comparison as text, at most `width` characters wide."""
    lines = [Line(text, "heading") for text in wrapped(f"A = {diff.a} · B = {diff.b}", width)]
    if diff.differences:
        lines.append(Line("These differ, so compare with care:", "warning"))
        lines += [Line(text, "warning") for item in diff.differences for text in wrapped(f"  {item}", width, "    ")]
    across = _across(diff)
    for title, rows in (("Across layouts", across), ("By path and layout", diff.keys)):
        if rows:
            lines += [Line(""), Line(title, "heading")]
        for row in rows:
            lines += _row_lines(row, width)
    if not across and not diff.keys:
        lines += [Line(""), Line("They have no path and layout in common.", "warning")]
    for name, keys in (("A", diff.only_a), ("B", diff.only_b)):
        if keys:
            lines += [Line(""), Line(f"Only in {name}")]
            lines += [Line(text) for key in keys for text in wrapped(f"  {key}", width, "    ")]
    lines += [Line(""), *_insight_lines(diff, width)]
    if diff.telemetry is not None:
        lines += [Line(""), Line(f"{TELEMETRY}:", "heading"), *telemetry_diff_lines(diff.telemetry, width)]
    return lines


def _row_lines(row: Row, width: int) -> list[Line]:
    sides, change = (row.a, row.b), _changes(row)

    def column(over: str, head: str, of: Callable[[Side], str], change: str, rank: int = 0) -> TextColumn:
        return TextColumn(over, head, (*map(of, sides), change), rank=rank)

    columns = [
        TextColumn("", "", ("A", "B", ""), left=True),
        TextColumn("", "layout", (*(_layouts(side) for side in sides), "change"), left=True),
        column("", "transfers", lambda side: count_text(side.transfers), change["transfers"], rank=2),
        column("", "bytes", lambda side: size_text(side.bytes), change["bytes"], rank=3),
        column("average", "size", lambda side: size_text(side.average_bytes), change["average"], rank=1),
        column("desc.", "a block", lambda side: number_text(side.descriptors_per_block), change["descriptors"]),
        column("time", "a block", lambda side: time_text(side.us_per_block), change["time"]),
        column("", "GB/s", _rate, change["rate"]),
    ]
    title = row.path + (f", {shape_text(row.block_bytes, row.batch)}" if row.block_bytes is not None else "")
    lines = [Line(title), *(Line(text[:width]) for text in render(fit(columns, width)[0], width))]
    return lines + [
        Line(text, _TONES.get(row.verdict, "plain")) for text in wrapped(f"  {ratio_sentence(row)}", width, "    ")
    ]


def _changes(row: Row) -> dict[str, str]:
    pairs = {
        "transfers": (row.a.transfers, row.b.transfers),
        "bytes": (row.a.bytes, row.b.bytes),
        "average": (row.a.average_bytes, row.b.average_bytes),
        "descriptors": (row.a.descriptors_per_block, row.b.descriptors_per_block),
        "time": (row.a.us_per_block, row.b.us_per_block),
        "rate": (row.a.gb_per_s, row.b.gb_per_s),
    }
    return {name: _percent(before, after) for name, (before, after) in pairs.items()}


def _percent(before: float | None, after: float | None) -> str:
    if before is None or after is None:
        return ""
    return change_text(percent_change(before, after))


def _layouts(side: Side) -> str:
    return "+".join(short_layout_name(layout) for layout in side.layouts)


def _rate(side: Side) -> str:
    return bounded_text(side.gb_per_s, side.low, side.high)


def insight_text(item: Insight) -> str:
    """Return an insight as a sentence with its change in percent."""
    percent = change_text(item.percent)
    return f"{key_text(item.path, layout_name(item.layout), item.block_bytes, item.batch)}: {item.text} ({percent})"


def _insight_lines(diff: Diff, width: int) -> Iterable[Line]:
    groups: tuple[tuple[str, Tone, list[Insight]], ...] = (
        ("Improvements", "heading", [item for item in diff.insights if item.judged and item.kind == "improvement"]),
        ("Regressions", "bad", [item for item in diff.insights if item.judged and item.kind == "regression"]),
        ("Changes of counts and stated rates, not judged", "plain", [i for i in diff.insights if not i.judged]),
    )
    for title, tone, items in groups:
        if items:
            yield Line(title, tone)
        for item in items:
            yield from (Line(piece) for piece in wrapped(f"  {insight_text(item)}", width, "    "))
    yield from (Line(piece) for text in _closing(diff) for piece in wrapped(text, width))


def _closing(diff: Diff) -> Iterable[str]:
    """Yield a sentence if rows can't be judged, and one if nothing changed."""
    if unsure := undecidable(diff):
        yield f"Undecided for {many(unsure, 'row')}: a single figure has no interval."
    if not diff.insights and unsure < len(diff.keys or diff.paths):
        yield "No significant performance changes detected."


def diff_markdown(diff: Diff) -> str:
    """Return the comparison as Markdown: two tables, and the insights as a list."""
    out = [f"## {inline(diff.a)} and {inline(diff.b)}", ""]
    if diff.differences:
        out += ["**These differ, so compare with care:**", "", *(f"- {inline(item)}" for item in diff.differences), ""]
    across = _across(diff)
    for title, rows in (("Across layouts", across), ("By path and layout", diff.keys)):
        if not rows:
            continue
        titles = "path", "A", "B", "transfers A → B", "desc./block A → B", "GB/s A → B", "B's time over A's", ""
        out += [f"### {title}", "", *table(titles, map(_markdown_cells, rows)), ""]
    for name, keys in (("A", diff.only_a), ("B", diff.only_b)):
        out += [inline(f"Only in {name}: {'; '.join(keys)}"), ""] if keys else []
    out += [f"- {item.kind}: {inline(insight_text(item))}" for item in diff.insights]
    out += _closing(diff)
    if diff.telemetry is not None:
        out += ["", telemetry_diff_markdown(diff.telemetry, f"{TELEMETRY}: ").rstrip("\n")]
    return "\n".join([*out, ""])


def _markdown_cells(row: Row) -> tuple[str, ...]:
    return (
        row.path + (f" {shape_text(row.block_bytes, row.batch)}" if row.block_bytes is not None else ""),
        _layouts(row.a),
        _layouts(row.b),
        f"{count_text(row.a.transfers)} → {count_text(row.b.transfers)}",
        f"{number_text(row.a.descriptors_per_block)} → {number_text(row.b.descriptors_per_block)}",
        f"{_rate(row.a)} → {_rate(row.b)}",
        ratio_text(row.ratio, row.low, row.high),
        row.verdict or "",
    )


def many_lines(diffs: Sequence[Diff], width: int = 100) -> list[Line]:
    """Return a table of several sessions against one baseline.

    It has a row per path, layout and shape, and a column of time ratios per session.
    """
    base = diffs[0].a
    lines = [Line(text, "heading") for text in wrapped(f"Baseline A = {base}", width)]
    letters = [chr(ord("B") + number) for number in range(len(diffs))]
    lines += [Line(text) for x, d in zip(letters, diffs, strict=True) for text in wrapped(f"{x} = {d.b}", width)]
    for letter, diff in zip(letters, diffs, strict=True):
        lines += [
            Line(text, "warning") for item in diff.differences for text in wrapped(f"{letter}: {item}", width, "   ")
        ]
    keys = list(dict.fromkeys(_key(row) for diff in diffs for row in (*_across(diff), *diff.keys)))
    rows = [{_key(row): row for row in (*_across(diff), *diff.keys)} for diff in diffs]
    columns = [
        TextColumn("", "path", tuple(key[0] for key in keys), left=True),
        TextColumn("", "layout", tuple(short_layout_name(key[1]) if key[1] else "across" for key in keys), left=True),
        TextColumn(
            "",
            "size",
            tuple(shape_text(key[2], key[3]) if key[2] is not None else "" for key in keys),
        ),
        TextColumn("A", "GB/s", tuple(_first_rate(rows, key) for key in keys)),
    ]
    for letter, found in zip(letters, rows, strict=True):
        columns.append(TextColumn(f"{letter}'s", "time", tuple(_many_cell(found.get(key)) for key in keys)))
    if not keys:
        return [*lines, Line(""), Line("They have no path and layout in common.", "warning")]
    table = [Line(text[:width]) for text in render(columns, width)]
    return [
        *lines,
        Line(""),
        *table,
        Line(""),
        Line("Time over A's for the same bytes: > slower, < faster, ~ same, ? undecided"),
    ]


def _across(diff: Diff) -> list[Row]:
    return [row for row in diff.paths if row.a.layouts != row.b.layouts]


def _key(row: Row) -> Key:
    return row.path, row.layout, row.block_bytes, row.batch


def _first_rate(rows: Sequence[dict[Key, Row]], key: Key) -> str:
    found = next(row[key] for row in rows if key in row)
    return figure(found.a.gb_per_s)


_VERDICTS = {"slower": ">", "faster": "<", "no difference": "~", "undecided": "?"}


def _many_cell(row: Row | None) -> str:
    if row is None or row.ratio is None:
        return f"{UNKNOWN}  "
    return f"{ratio_text(row.ratio)} {_VERDICTS.get(row.verdict or '', ' ')}"
