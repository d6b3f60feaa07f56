"""Exports of a telemetry session: flows over time as a table, samples as lines; streamed, so the length doesn't
matter."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson

from kvdeck.sessions.errors import SessionError, UsageError
from kvdeck.sessions.host.escapes import csv_text, visible
from kvdeck.sessions.host.files import write_output
from kvdeck.sessions.model.records import Session
from kvdeck.sessions.store.telemetry.delta import Moment
from kvdeck.sessions.store.telemetry.reader import MomentReader
from kvdeck.sessions.text.markdown import inline
from kvdeck.sessions.text.run_report import report_json
from kvdeck.sessions.text.telemetry_report import telemetry_lines

FORMATS = ("csv", "json", "jsonl", "kvdeck", "markdown")
"""`csv` and `json`: flows over time; `jsonl`: every sample, as printed by `kvdeck monitor --json`; `kvdeck` and
`markdown`: the totals."""
COLUMNS = (
    *("t", "source", "from", "to", "name", "metric", "bytes_total", "blocks_total", "bytes_per_s", "blocks_per_s"),
    *("bytes_gained", "blocks_gained", "transfers_total", "transfers_per_s", "seconds_total", "descriptors_total"),
    *("failures_total", "bytes_from_blocks"),
)


def pieces(session: Session, folder: Path, form: str) -> Iterator[bytes]:
    """Yield the export in chunks.

    Raises:
        UsageError: The format is unknown.
        SessionError: The format needs the samples, but only the totals are stored here.
    """
    if form not in FORMATS:
        raise UsageError(f"a telemetry session can't be written as {form!r}", f"use {', '.join(FORMATS)}")
    if form == "kvdeck":
        yield orjson.dumps(report_json(session), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    elif form == "markdown":
        yield markdown(session).encode()
    else:
        reader = MomentReader(folder)
        if not reader.segments:
            raise SessionError(
                f"the samples of session {session.name!r} are not on this host",
                "use the formats kvdeck or markdown, which hold its totals",
            )
        written: dict[str, Callable[[Iterable[Moment]], Iterator[bytes]]] = {
            "csv": _csv,
            "json": _json,
            "jsonl": lambda moments: (orjson.dumps(moment, option=orjson.OPT_APPEND_NEWLINE) for moment in moments),
        }
        yield from written[form](reader.moments())


def write(session: Session, folder: Path, form: str, path: Path) -> None:
    """Write the export to a file, atomically.

    Raises:
        UsageError: As for `pieces`.
        SessionError: As for `pieces`, or the file can't be written.
    """
    parts = pieces(session, folder, form)
    first = next(parts, b"")  # before anything is written: it may raise
    try:
        write_output(path, itertools.chain((first,), parts))
    except OSError as error:
        raise SessionError(f"can't write {path}: {error.strerror}", "choose another file") from error


def _rows(moment: Moment) -> Iterator[dict[str, Any]]:
    for flow in moment.get("flows", ()):
        yield {"t": moment["t"], **{name: flow.get(name) for name in COLUMNS[1:]}}


def _csv(moments: Iterable[Moment]) -> Iterator[bytes]:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for moment in moments:
        for row in _rows(moment):
            writer.writerow(["" if value is None else csv_text(value) for value in row.values()])
        yield out.getvalue().encode()
        out.seek(0)
        out.truncate()


def _json(moments: Iterable[Moment]) -> Iterator[bytes]:
    before = b"[\n"
    for moment in moments:
        for row in _rows(moment):
            yield before + orjson.dumps(row)
            before = b",\n"
    yield b"\n]\n" if before == b",\n" else b"[]\n"


def markdown(session: Session) -> str:
    """Return the totals as text under a heading; lines are indented, so Markdown preserves the columns."""
    heading, *lines = (line.text for line in telemetry_lines(session, 120))
    return "\n".join([f"## {inline(heading)}", "", *(f"    {visible(line)}" for line in lines), ""])
