"""A recording as a session: begun, ended, and seen for what it is when nobody ended it."""

from __future__ import annotations

import contextlib
import dataclasses
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import orjson

from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.host.addresses import refuse_credentials
from kvdeck.sessions.host.documents import load_record
from kvdeck.sessions.host.files import MAX_RECORD, read_regular
from kvdeck.sessions.model.records import FINAL_STATES, RunState, Session
from kvdeck.sessions.model.telemetry import Watched
from kvdeck.sessions.store.owners import is_abandoned
from kvdeck.sessions.store.telemetry.annotations import is_written, read_marks
from kvdeck.sessions.store.telemetry.reader import MomentReader
from kvdeck.sessions.store.telemetry.segments import replace_private
from kvdeck.sessions.store.telemetry.summary import Summary
from kvdeck.sessions.store.telemetry.writer import DEFAULT_LIMIT, LEAST_LIMIT
from kvdeck.sessions.units import size_text

if TYPE_CHECKING:
    from kvdeck.sessions.store.store import Store

NO_WORD = "it ended without a word: the process that recorded was killed, or the host went down"
MOST_MARKS = 200
"""Kept in `session.json`; `marks.jsonl` has all."""


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
    """Make the session of a recording that is to begin.

    Args:
        sources: As they were asked for; none: what is found.
        limit: Bytes on the disk beyond which old moments are thinned.

    Raises:
        UsageError: The name is not allowed or taken, or the limit is too small.
        SessionError: It can't be written.
    """
    for source in sources:
        refuse_credentials(source, "the source")
    if limit < LEAST_LIMIT:
        raise UsageError(f"{size_text(limit)} can't hold a recording", f"give {size_text(LEAST_LIMIT)} or more")
    spec = {"hz": hz, "sources": list(sources), "block_bytes": block_bytes, "limit_bytes": limit}
    host = {"hostname": platform.node(), "kernel": platform.release()}
    store.keep(Session(name, "queued", time.time(), kvdeck=kvdeck, host=host, spec=spec, kind="watched"))


def end(store: Store, name: str, state: RunState, reason: str | None) -> Session:
    """Give a recording that nobody writes any longer its last state, and what it comes to.

    Raises:
        SessionError: It can't be read or written.
    """
    session = filled(store.read(name), store.folder(name))
    ended = session.watched.end if session.watched else None
    session = dataclasses.replace(session, state=state, reason=reason, ended=ended or session.created)
    store.write(session)
    return session


def state_now(folder: Path, state: str) -> Literal["queued", "running", "interrupted"]:
    """The state of a recording that nobody has ended.

    While the engine that keeps it lives, it runs, also between two of its sampling processes.
    """
    if is_written(folder):
        return "running"
    if is_abandoned(folder):
        return "interrupted"
    return "queued" if state == "queued" else "running"


def filled(session: Session, folder: Path) -> Session:
    """The session as it is now: one that nobody writes and nobody ended is `interrupted`.

    Raises:
        SessionError: Its files can't be read.
    """
    if session.state in FINAL_STATES:
        return session
    now = state_now(folder, session.state)
    watched = added_up(folder)
    session = dataclasses.replace(session, watched=watched, started=watched.begin or session.started)
    if now != "interrupted":
        return dataclasses.replace(session, state=now)
    return dataclasses.replace(session, state="interrupted", reason=NO_WORD, ended=watched.end or session.created)


def added_up(folder: Path) -> Watched:
    """What a recording comes to: from where its last summary ends, moment by moment."""
    reader, marks = MomentReader(folder), read_marks(folder)
    return dataclasses.replace(
        caught_up(folder, reader).result(),
        bytes=reader.size,
        thinned=tuple(reader.thinned),
        marks=tuple((mark.t, mark.text, mark.kind) for mark in marks[-MOST_MARKS:]),
    )


def caught_up(folder: Path, reader: MomentReader) -> Summary:
    """The summary of all moments there are: the one that was kept, and what came after it."""
    summary = read_summary(folder)
    for moment in reader.moments(summary.end):
        if summary.end is None or moment["t"] > summary.end:
            with contextlib.suppress(ValueError):
                summary.take(moment)
    return summary


def summary_path(folder: Path) -> Path:
    return folder / "summary.json"


def write_summary(summary: Summary, folder: Path) -> None:
    """Keep the state of a summary; raises OSError where that can't be written."""
    replace_private(summary_path(folder), orjson.dumps(summary.to_json()))


def read_summary(folder: Path) -> Summary:
    """The summary as it was last kept; an empty one where there is none, or it is damaged."""
    try:
        return Summary.from_json(load_record(read_regular(summary_path(folder), MAX_RECORD)))
    except (OSError, ValueError):
        return Summary()
