"""Lookup of sessions by command-line argument (name, file or the active session), and output to a file or stdout."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kvdeck.app.cli.standard_output import write_bytes
from kvdeck.sessions import units
from kvdeck.sessions.errors import SessionError
from kvdeck.sessions.host.user_home import expanded

if TYPE_CHECKING:
    from kvdeck.sessions.model.records import Session
    from kvdeck.sessions.store.store import Store


SESSION = click.option("-s", "--session", metavar="NAME", help="Default: the active session.")


def store() -> Store:
    """Return the session store of the engine's home folder."""
    from kvdeck.engine.daemon.folders import home_folder
    from kvdeck.sessions.store.store import Store

    return Store(home_folder())


def checked(name: str) -> str:
    """Return the name if it is a valid session name.

    Raises:
        UsageError: It is not.
    """
    from kvdeck.sessions.store.index import check_name

    return check_name(name)


def find(called: str, part: bool = False) -> Session:
    """Return the session with this name or file; with `part`, also accept NAME:LAYOUT.

    Raises:
        SessionError: There is no such session, or it can't be read.
        UsageError: The text is neither a valid name nor a file.
    """
    from kvdeck.sessions.store import lookup

    return lookup.find_part(store(), called) if part else lookup.find(store(), called)


def wanted_name(name: str | None) -> str:
    """Return the name that was given, otherwise the active session's.

    Raises:
        SessionError: No name is given and no session is active.
    """
    from kvdeck.sessions.formats import dynamo

    if name is not None:
        return name
    active = dynamo.active_session()
    if active is None or not active.name:
        raise SessionError(
            "no benchmark session active", "create one with `kvdeck session init NAME`, or give --session"
        )
    return active.name


def give(data: bytes, output: str | None) -> int:
    """Write to a file, or to stdout if `output` is None; return exit status 0.

    Raises:
        SessionError: The file can't be written.
    """
    if output is None:
        write_bytes(data if data.endswith(b"\n") else data + b"\n")
        return 0
    from kvdeck.sessions.host.files import write_output

    path = expanded(output)
    try:
        write_output(path, data, durable=True)
    except OSError as error:
        raise SessionError(f"can't write {path}: {error.strerror}", "choose another file") from error
    return 0


def local_time(created: float) -> str:
    """Return a Unix time as local date and time."""
    return units.local_time(created)
