"""Changes of a stored session that the operator types: rename, tag, note, export, delete."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from kvdeck.engine.client import client as engine
from kvdeck.sessions.errors import KvdeckError
from kvdeck.sessions.formats import exchange
from kvdeck.sessions.formats import telemetry as recording_export
from kvdeck.sessions.host.files import write_output
from kvdeck.sessions.host.user_home import expanded
from kvdeck.sessions.model.records import Session
from kvdeck.sessions.store.lookup import find
from kvdeck.sessions.store.store import Store
from kvdeck.sessions.text.run_report import is_telemetry


def change_session(what: str, name: str, value: str, before: str) -> str:
    """Change a session and return what was done, as one line.

    Args:
        what: `rename`, `tag`, `note`, `export` or `delete`.
        value: The new name, the tags, the note or the file's path.
        before: The value when the operator began to type; another deck may have changed it since.

    Raises:
        KvdeckError: There is no such session, the value is invalid, or a file can't be written.
    """
    try:
        return _CHANGES[what](engine.store(), name, value, before)
    except OSError as error:
        raise KvdeckError(f"can't write {error.filename or value}: {error.strerror}") from error


def _rename(store: Store, name: str, value: str, _: str) -> str:
    store.rename(name, value)
    return f"{name} is now {value}"


def _tag(store: Store, name: str, value: str, before: str) -> str:
    """Set the tags; tags added meanwhile stay, and tags removed meanwhile stay removed."""
    wanted, known = value.split(), before.split()

    def tagged(now: Session) -> Session:
        # By what changed since the operator began to type, not by the whole text: another deck may have set tags.
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
    write_output(path, exchange.encode(session, form), durable=True)
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
