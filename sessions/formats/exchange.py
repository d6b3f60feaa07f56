"""Import and export of sessions: kvdeck's JSON, Dynamo's JSON, its CSV, Markdown and Parquet."""

from __future__ import annotations

import codecs
import csv
import io
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from kvdeck.sessions import units
from kvdeck.sessions.errors import ImportedFileError, SessionError, UsageError
from kvdeck.sessions.formats import ct_perftest, dynamo, parquet
from kvdeck.sessions.formats.nixlbench import as_sessions, is_cloudai, is_nixlbench, seems_nixlbench
from kvdeck.sessions.host.documents import DocumentError, RefusedError, load_json
from kvdeck.sessions.host.escapes import csv_text as csv_cell
from kvdeck.sessions.host.escapes import visible
from kvdeck.sessions.host.files import MAX_DOCUMENT, open_regular
from kvdeck.sessions.model.encoding import checked, convert, encode_document
from kvdeck.sessions.model.records import Session, TransferCounts
from kvdeck.sessions.model.transfer_counts import average_bytes, gb_per_s, ordered, pieces_a_block
from kvdeck.sessions.text.markdown import inline, table
from kvdeck.sessions.text.nixlbench_report import nixlbench_table
from kvdeck.sessions.text.run_report import report_json, verdict_text
from kvdeck.sessions.text.traffic_report import traffic_markdown
from kvdeck.sessions.units import count_text, figure, layout_name, many, number_text, plain_text, size_text

CSV_HEADER = (
    *("transfer_path", "layout_type", "transfer_count", "total_bytes", "total_blocks", "avg_transfer_size"),
    *("min_transfer_size", "max_transfer_size", "transfer_rate_bps", "block_rate_bps"),
)
FORMATS = ("json", "csv", "kvdeck", "markdown", "parquet")
"""`json` is Dynamo's format; `kvdeck` is kvdeck's own and lossless."""
_LONGEST_HEAD = 4096
"""Characters of a CSV file's first line that are looked at."""
_SUFFIXES = {".csv": "csv", ".md": "markdown", ".parquet": "parquet", ".jsonl": "jsonl"}
MOST_BYTES = MAX_DOCUMENT
"""Maximum bytes of an imported file: larger ones take seconds to read, and no session that can be imported is as
large."""


def format_of(path: Path) -> str:
    """Return the format that a file's name suggests."""
    if path.name.endswith(".kvdeck.json"):
        return "kvdeck"
    return _SUFFIXES.get(path.suffix.lower(), "json")


def encode(session: Session, form: str) -> bytes:
    """Return a session as a file of the given format.

    Raises:
        UsageError: The format is unknown.
        SessionError: A required library is missing, or the session has no data for the format.
    """
    encoders: Mapping[str, Callable[[Session], bytes]] = {
        "json": lambda session: dynamo.encode(dynamo.as_counts(counted_session(session))),
        "csv": lambda session: csv_text(counted_session(session)).encode(),
        "kvdeck": lambda session: encode_document(report_json(session)),
        "markdown": lambda session: markdown(session).encode(),
        "parquet": lambda session: parquet.encode(session.name, counted_session(session).transfer_counts),
    }
    if form not in encoders:
        raise UsageError(f"unknown format {form!r}", f"use {', '.join(FORMATS)}")
    return encoders[form](session)


def left_out(session: Session, form: str) -> list[str]:
    """Return descriptions of the session's data that the format can't hold."""
    if form not in ("json", "csv", "parquet"):
        return []
    said = ["times and intervals of the run"] if session.results else []
    said += ["patterns and ranks of the traffic test"] if session.traffic is not None else []
    if uncounted := sum(result.gb_per_s is not None and not result.iterations for result in session.results):
        said = [f"{many(uncounted, 'row')} of nixlbench: rates without counts of transfers"]
    if form == "parquet":
        return said
    transfer_counts = counted_session(session).transfer_counts
    beyond = dynamo.left_out(transfer_counts) if form == "json" else dynamo.beyond_counts(transfer_counts)
    return said + [item for item in beyond if not (session.results and item in ("times", "descriptors"))]


def counted_session(session: Session) -> Session:
    """Return the session with transfer counts; of a measured session, each timed request counts as a transfer."""
    if not session.results:
        return session
    groups: dict[tuple[str, str], TransferCounts] = {}
    for result in session.results:
        if not result.iterations or not result.block_bytes:
            continue
        known = groups.get((result.path, result.layout)) or TransferCounts(result.path, result.layout)
        size, blocks = result.bytes // result.iterations, result.bytes // result.block_bytes
        busy = result.bytes / result.gb_per_s.median / 1e9 if result.gb_per_s and result.gb_per_s.median else 0.0
        groups[result.path, result.layout] = replace(
            known,
            transfers=known.transfers + result.iterations,
            bytes=known.bytes + result.bytes,
            blocks=known.blocks + blocks,
            descriptors=known.descriptors + blocks * result.descriptors_per_block,
            min_bytes=size if known.min_bytes is None else min(size, known.min_bytes),
            max_bytes=max(size, known.max_bytes),
            timed_transfers=known.timed_transfers + (result.iterations if busy else 0),
            timed_bytes=known.timed_bytes + (result.bytes if busy else 0),
            timed_blocks=known.timed_blocks + (blocks if busy else 0),
            busy_s=known.busy_s + busy,
        )
    return replace(session, transfer_counts=ordered([*groups.values(), *session.transfer_counts]))


def csv_text(session: Session) -> str:
    """Return Dynamo's ten CSV columns, one row per path and layout."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    duration = dynamo.as_counts(session).duration_s
    for counts in ordered(session.transfer_counts):
        rates = dynamo.bytes_per_s(counts, duration), dynamo.blocks_per_s(counts, duration)
        key = csv_cell(counts.path), csv_cell(counts.layout)
        row = (*key, counts.transfers, counts.bytes, counts.blocks, plain_text(average_bytes(counts), 2))
        writer.writerow((*row, counts.min_bytes or 0, counts.max_bytes, *(plain_text(rate, 2) for rate in rates)))
    return out.getvalue()


def _from_csv(text: str, path: Path) -> Session:
    head = [cell.strip().strip('"') for cell in text.partition("\n")[0][:_LONGEST_HEAD].split(",")]
    if tuple(head) != CSV_HEADER:
        raise ValueError(_not_csv(text, head))
    rows = list(csv.reader(io.StringIO(text)))
    return _imported(path, transfer_counts=ordered(_csv_counts(row) for row in rows[1:] if row))


def _not_csv(text: str, head: Sequence[str]) -> str:
    if said := _resembled(text):
        return said
    if missing := [name for name in CSV_HEADER if name not in head]:
        if len(missing) < len(CSV_HEADER):
            return f"it looks like Dynamo's CSV but has no column {', '.join(missing)}"
        shown = next((line.strip() for line in text.splitlines() if line.strip()), "")
        return f"its first line is '{visible(shown[:60])}'" if shown else "it is empty"
    return "it looks like Dynamo's CSV but its columns have another order"


def _csv_counts(row: list[str]) -> TransferCounts:
    if len(row) != len(CSV_HEADER):
        raise ValueError(f"a row has {len(row)} columns, not {len(CSV_HEADER)}")
    transfers, size, blocks = int(row[2]), int(row[3]), int(row[4])
    least = int(row[6]) if transfers else None
    rates = int(float(row[8])), int(float(row[9]))
    if min(transfers, size, blocks, least or 0, int(row[7]), *rates) < 0:
        raise ValueError("a number is negative")
    return TransferCounts(
        row[0],
        row[1],
        transfers=transfers,
        bytes=size,
        blocks=blocks,
        min_bytes=least,
        max_bytes=int(row[7]),
        stated_bytes_per_s=rates[0],
        stated_blocks_per_s=rates[1],
    )


def read(path: Path) -> Session:
    """Read one session from a file, as `read_all` does.

    Raises:
        ImportedFileError: The file can't be read, has another format, or holds several sessions.
    """
    found = read_all(path)
    if len(found) > 1:
        raise ImportedFileError(
            f"{path} holds {len(found)} runs of nixlbench", f"`kvdeck session import {path}` saves each as a session"
        )
    return found[0]


def read_all(path: Path) -> list[Session]:
    """Read the sessions of a file: kvdeck's, Dynamo's JSON or CSV, nixlbench's output, cloudai's CSV of it, or the JSON
    of NIXL's ct-perftest. The file is never changed.

    Raises:
        ImportedFileError: The file can't be read or has another format; the message gives the reason.
    """
    try:
        with open_regular(path) as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ImportedFileError(f"can't read {path}: {error.strerror}", "check its name, owner and mode") from error
    try:
        if len(data) > MOST_BYTES:
            raise ValueError(f"it has more than {size_text(MOST_BYTES)}")
        if data.startswith(parquet.MAGIC):
            name, transfer_counts = parquet.decode(data)
            return [_imported(path, ordered(transfer_counts), name)]
        text, encoding = _text(data)
        return _from_text(text, text.encode() if encoding == "utf-16" else data, path)
    except (ValueError, TypeError, AttributeError, ArithmeticError, KeyError, RecursionError, csv.Error) as error:
        said = " ".join(str(error).split())[:300]
        raise ImportedFileError(
            f"{path} is not a session: {said}",
            "give kvdeck's JSON or Parquet, Dynamo's JSON or CSV, nixlbench's output or cloudai's nixlbench.csv",
        ) from None


def _text(data: bytes) -> tuple[str, str]:
    """Return a file's text and encoding: UTF-8, or UTF-16 as some shells write redirected output; bytes of neither are
    replaced."""
    for magic, what in _PACKED.items():
        if data.startswith(magic):
            raise ValueError(f"it is {what}: unpack it first")
    # PowerShell's `>` writes UTF-16.
    encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    return data.decode(encoding, errors="replace"), encoding


_PACKED = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "a zip archive", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ\0": "xz"}


def _from_text(text: str, data: bytes, path: Path) -> list[Session]:
    """Return the sessions in a text. All of it decides its format: a log may begin like JSON, and JSON may hold a log.

    Args:
        text: The file's text, with invalid bytes replaced.
        data: The same in UTF-8, with the bytes as they are.
        path: The file.

    Raises:
        ValueError: It has none of the formats; the message names the one that it resembles.
    """
    try:
        document = load_json(data) if text.lstrip()[:1] in ("{", "[") else None
    except RefusedError:
        raise
    except DocumentError as error:
        if is_nixlbench(text):
            return _from_nixlbench(text, path)
        if b'"session_duration_secs"' in data and b'"metrics"' in data:
            return [_from_dynamo(path)]  # its writer may be at work: that reader waits
        raise ValueError(f"{_resembled(text) or 'it looks like JSON but'} {error}") from None
    if document is not None and ct_perftest.is_perftest(document):
        return [checked(ct_perftest.as_session(document, path, _changed(path)))]
    if document is not None:
        return [_from_dynamo(path, data) if _is_dynamo(document) else _from_ours(document, path)]
    if is_nixlbench(text) or is_cloudai(text):
        return _from_nixlbench(text, path)
    return [_from_csv(text if "\ufffd" not in text else data.decode(), path)]


def _is_dynamo(document: Any) -> bool:
    known = {"session_name", "session_duration_secs", "metrics"}
    return isinstance(document, dict) and len(known & set(document)) > 1 and "state" not in document


def _from_dynamo(path: Path, data: bytes | None = None) -> Session:
    try:
        return dynamo.as_session(
            dynamo.read(path) if data is None else dynamo.parse(data.removeprefix(codecs.BOM_UTF8)), path
        )
    except SessionError as error:
        raise ImportedFileError(error.what, error.fix) from error
    except ValueError as error:
        raise ImportedFileError(
            f"{path} is not a Dynamo session: {error}", "correct or remove it; kvdeck doesn't change it"
        ) from None


def _from_nixlbench(text: str, path: Path) -> list[Session]:
    found = as_sessions(text, path.stem, _changed(path))
    return [checked(replace(session, kind="imported", source=str(path))) for session in found]


def _resembled(text: str) -> str:
    """Return what a text that can't be read looks like, with `but` for the reason; empty if nothing is known."""
    if seems_nixlbench(text):
        return "it looks like nixlbench output but has no table: the run ended before it, or the file is a part of one"
    lines = text.lstrip().splitlines()
    if len(lines) > 1 and all(line.startswith("{") for line in lines[:3] if line.strip()):
        return "it looks like JSON Lines but a session is one JSON object:"
    head = lines[0] if lines else ""
    if head.startswith(("## ", "# ")):
        return "it looks like Markdown but only kvdeck's JSON export can be read back: `kvdeck session export kvdeck F`"
    return ""


def _from_ours(data: Any, path: Path) -> Session:
    if not isinstance(data, dict) or not isinstance(data.get("state"), str):
        raise ValueError("it has no session")
    name = data.get("session", data.get("name"))
    session = convert(Session, {**data, "name": name if isinstance(name, str) else path.stem})
    return replace(session, source=session.source or str(path))


def _imported(path: Path, transfer_counts: tuple[TransferCounts, ...], name: str = "") -> Session:
    blank = Session(name or path.stem, "done", _changed(path), kind="imported", source=str(path))
    return checked(replace(blank, transfer_counts=transfer_counts))


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return time.time()


def markdown(session: Session) -> str:
    """Return the session's figures as a Markdown table."""
    if session.traffic is not None:
        return "\n".join([f"## {inline(session.name)}", "", *traffic_markdown(session.traffic), ""])
    counted = counted_session(session)
    lines = [f"## {inline(session.name)}", ""]
    facts = [str(session.host[key]) for key in ("hostname", "cpu") if session.host.get(key)]
    facts.append(units.local_time(session.created))
    lines += [inline(" · ".join([session.state, *facts])), ""]
    rows = []
    for counts in counted.transfer_counts:
        rate, pieces = gb_per_s(counts), pieces_a_block(counts)
        cells = (
            *(
                counts.path,
                layout_name(counts.layout),
                count_text(counts.transfers),
                size_text(counts.bytes),
                count_text(counts.blocks),
            ),
            size_text(average_bytes(counts) if counts.transfers else None),
            number_text(pieces),
            figure(rate),
        )
        rows.append(cells)
    titles = ("path", "layout", "transfers", "bytes", "blocks", "average", "desc./block", "GB/s")
    theirs = [result for result in session.results if result.settings.get("nixlbench")]
    lines += table(titles, rows, right=6) if rows or not theirs else []
    lines += nixlbench_table(theirs) if theirs else []
    for item in session.comparisons:
        lines += ["", inline(f"{item.path}: {verdict_text(item)}")]
    return "\n".join([*lines, "", "GB = 1e9 bytes, GiB = 2^30 bytes.", ""])
