"""The text report of transfer counts: all paths and layouts by name, in a stable order."""

from __future__ import annotations

from kvdeck.sessions import units
from kvdeck.sessions.model.records import Session, Tally
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
    tallies = session.tallies
    return (
        f"Benchmark '{session.name}': {many(sum(tally.transfers for tally in tallies), 'transfer')}, "
        f"{size_text(sum(tally.bytes for tally in tallies))} across {many(len(tallies), 'path')}"
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
    counted = [tally for tally in ordered(session.tallies) if tally.transfers or tally.failures]
    if not counted:
        return [*lines, Line(""), Line("No transfers counted yet."), *telemetry_inside(session, width)]
    for path in dict.fromkeys(tally.path for tally in counted):
        lines += [Line(""), *_path_lines(path, [tally for tally in counted if tally.path == path], width)]
    lines += [Line(""), *_totals(session, counted), *telemetry_inside(session, width)]
    return [*lines, Line("GB = 1e9 bytes, GiB = 2^30 bytes.")]


def _kind(session: Session) -> str:
    return {"trace": "trace, counted in running programs", "imported": "imported"}.get(session.kind, session.state)


def _path_lines(path: str, tallies: list[Tally], width: int) -> list[Line]:
    times = [time_percentiles(tally.times) for tally in tallies]
    timed = any(times)

    def column(over: str, head: str, cells: list[str], left: bool = False) -> TextColumn:
        return TextColumn(over, head, tuple(cells), left)

    named = layout_name if width >= 100 else short_layout_name
    columns = [
        column("", "layout", [named(tally.layout) for tally in tallies], left=True),
        column("", "transfers", [count_text(tally.transfers) for tally in tallies]),
        column("", "bytes", [size_text(tally.bytes) for tally in tallies]),
        column("", "blocks", [count_text(tally.blocks) for tally in tallies]),
        column("average", "size", [size_text(average_bytes(tally) if tally.transfers else None) for tally in tallies]),
        column("least", "size", [size_text(tally.min_bytes) for tally in tallies]),
        column("greatest", "size", [size_text(tally.max_bytes if tally.transfers else None) for tally in tallies]),
        column("desc.", "a block", [number_text(pieces_a_block(tally)) for tally in tallies]),
    ]
    if timed:
        columns += [
            column("time", "p50", [time_text(found.p50 if found else None) for found in times]),
            column("time", "p99", [time_text(found.p99 if found else None) for found in times]),
        ]
    if any(rates := [gb_per_s(tally) for tally in tallies]):
        columns.append(column("", "GB/s", [figure(rate) for rate in rates]))
    if any(tally.failures for tally in tallies):
        columns.append(column("", "failed", [count_text(tally.failures) for tally in tallies]))
    lines = [Line(path, "heading")]
    for part in _parts(columns, width):
        texts = render(part, width)
        heads = len(texts) - len(tallies)
        lines += [Line(text) for text in texts[:heads]]
        lines += [
            Line(text, "warning" if tally.failures else "plain")
            for text, tally in zip(texts[heads:], tallies, strict=True)
        ]
    return [*lines, *_stated(tallies)]


def _parts(columns: list[TextColumn], width: int) -> list[list[TextColumn]]:
    """Return the columns as one table, or split over two if they exceed the width."""
    if table_width(columns, 1) <= width:
        return [columns]
    half = (len(columns) + 1) // 2
    return [columns[:half], [columns[0], *columns[half:]]]


def _stated(tallies: list[Tally]) -> list[Line]:
    stated = [tally for tally in tallies if tally.stated_bytes_per_s]
    return [
        Line(f"  the file states {rate_text(tally.stated_bytes_per_s)} and {count_text(tally.stated_blocks_per_s)} "
             f"blocks/s for {short_layout_name(tally.layout)}, idle time included")
        for tally in stated
    ]  # fmt: skip


def _totals(session: Session, tallies: list[Tally]) -> list[Line]:
    size = sum(tally.bytes for tally in tallies)
    facts = [
        many(sum(tally.transfers for tally in tallies), "transfer"),
        size_text(size),
        many(sum(tally.blocks for tally in tallies), "block"),
    ]
    if session.duration_s:
        facts.append(f"{rate_text(size / session.duration_s)} over the session, idle time included")
    failures = sum(tally.failures for tally in tallies)
    facts += [f"{count_text(failures)} failed"] if failures else []
    return [Line("Total " + " · ".join(facts))]
