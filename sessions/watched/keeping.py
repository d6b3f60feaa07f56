"""A recording as a session: begun, ended, and seen for what it is when nobody ended it."""

from __future__ import annotations

import dataclasses
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kvdeck.sessions.errors import SessionError, UsageError
from kvdeck.sessions.records import FINAL_STATES, RunState, Session
from kvdeck.sessions.watched.marks import is_written
from kvdeck.sessions.watched.reader import MomentReader
from kvdeck.sessions.watched.writer import DEFAULT_LIMIT, LEAST_LIMIT

if TYPE_CHECKING:
    from kvdeck.sessions.store import Store

NO_WORD = "it ended without a word: the process that recorded was killed, or the host went down"


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
    if limit < LEAST_LIMIT:
        raise UsageError(f"a recording can't be kept within {limit:,} bytes", f"give {LEAST_LIMIT:,} or more")
    spec = {"hz": hz, "sources": list(sources), "block_bytes": block_bytes, "limit_bytes": limit}
    host = {"hostname": platform.node(), "kernel": platform.release()}
    store.keep(Session(name, "queued", time.time(), kvdeck=kvdeck, host=host, spec=spec, kind="watched"))


def end(store: Store, name: str, state: RunState, reason: str | None, ended: float) -> None:
    """Give the session its last state.

    Raises:
        SessionError: It can't be written.
    """
    session = store.read(name)
    store.write(dataclasses.replace(session, state=state, reason=reason, ended=ended))


def settled(session: Session, folder: Path) -> Session:
    """The session as it is: one that nobody writes and nobody ended is `interrupted`."""
    if session.state in FINAL_STATES:
        return session
    if is_written(folder):
        return dataclasses.replace(session, state="running")
    if session.state == "queued":
        return session
    try:
        ended = MomentReader(folder).end
    except SessionError:
        ended = None
    return dataclasses.replace(session, state="interrupted", reason=NO_WORD, ended=ended or session.started)
