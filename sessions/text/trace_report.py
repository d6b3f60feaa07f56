"""The text report of transfer counts: all paths and layouts by name, in a stable order."""

from __future__ import annotations

from kvdeck.sessions import units
from kvdeck.sessions.model.records import Session, TransferCounts
from kvdeck.sessions.model.transfer_counts import average_bytes, gb_per_s, ordered, pieces_a_block, time_percentiles
from kvdeck.sessions.text.run_report import Line, telemetry_inside
from kvdeck.sessions.text.tables import TextColumn, joined, render, table_width
from kvdeck.sessions.units import (
    count_text,
    duration_text,
    figure,
    layout_name,
    many,
    number_text,
    rate_text,
    short_layout_name,
    size_text,
    time_text,
)


def summary_text(session: Session) -> str:
    """Return Dynamo's summary line: transfers, bytes, and the number of paths (one per path and layout)."""
    transfer_counts = session.transfer_counts
    return (
        f"Benchmark '{session.name}': {many(sum(counts.transfers for counts in transfer_counts), 'transfer')}, "
        f"{size_text(sum(counts.bytes for counts in transfer_counts))} across {many(len(transfer_counts), 'path')}"
    )


def trace_lines(session: Session, width: int) -> list[Line]:
    """Return the report of a session with transfer counts; 80 characters are enough for all columns."""
    lines = [Line(f"kvdeck session {session.name}: {_kind(session)}", "heading")]
    facts = [f"duration {duration_text(session.duration_s)}"] if session.duration_s is not None else []
    facts += [units.local_time(session.started or session.created)]
    facts += [str(session.host["hostname"])] if session.host.get("hostname") else []
    facts += [f"tags {', '.join(session.tags)}"] if session.tags else []
    lines += [Line(text) for text in joined(facts, width)]
    lines += [Line(text) for text in joined([session.note], width)] if session.note else []
    counted = [counts for counts in ordered(session.transfer_counts) if counts.transfers or counts.failures]
    if not counted:
        return [*lines, Line(""), Line("No transfers counted yet."), *telemetry_inside(session, width)]
    for path in dict.fromkeys(counts.path for counts in counted):
        lines += [Line(""), *_path_lines(path, [counts for counts in counted if counts.path == path], width)]
    lines += [Line(""), *_totals(session, counted), *telemetry_inside(session, width)]
    return [*lines, Line("GB = 1e9 bytes, GiB = 2^30 bytes.")]


def _kind(session: Session) -> str:
    return {"trace": "trace, counted in running programs", "imported": "imported"}.get(session.kind, session.state)


def _path_lines(path: str, transfer_counts: list[TransferCounts], width: int) -> list[Line]:
    times = [time_percentiles(counts.times) for counts in transfer_counts]
    timed = any(times)

    def column(over: str, head: str, cells: list[str], left: bool = False) -> TextColumn:
        return TextColumn(over, head, tuple(cells), left)

    named = layout_name if width >= 100 else short_layout_name
    columns = [
        column("", "layout", [named(counts.layout) for counts in transfer_counts], left=True),
        column("", "transfers", [count_text(counts.transfers) for counts in transfer_counts]),
        column("", "bytes", [size_text(counts.bytes) for counts in transfer_counts]),
        column("", "blocks", [count_text(counts.blocks) for counts in transfer_counts]),
        column(
            "average",
            "size",
            [size_text(average_bytes(counts) if counts.transfers else None) for counts in transfer_counts],
        ),
        column("least", "size", [size_text(counts.min_bytes) for counts in transfer_counts]),
        column(
            "greatest",
            "size",
            [size_text(counts.max_bytes if counts.transfers else None) for counts in transfer_counts],
        ),
        column("desc.", "a block", [number_text(pieces_a_block(counts)) for counts in transfer_counts]),
    ]
    if timed:
        columns += [
            column("time", "p50", [time_text(found.p50 if found else None) for found in times]),
            column("time", "p99", [time_text(found.p99 if found else None) for found in times]),
        ]
    if any(rates := [gb_per_s(counts) for counts in transfer_counts]):
        columns.append(column("", "GB/s", [figure(rate) for rate in rates]))
    if any(counts.failures for counts in transfer_counts):
        columns.append(column("", "failed", [count_text(counts.failures) for counts in transfer_counts]))
    lines = [Line(path, "heading")]
    for part in _parts(columns, width):
        texts = render(part, width)
        heads = len(texts) - len(transfer_counts)
        lines += [Line(text) for text in texts[:heads]]
        lines += [
            Line(text, "warning" if counts.failures else "plain")
            for text, counts in zip(texts[heads:], transfer_counts, strict=True)
        ]
    return [*lines, *_stated(transfer_counts)]


def _parts(columns: list[TextColumn], width: int) -> list[list[TextColumn]]:
    """Return the columns as one table, or split over two if they exceed the width."""
    if table_width(columns, 1) <= width:
        return [columns]
    half = (len(columns) + 1) // 2
    return [columns[:half], [columns[0], *columns[half:]]]


def _stated(transfer_counts: list[TransferCounts]) -> list[Line]:
    stated = [counts for counts in transfer_counts if counts.stated_bytes_per_s]
    return [
        Line(f"  the file states {rate_text(counts.stated_bytes_per_s)} and {count_text(counts.stated_blocks_per_s)} "
             f"blocks/s for {short_layout_name(counts.layout)}, idle time included")
        for counts in stated
    ]  # fmt: skip


def _totals(session: Session, transfer_counts: list[TransferCounts]) -> list[Line]:
    size = sum(counts.bytes for counts in transfer_counts)
    facts = [
        many(sum(counts.transfers for counts in transfer_counts), "transfer"),
        size_text(size),
        many(sum(counts.blocks for counts in transfer_counts), "block"),
    ]
    if session.duration_s:
        facts.append(f"{rate_text(size / session.duration_s)} over the session, idle time included")
    failures = sum(counts.failures for counts in transfer_counts)
    facts += [f"{count_text(failures)} failed"] if failures else []
    return [Line("Total " + " · ".join(facts))]
