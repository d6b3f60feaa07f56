"""Sessions by what verbs are given: a name, a file, the active session; and where their output goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvdeck.app.cli.standard_output import write_bytes
from kvdeck.sessions import units
from kvdeck.sessions.errors import SessionError
from kvdeck.sessions.host.user_home import expanded

if TYPE_CHECKING:
    from kvdeck.sessions.model.records import Session
    from kvdeck.sessions.store.store import Store


def store() -> Store:
    """The sessions of this home."""
    from kvdeck.engine.client import client

    return client.store()


def checked(name: str) -> str:
    """The name, if a session may have it."""
    from kvdeck.sessions.store.index import check_name

    return check_name(name)


def find(called: str, part: bool = False) -> Session:
    """The session, by its name or its file; with `part` also NAME:LAYOUT."""
    from kvdeck.sessions.store import lookup

    return lookup.find_part(store(), called) if part else lookup.find(store(), called)


def wanted_name(name: str | None) -> str:
    """The session that is meant, or the active one.

    Raises:
        SessionError: None is.
    """
    from kvdeck.sessions.formats import dynamo

    if name is not None:
        return name
    active = dynamo.active_session()
    if active is None or not active.name:
        raise SessionError("no benchmark session active", "`kvdeck session init NAME` makes one, or give --session")
    return active.name


def give(data: bytes, output: str | None) -> int:
    """Write to a file, or to stdout where none is given."""
    if output is None:
        write_bytes(data if data.endswith(b"\n") else data + b"\n")
        return 0
    from kvdeck.sessions.store.store import write_atomically

    path = expanded(output)
    try:
        write_atomically(path, data)
    except OSError as error:
        raise SessionError(f"can't write {path}: {error.strerror}", "give another file") from error
    return 0


def local_time(created: float) -> str:
    """Unix time as an operator reads it."""
    return units.local_time(created)
