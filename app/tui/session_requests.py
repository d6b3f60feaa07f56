"""Work on sessions off the UI thread: read, compare and change them. Each function posts one message."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from msgspec.structs import replace
from textual.message import Message

from kvdeck.app.tui.messages import (
    SessionChanged,
    SessionPreviewed,
    SessionRead,
    SessionsCompared,
    SessionsListed,
    SessionsStirred,
    SpreadsRead,
)
from kvdeck.engine.client import client as engine
from kvdeck.sessions.analysis.histograms import histograms
from kvdeck.sessions.errors import KvdeckError
from kvdeck.sessions.formats import exchange
from kvdeck.sessions.formats import telemetry as recording_export
from kvdeck.sessions.host.files import replace_file
from kvdeck.sessions.host.user_home import expanded
from kvdeck.sessions.model.records import Session
from kvdeck.sessions.store.catalogue import catalogue
from kvdeck.sessions.store.lookup import find, find_part
from kvdeck.sessions.store.store import Store
from kvdeck.sessions.text.run_report import is_telemetry

Post = Callable[[Message], object]
log = logging.getLogger("kvdeck.app")


def told(error: Exception) -> str:
    """Return an exception in one line; unexpected ones with their type, and the traceback in the log."""
    if isinstance(error, (KvdeckError, OSError)):
        return str(error)
    log.error("unexpected", exc_info=error)
    return f"unexpected {type(error).__name__}: {error}"


def listed(post: Post) -> None:
    """Read the list of sessions; posts SessionsListed."""
    try:
        post(SessionsListed(tuple(catalogue(engine.store()))))
    except Exception as error:
        post(SessionsListed((), told(error)))


def read(post: Post, name: str) -> None:
    """Read one session; posts SessionRead."""
    try:
        post(SessionRead(name, find(engine.store(), name)))
    except Exception as error:
        post(SessionRead(name, None, told(error)))


def preview(post: Post, name: str) -> None:
    """Read the session under the cursor; posts SessionPreviewed."""
    try:
        post(SessionPreviewed(name, find(engine.store(), name)))
    except Exception as error:
        post(SessionPreviewed(name, None, told(error)))


def stirred(post: Post, names: tuple[str, ...]) -> None:
    """Read the fingerprint of these sessions on disk; posts SessionsStirred."""
    post(SessionsStirred(engine.store().mark(names)))


def compare(post: Post, names: tuple[str, ...]) -> None:
    """Read sessions, or parts of them, to compare; posts SessionsCompared."""
    try:
        post(SessionsCompared(tuple(find_part(engine.store(), name) for name in names)))
    except Exception as error:
        post(SessionsCompared((), told(error)))


def spreads(post: Post, a: Session, b: Session) -> None:
    """Read the request-time histograms of two sessions; posts SpreadsRead."""
    store = engine.store()
    of_a = histograms(a, _samples(store, a))
    of_b = histograms(b, _samples(store, b))
    post(SpreadsRead(of_a, of_b))


def _samples(store: Store, session: Session) -> Path | None:
    try:
        return store.samples_path(session.name) if session.kind == "run" and not session.source else None
    except KvdeckError:
        return None


def change(post: Post, what: str, name: str, value: str, before: str) -> None:
    """Rename, tag, note, export or delete a session; posts SessionChanged.

    Args:
        what: `rename`, `tag`, `note`, `export` or `delete`.
        value: The new name, the tags, the note or the file's path.
        before: The value when the operator began to type; another deck may have changed it since.
    """
    try:
        post(SessionChanged(_CHANGES[what](engine.store(), name, value, before)))
    except OSError as error:
        post(SessionChanged("", f"can't write {error.filename or value}: {error.strerror}"))
    except Exception as error:
        post(SessionChanged("", told(error)))


def _rename(store: Store, name: str, value: str, _: str) -> str:
    store.rename(name, value)
    return f"{name} is now {value}"


def _tag(store: Store, name: str, value: str, before: str) -> str:
    """Set the tags; tags added meanwhile stay, and tags removed meanwhile stay removed."""
    wanted, known = value.split(), before.split()

    def tagged(now: Session) -> Session:
        kept = [tag for tag in now.tags if tag in wanted or tag not in known]
        added = [tag for tag in wanted if tag in now.tags or tag not in known]
        return replace(now, tags=tuple(dict.fromkeys([*kept, *added])))

    tags = store.change(name, tagged).tags
    return f"{name}: tags {' '.join(tags) or 'removed'}"


def _note(store: Store, name: str, value: str, before: str) -> str:
    meanwhile: list[str] = []

    def noted(now: Session) -> Session:
        meanwhile.append(now.note)
        return replace(now, note=value)

    store.change(name, noted)
    said = f"{name}: note {'saved' if value else 'removed'}"
    return said if meanwhile[0] in (before, value) else f"{said}; it replaced a note written meanwhile: {meanwhile[0]}"


def _export(store: Store, name: str, value: str, _: str) -> str:
    path = expanded(value)
    session, form = find(store, name), exchange.format_of(path)
    if is_telemetry(session):
        recording_export.write(session, store.folder(name), form, path)
        return f"{name} exported to {path}"
    replace_file(path, exchange.encode(session, form), durable=True)
    left = exchange.left_out(session, form)
    return f"{name} exported to {path}" + (f", without {'; '.join(left)}" if left else "")


def _delete(store: Store, name: str, *_: str) -> str:
    store.delete(name)
    return f"{name} deleted"


_CHANGES: dict[str, Callable[[Store, str, str, str], str]] = {
    "rename": _rename,
    "tag": _tag,
    "note": _note,
    "export": _export,
    "delete": _delete,
}
