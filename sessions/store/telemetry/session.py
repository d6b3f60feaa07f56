"""Telemetry sessions: start, end, current state and totals."""

from __future__ import annotations

import contextlib
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import orjson
from msgspec.structs import replace

from kvdeck.sessions.errors import SessionError, UsageError
from kvdeck.sessions.host.addresses import refuse_credentials
from kvdeck.sessions.host.documents import load_record
from kvdeck.sessions.host.files import MAX_RECORD, read_regular, replace_file
from kvdeck.sessions.model.records import FINAL_STATES, RunState, Session
from kvdeck.sessions.model.telemetry import TelemetryTotals
from kvdeck.sessions.store.owners import OWNER_GONE, is_abandoned
from kvdeck.sessions.store.telemetry.annotations import is_written, read_marks
from kvdeck.sessions.store.telemetry.reader import MomentReader
from kvdeck.sessions.store.telemetry.summary import Summary
from kvdeck.sessions.store.telemetry.writer import DEFAULT_LIMIT, LEAST_LIMIT
from kvdeck.sessions.units import size_text

if TYPE_CHECKING:
    from kvdeck.sessions.store.store import Store

INSIDE = "telemetry"
"""Name of the recording inside another session: a folder in that session's folder, of the same form as any other."""
MOST_MARKS = 200
"""Maximum annotations in `session.json`; `marks.jsonl` holds all."""


def begin(
    store: Store,
    name: str,
    *,
    hz: float = 1.0,
    sources: Sequence[str] = (),
    block_bytes: float | None = None,
    limit: int = DEFAULT_LIMIT,
    kvdeck: str = "",
) -> None:
    """Create a queued telemetry session.

    Args:
        sources: The requested sources; empty to use the discovered ones.
        limit: Bytes on disk above which old samples are thinned.

    Raises:
        UsageError: The name is invalid or taken, the limit is too small, or a source holds a credential.
        SessionError: It can't be written.
    """
    for source in sources:
        refuse_credentials(source, "the source")
    if limit < LEAST_LIMIT:
        raise UsageError(
            f"{size_text(limit)} is too small for a telemetry session", f"give {size_text(LEAST_LIMIT)} or more"
        )
    spec = {"hz": hz, "sources": list(sources), "block_bytes": block_bytes, "limit_bytes": limit}
    host = {"hostname": platform.node(), "kernel": platform.release()}
    store.keep(Session(name, "queued", time.time(), kvdeck=kvdeck, host=host, spec=spec, kind="telemetry"))


def begin_inside(store: Store, name: str, *, hz: float, sources: Sequence[str], kvdeck: str = "") -> None:
    """Create the recording inside a session, or prepare the one that it holds to be continued.

    Raises:
        UsageError: A source holds a credential.
        SessionError: Another process records into it, or it can't be written.
    """
    inside = store.inside(name)
    if not inside.exists(INSIDE):
        return begin(inside, INSIDE, hz=hz, sources=sources, kvdeck=kvdeck)
    for source in sources:
        refuse_credentials(source, "the source")
    if is_written(inside.folder(INSIDE)):
        raise SessionError(f"telemetry of session {name!r} is being recorded", "wait for its end, or omit --record")
    held = inside.read(INSIDE)
    inside.write(replace(held, spec={**held.spec, "hz": hz, "sources": list(sources)}))
    return None


def addressed(store: Store, name: str) -> tuple[Store, str]:
    """Return the store and the name of a recording given as `NAME`, or as `NAME/telemetry` inside another session.

    Raises:
        UsageError: No recording can have that name.
    """
    owner, slash, inside = name.partition("/")
    if not slash:
        return store, name
    if inside != INSIDE:
        raise UsageError(f"{name!r} is no recording's name", f"give NAME, or NAME/{INSIDE}")
    return store.inside(owner), INSIDE


def end(store: Store, name: str, state: RunState, reason: str | None) -> Session:
    """Write the final state and totals of a telemetry session whose writer has ended.

    Raises:
        SessionError: It can't be read or written.
    """
    session = filled(store.read(name), store.folder(name))
    ended = session.telemetry.end if session.telemetry else None
    session = replace(session, state=state, reason=reason, ended=ended or session.created)
    store.write(session)
    return session


def state_now(folder: Path, state: str) -> Literal["queued", "running", "interrupted"]:
    """Return the state of a telemetry session that has not ended.

    It counts as running while its engine lives, also between two of the engine's sampling processes.
    """
    if is_written(folder):
        return "running"
    if is_abandoned(folder):
        return "interrupted"
    return "queued" if state == "queued" else "running"


def filled(session: Session, folder: Path) -> Session:
    """Return the session in its current state; `interrupted` if it has neither a writer nor an end.

    Raises:
        SessionError: Its files can't be read.
    """
    if session.state in FINAL_STATES:
        return session
    now = state_now(folder, session.state)
    totals = added_up(folder)
    session = replace(session, telemetry=totals, started=totals.begin or session.started)
    if now != "interrupted":
        return replace(session, state=now)
    return replace(session, state="interrupted", reason=OWNER_GONE, ended=totals.end or session.created)


def added_up(folder: Path) -> TelemetryTotals:
    """Return the totals of a telemetry session, computed from the end of its last summary on."""
    reader, marks = MomentReader(folder), read_marks(folder)
    return replace(
        caught_up(folder, reader).result(),
        bytes=reader.size,
        thinned=tuple(reader.thinned),
        marks=tuple((mark.t, mark.text, mark.kind) for mark in marks[-MOST_MARKS:]),
    )


def caught_up(folder: Path, reader: MomentReader) -> Summary:
    """Return the summary of all samples: the saved one plus later samples."""
    summary = read_summary(folder)
    for moment in reader.moments(summary.end):
        if summary.end is None or moment["t"] > summary.end:
            with contextlib.suppress(ValueError):
                summary.take(moment)
    return summary


def summary_path(folder: Path) -> Path:
    return folder / "summary.json"


def write_summary(summary: Summary, folder: Path) -> None:
    """Save a summary's state; raises OSError if it can't be written."""
    replace_file(summary_path(folder), orjson.dumps(summary.to_json()))


def read_summary(folder: Path) -> Summary:
    """Return the saved summary; an empty one if it is missing or damaged."""
    try:
        return Summary.from_json(load_record(read_regular(summary_path(folder), MAX_RECORD)))
    except (OSError, ValueError):
        return Summary()
