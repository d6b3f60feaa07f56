"""Session names and list rows, cached so that ten thousand sessions load in a fraction of a second, also over NFS.

The rows are cached in `sessions.index` in the home folder, each with the mark of the file it was read from. The index
is optional: if it is missing, damaged or outdated, `session.json` is read instead.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import orjson

from kvdeck.sessions.errors import SessionError, UsageError
from kvdeck.sessions.host.documents import load_record
from kvdeck.sessions.host.files import MAX_RECORD, read_regular
from kvdeck.sessions.model.records import FINAL_STATES, to_json
from kvdeck.sessions.store import trace_counts
from kvdeck.sessions.store.owners import OWNER_GONE, is_abandoned

MAX_NAME = 100
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_INDEX_VERSION = 2
UNREADABLE = "unreadable"
"""State of a row whose session can't be read; its `reason` explains why."""
WORTH_KEEPING = 64
"""Minimum number of sessions read from their files before the index is rewritten."""


@dataclass(frozen=True, slots=True)
class SessionSummary:
    """A session's row in a list."""

    name: str
    state: str
    created: float
    """Unix time in seconds."""
    started: float | None
    ended: float | None
    reason: str | None
    paths: tuple[str, ...]
    """Paths with a result; before the first result, the requested paths."""
    layouts: tuple[str, ...]
    steps: int
    """Number of results, of any status."""
    tags: tuple[str, ...]
    note: str
    kind: str = "run"
    transfers: int = 0
    """Counted transfers of a trace or an imported session."""
    host: str = ""
    about: str = ""
    """For telemetry: duration, number of sources, and the tiers between which data moved."""


_FIELDS = tuple(field.name for field in dataclasses.fields(SessionSummary))

_Row = tuple[
    list[int], str, str, float, float | None, float | None, str | None, tuple[str, ...], tuple[str, ...], int,
    tuple[str, ...], str, str, int, str, str,
]  # fmt: skip
"""A row of the index: the mark, then the summary's fields in order."""


class _Index(msgspec.Struct):
    version: int
    fields: tuple[str, ...]
    rows: list[_Row]


Mark = list[int]
"""Inode, mtime in ns and size of a `session.json`: it is replaced, never modified, so a new version has a new mark."""


def check_name(name: str) -> str:
    """Return the name if it is a valid session name.

    Raises:
        UsageError: It has characters other than A-Z a-z 0-9 . _ -, starts with a dot, is empty or too long.
    """
    if not _NAME.fullmatch(name) or len(name) > MAX_NAME:
        raise UsageError(
            f"session name {name[:MAX_NAME]!r} is not allowed",
            f"use up to {MAX_NAME} of A-Z a-z 0-9 . _ - without a leading dot",
        )
    return name


def names(sessions: Path) -> list[str]:
    """Return all session names in that folder, unordered.

    Raises:
        SessionError: The home is not a folder.
    """
    try:
        return [name for name in os.listdir(sessions) if _NAME.fullmatch(name)]  # noqa: PTH208
    except FileNotFoundError:
        return []
    except NotADirectoryError as error:
        raise SessionError(f"{sessions.parent} is not a folder", "set KVDECK_HOME to a folder you own") from error


def summaries(home: Path) -> list[SessionSummary]:
    """Return the rows of all sessions of a home, newest first; unreadable ones have state `unreadable`."""
    sessions, index = home / "sessions", _read_index(home)
    found: dict[str, tuple[Mark, SessionSummary]] = {}
    read = 0
    for name in names(sessions):
        path = f"{sessions}/{name}/session.json"
        try:
            status = os.stat(path)  # noqa: PTH116
        except NotADirectoryError:
            continue  # a plain file, not a session
        except OSError as error:
            found[name] = ([], _unreadable(sessions / name, error.strerror or "can't be read"))
            continue
        mark = [status.st_ino, status.st_mtime_ns, status.st_size]
        known = index.get(name)
        if known is not None and known[1].kind == "recorded":
            mark.append(trace_counts.mark(f"{sessions}/{name}"))
        if known is not None and known[0] == mark:
            found[name] = known
        else:
            found[name] = (mark, _read_summary(name, path))
            read += 1
    if read >= WORTH_KEEPING:
        _write_index(home, found)
    settled = [_settled(sessions, summary) for _, summary in found.values()]
    return sorted(settled, key=lambda s: (s.created, s.name), reverse=True)


def _settled(sessions: Path, summary: SessionSummary) -> SessionSummary:
    """Return the row with its current state: `interrupted` if the session has not ended and its owner is gone."""
    if summary.state in FINAL_STATES or summary.state == UNREADABLE:
        return summary
    folder = sessions / summary.name
    state: str = summary.state
    if summary.kind == "watched":
        from kvdeck.sessions.store.telemetry.session import state_now

        state = state_now(folder, state)
        abandoned = state == "interrupted"
    else:
        abandoned = is_abandoned(folder)
    if not abandoned:
        return dataclasses.replace(summary, state=state)
    return dataclasses.replace(summary, state="interrupted", reason=OWNER_GONE)


def _read_summary(name: str, path: str) -> SessionSummary:
    """Return a session's row, or an `unreadable` row with the reason."""
    try:
        data = load_record(read_regular(path, MAX_RECORD))
        if data.get("kind") == "recorded":
            data = trace_counts.with_counts(data, path.removesuffix("/session.json"))
        return msgspec.convert(to_json(_summarise(name, data)), SessionSummary)
    except OSError as error:
        why = error.strerror or "can't be read"
    except KeyError as error:
        why = f"has no {error}"
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        why = f"is damaged: {' '.join(str(error).split())[:200]}"
    return _unreadable(Path(path).parent, why)


def _unreadable(folder: Path, why: str) -> SessionSummary:
    try:
        changed = folder.stat().st_mtime
    except OSError:
        changed = 0.0
    reason = f"session.json: {why}"
    return SessionSummary(folder.name, UNREADABLE, changed, None, None, reason, (), (), 0, (), "")


def _summarise(name: str, data: dict[str, Any]) -> SessionSummary:
    results, spec = data.get("results") or data.get("tallies") or (), data.get("spec") or {}
    return SessionSummary(
        name=name,
        state=data["state"],
        created=float(data["created"]),
        started=data.get("started"),
        ended=data.get("ended"),
        reason=data.get("reason"),
        paths=tuple(dict.fromkeys(result["path"] for result in results) if results else spec.get("paths") or ()),
        layouts=tuple(dict.fromkeys(result["layout"] for result in results) if results else spec.get("layouts") or ()),
        steps=len(results),
        tags=tuple(data.get("tags") or ()),
        note=data.get("note") or "",
        kind=data.get("kind") or "run",
        transfers=sum(tally["transfers"] for tally in data.get("tallies") or ()),
        host=str((data.get("host") or {}).get("hostname") or ""),
        about=_about(data["watched"]) if data.get("watched") else "",
    )


def _about(watched: dict[str, Any]) -> str:
    from kvdeck.sessions.text.telemetry_report import about  # deferred: only telemetry needs it

    return about(watched)


def _read_index(home: Path) -> dict[str, tuple[Mark, SessionSummary]]:
    try:
        index = msgspec.json.decode(read_regular(home / "sessions.index", MAX_RECORD), type=_Index)
    except (OSError, ValueError, RecursionError):
        return {}
    if index.version != _INDEX_VERSION or index.fields != _FIELDS:
        return {}
    return {row[1]: (row[0], SessionSummary(*row[1:])) for row in index.rows}


def _write_index(home: Path, found: dict[str, tuple[Mark, SessionSummary]]) -> None:
    rows = [
        [mark, *(getattr(summary, name) for name in _FIELDS)]
        for mark, summary in found.values()
        if summary.state != UNREADABLE
    ]
    fresh = home / f".sessions.index.{os.getpid()}"
    # Best effort: without an index, or with a damaged one, listing is only slower.
    with contextlib.suppress(OSError):
        fresh.write_bytes(orjson.dumps({"version": _INDEX_VERSION, "fields": _FIELDS, "rows": rows}))
        fresh.replace(home / "sessions.index")
