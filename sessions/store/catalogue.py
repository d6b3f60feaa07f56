"""List of all sessions: kvdeck's own and Dynamo's files in place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import asdict, replace

from kvdeck.sessions import units
from kvdeck.sessions.errors import SessionError
from kvdeck.sessions.formats import dynamo
from kvdeck.sessions.model.records import KIND_V1
from kvdeck.sessions.store import trace_counts
from kvdeck.sessions.store.index import UNREADABLE, SessionSummary
from kvdeck.sessions.store.owners import OWNER_GONE
from kvdeck.sessions.store.store import Store
from kvdeck.sessions.store.telemetry import session as keeping
from kvdeck.sessions.units import short_layout_name

LIVE_LOOKED_AT = 50


def catalogue(store: Store) -> list[SessionSummary]:
    """Return kvdeck's and Dynamo's sessions, newest first; the row of an unreadable file holds the reason."""
    own = _with_live(store, store.summaries())
    known = {summary.name for summary in own}
    theirs = [_of_file(name, path) for name, path in dynamo.found_files().items() if name not in known]
    return sorted([*own, *theirs], key=lambda summary: (summary.created, summary.name), reverse=True)


def _of_file(name: str, path: Path) -> SessionSummary:
    try:
        session = dynamo.as_session(dynamo.read(path, patience=0.05), path, name)
    except SessionError as error:
        return SessionSummary(name, UNREADABLE, _changed(path), None, None, str(error), (), (), 0, (), "", "dynamo")
    return SessionSummary(
        name=name,
        state="done",
        created=session.created,
        started=session.started,
        ended=session.ended,
        reason=None,
        paths=tuple(dict.fromkeys(counts.path for counts in session.transfer_counts)),
        layouts=tuple(dict.fromkeys(counts.layout for counts in session.transfer_counts)),
        steps=len(session.transfer_counts),
        tags=(),
        note="",
        kind="dynamo",
        transfers=sum(counts.transfers for counts in session.transfer_counts),
    )


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _with_live(store: Store, rows: list[SessionSummary]) -> list[SessionSummary]:
    """Return the rows with state `recording` where something is recorded now; checks only the latest traces."""
    traces = [row for row in rows if row.kind == "trace"]
    latest = sorted(traces, key=lambda row: -trace_counts.mark(str(store.folder(row.name))))[:LIVE_LOOKED_AT]
    live = {row.name for row in latest if _is_counting(store.folder(row.name))}
    rows = [replace(row, state="recording") if row.name in live else row for row in rows]
    return [_telemetry_now(store, row) if row.kind == "telemetry" and row.ended is None else row for row in rows]


def _is_counting(trace: Path) -> bool:
    """True if a process counts into the trace now; False while counting is disabled."""
    return bool(trace_counts.live(trace)) and trace_counts.control(trace)[0]


def _telemetry_now(store: Store, row: SessionSummary) -> SessionSummary:
    """Return the row of an unended telemetry session with its current state: still recording, queued or interrupted."""
    folder = store.folder(row.name)
    now = keeping.state_now(folder, row.state)
    if now == "running":
        return replace(row, state="recording", about=f"since {_since(row)}")
    if now == "queued":
        return replace(row, state="queued")
    return replace(row, state="interrupted", reason=OWNER_GONE)


def _since(row: SessionSummary) -> str:
    return units.local_time(row.started or row.created, "%H:%M:%S")


def row_json(row: SessionSummary) -> dict[str, Any]:
    """Return the object of `kvdeck session list --json` for one session; docs/formats.md describes it."""
    return {**asdict(row), "kind_v1": KIND_V1.get(row.kind, row.kind)}


def matching(rows: Iterable[SessionSummary], words: Sequence[str]) -> list[SessionSummary]:
    """Return the rows that match every word, case-insensitively, in name, paths, layouts, host, tags, note or date."""
    wanted = [word.lower() for word in words]
    return [row for row in rows if all(word in haystack(row) for word in wanted)]


def haystack(row: SessionSummary) -> str:
    """Return the text that a filter searches."""
    made = units.local_time(row.created)
    layouts = (*row.layouts, *map(short_layout_name, row.layouts))
    return " ".join(
        (
            row.name,
            row.kind,
            KIND_V1.get(row.kind, ""),
            row.state,
            *row.paths,
            *layouts,
            row.host,
            *row.tags,
            row.note,
            row.about,
            made,
        )
    ).lower()
