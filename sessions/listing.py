"""Sessions' names, and the list of them: ten thousand in a fraction of a second, over NFS too.

What the list shows of a session is kept in `sessions.index` in the home, with the mark of the file it was read
from. The index is only a saving: where it is missing, damaged or behind, `session.json` is read instead.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from kvdeck.sessions import counted
from kvdeck.sessions.errors import UsageError

MAX_NAME = 100
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_INDEX_VERSION = 2
WORTH_KEEPING = 64
"""Sessions that must have been read before the index is written anew."""


@dataclass(frozen=True, slots=True)
class SessionSummary:
    """What a list shows of a session."""

    name: str
    state: str
    created: float
    """Unix time in seconds."""
    started: float | None
    ended: float | None
    reason: str | None
    paths: tuple[str, ...]
    """Paths with a result, or the ones asked for while there is none."""
    layouts: tuple[str, ...]
    steps: int
    """Results, of any status."""
    tags: tuple[str, ...]
    note: str
    kind: str = "run"
    transfers: int = 0
    """Counted transfers, where the session is recorded or imported."""
    host: str = ""
    about: str = ""
    """Of a recording: how long, of how many sources, and between which tiers something moved."""


_FIELDS = tuple(field.name for field in dataclasses.fields(SessionSummary))

Mark = list[int]
"""Inode, time and size of a `session.json`: it is replaced, never changed, so another one has another mark."""


def check_name(name: str) -> str:
    """The name, if a session may have it.

    Raises:
        UsageError: It has other characters than A-Z a-z 0-9 . _ -, begins with a dot, is empty or too long.
    """
    if not _NAME.fullmatch(name) or len(name) > MAX_NAME:
        raise UsageError(
            f"session name {name[:MAX_NAME]!r} is not allowed",
            f"use up to {MAX_NAME} of A-Z a-z 0-9 . _ - and no dot in front",
        )
    return name


def names(sessions: Path) -> list[str]:
    """Every session's name in that folder, in no order."""
    try:
        return [name for name in os.listdir(sessions) if _NAME.fullmatch(name)]  # noqa: PTH208
    except FileNotFoundError:
        return []


def summaries(home: Path) -> list[SessionSummary]:
    """Every readable session of a home, newest first."""
    sessions, index = home / "sessions", _read_index(home)
    found: dict[str, tuple[Mark, SessionSummary]] = {}
    read = 0
    for name in names(sessions):
        path = f"{sessions}/{name}/session.json"
        try:
            status = os.stat(path)  # noqa: PTH116
        except OSError:
            continue
        mark = [status.st_ino, status.st_mtime_ns, status.st_size]
        known = index.get(name)
        if known is not None and known[1].kind == "recorded":
            mark.append(counted.mark(f"{sessions}/{name}"))
        if known is not None and known[0] == mark:
            found[name] = known
        elif (summary := _read_summary(name, path)) is not None:
            found[name] = (mark, summary)
            read += 1
    if read >= WORTH_KEEPING:
        _write_index(home, found)
    return sorted((summary for _, summary in found.values()), key=lambda s: (s.created, s.name), reverse=True)


def _read_summary(name: str, path: str) -> SessionSummary | None:
    try:
        with open(path, "rb", buffering=0) as file:
            data = orjson.loads(file.read())
        if data.get("kind") == "recorded":
            data = counted.with_counts(data, path.removesuffix("/session.json"))
        return _summarise(name, data)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


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
    from kvdeck.sessions.watched.report import about  # only where there is a recording

    return about(watched)


def _read_index(home: Path) -> dict[str, tuple[Mark, SessionSummary]]:
    try:
        data = orjson.loads((home / "sessions.index").read_bytes())
        if data["version"] != _INDEX_VERSION or tuple(data["fields"]) != _FIELDS:
            return {}
        return {row[1]: (row[0], _from_row(row[1:])) for row in data["rows"]}
    except (OSError, ValueError, TypeError, KeyError, IndexError):
        return {}


def _from_row(row: list[Any]) -> SessionSummary:
    name, state, created, started, ended, reason, paths, layouts, steps, tags, *rest = row
    return SessionSummary(
        name, state, created, started, ended, reason, tuple(paths), tuple(layouts), steps, tuple(tags), *rest
    )


def _write_index(home: Path, found: dict[str, tuple[Mark, SessionSummary]]) -> None:
    rows = [[mark, *(getattr(summary, name) for name in _FIELDS)] for mark, summary in found.values()]
    fresh = home / f".sessions.index.{os.getpid()}"
    # A home that can't be written, or a half-written index after a power cut, costs time and nothing else.
    with contextlib.suppress(OSError):
        fresh.write_bytes(orjson.dumps({"version": _INDEX_VERSION, "fields": _FIELDS, "rows": rows}))
        fresh.replace(home / "sessions.index")
