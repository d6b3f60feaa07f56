"""Lookup of a session by kvdeck name, Dynamo name or file."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from kvdeck.sessions.errors import SessionError
from kvdeck.sessions.formats import dynamo, exchange
from kvdeck.sessions.host.user_home import expanded
from kvdeck.sessions.model.records import Session
from kvdeck.sessions.model.transfer_counts import added
from kvdeck.sessions.store.index import check_name
from kvdeck.sessions.store.store import Store
from kvdeck.sessions.units import layout_name, short_layout_name


def find(store: Store, called: str) -> Session:
    """Return the session in its current state; if both kvdeck and Dynamo count into it, the sum of both.

    Args:
        called: A name, or the path of a file that can be imported.

    Raises:
        SessionError: It doesn't exist or can't be read.
        UsageError: `called` is neither a valid name nor a file.
    """
    if "/" in called or Path(called).is_file():
        return exchange.read(expanded(called))
    name = check_name(called)
    theirs = dynamo.session_file(name)
    if store.exists(name):
        session = store.load(name)
        if session.kind != "trace" or theirs is None:
            return session
        try:
            counts = dynamo.read(theirs)
        except SessionError as error:  # kvdeck's own counts are still valid
            return replace(session, reason=str(error), source=str(theirs))
        duration = max(session.duration_s or 0.0, counts.duration_s)
        return replace(
            session,
            transfer_counts=added([*session.transfer_counts, *counts.transfer_counts]),
            duration_s=duration,
            source=str(theirs),
        )
    if theirs is not None:
        return dynamo.as_session(dynamo.read(theirs), theirs, name)
    raise SessionError(f"there is no session {name!r}", "see `kvdeck session list`")


def find_part(store: Store, called: str) -> Session:
    """Return the session as `find` does; `NAME:LAYOUT` selects the part with one layout."""
    name, colon, layout = called.rpartition(":")
    if not colon or "/" in layout:
        return find(store, called)
    return part(find(store, name), layout)


def part(session: Session, layout: str) -> Session:
    """Return the part of a session with one layout, in any of its spellings.

    Raises:
        SessionError: The session has nothing with that layout.
    """
    results = tuple(result for result in session.results if _is(result.layout, layout))
    transfer_counts = tuple(counts for counts in session.transfer_counts if _is(counts.layout, layout))
    if not results and not transfer_counts:
        texts = [result.layout for result in session.results] + [counts.layout for counts in session.transfer_counts]
        there = sorted({short_layout_name(text) for text in texts})
        raise SessionError(
            f"session {session.name!r} has no layout {layout!r}",
            f"use one of {', '.join(there)}" if there else "choose another session",
        )
    return replace(session, results=results, transfer_counts=transfer_counts)


def _is(text: str, spelling: str) -> bool:
    wanted = "".join(spelling.split()).lower()
    return wanted in {"".join(name.split()).lower() for name in (text, layout_name(text), short_layout_name(text))}
