"""Session names and list rows, cached so that ten thousand sessions load in a fraction of a second, also over NFS.

The rows are cached in `sessions.index` in the home folder, each with the mark of the file it was read from. The index
is optional: if it is missing, damaged or outdated, `session.json` is read instead.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import orjson
from msgspec import Struct
from msgspec.structs import replace

from kvdeck.sessions.errors import SessionError, UsageError
from kvdeck.sessions.host.files import MAX_RECORD, read_regular, replace_file
from kvdeck.sessions.model.encoding import decode
from kvdeck.sessions.model.measures import Interval
from kvdeck.sessions.model.records import FINAL_STATES, KIND_V1, TransferCounts, present_kind
from kvdeck.sessions.model.telemetry import TelemetryTotals
from kvdeck.sessions.store import trace_counts
from kvdeck.sessions.store.owners import OWNER_GONE, is_abandoned
from kvdeck.sessions.units import many, ratio_text

MAX_NAME = 100
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_INDEX_VERSION = 2
UNREADABLE = "unreadable"
"""State of a row whose session can't be read; its `reason` explains why."""
WORTH_KEEPING = 64
"""Minimum number of sessions read from their files before the index is rewritten."""


class SessionSummary(Struct, frozen=True):
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
    """For telemetry: duration, number of sources, and the tiers between which data moved. For traffic: ranks, patterns,
    and the largest congestion ratio."""


_FIELDS = SessionSummary.__struct_fields__

_Row = tuple[
    list[int], str, str, float, float | None, float | None, str | None, tuple[str, ...], tuple[str, ...], int,
    tuple[str, ...], str, str, int, str, str,
]  # fmt: skip
"""A row of the index: the mark, then the summary's fields in order."""


class _Place(Struct):
    path: str
    layout: str


class _Wanted(Struct):
    paths: tuple[str, ...] | None = None
    layouts: tuple[str, ...] | None = None


class _PatternListed(Struct):
    ratio: Interval | None = None


class _TrafficListed(Struct):
    """What a row shows of a traffic test."""

    ranks: int
    patterns: tuple[_PatternListed, ...] = ()


class _Listed(Struct):
    """The fields of a `session.json` that its row shows; the others are skipped unread."""

    state: str
    created: float
    started: float | None = None
    ended: float | None = None
    reason: str | None = None
    host: dict[str, Any] | None = None
    spec: _Wanted | None = None
    results: tuple[_Place, ...] | None = None
    tags: tuple[str, ...] | None = None
    note: str | None = None
    kind: str | None = None
    transfer_counts: tuple[TransferCounts, ...] | None = msgspec.field(default=None, name="tallies")
    telemetry: TelemetryTotals | None = msgspec.field(default=None, name="watched")
    traffic: _TrafficListed | None = None


class _Index(Struct):
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
            # Not pathlib: for 10,000 sessions its objects cost more than the calls.
            status = os.stat(path)  # noqa: PTH116
        except NotADirectoryError:
            continue  # a plain file, not a session
        except OSError as error:
            found[name] = ([], _unreadable(sessions / name, error.strerror or "can't be read"))
            continue
        mark = [status.st_ino, status.st_mtime_ns, status.st_size]
        known = index.get(name)
        if known is not None and known[1].kind == "trace":
            # A trace's counts change in its processes' files, and session.json stays as it was.
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
    if summary.kind == "telemetry":
        from kvdeck.sessions.store.telemetry.session import state_now

        state = state_now(folder, state)
        abandoned = state == "interrupted"
    else:
        abandoned = is_abandoned(folder)
    if not abandoned:
        return replace(summary, state=state)
    return replace(summary, state="interrupted", reason=OWNER_GONE)


def _read_summary(name: str, path: str) -> SessionSummary:
    """Return a session's row, or an `unreadable` row with the reason."""
    try:
        return _summarise(name, decode(_Listed, read_regular(path, MAX_RECORD)), path.removesuffix("/session.json"))
    except OSError as error:
        why = error.strerror or "can't be read"
    except ValueError as error:
        why = " ".join(str(error).split())[:200]
    return _unreadable(Path(path).parent, why)


def _unreadable(folder: Path, why: str) -> SessionSummary:
    try:
        changed = folder.stat().st_mtime
    except OSError:
        changed = 0.0
    reason = f"session.json: {why}"
    return SessionSummary(folder.name, UNREADABLE, changed, None, None, reason, (), (), 0, (), "")


def _summarise(name: str, listed: _Listed, folder: str) -> SessionSummary:
    kind = present_kind(listed.kind or "run")
    counted = trace_counts.transfer_counts(Path(folder)) if kind == "trace" else listed.transfer_counts or ()
    results: Sequence[_Place | TransferCounts] = listed.results or counted
    wanted = listed.spec or _Wanted()
    return SessionSummary(
        name=name,
        state=listed.state,
        created=listed.created,
        started=listed.started,
        ended=listed.ended,
        reason=listed.reason,
        paths=tuple(dict.fromkeys(result.path for result in results)) or wanted.paths or (),
        layouts=tuple(dict.fromkeys(result.layout for result in results)) or wanted.layouts or (),
        steps=len(results),
        tags=listed.tags or (),
        note=listed.note or "",
        kind=kind,
        transfers=sum(counts.transfers for counts in counted),
        host=str((listed.host or {}).get("hostname") or ""),
        about=_about(listed.telemetry) if listed.telemetry else _traffic_about(listed.traffic),
    )


def _about(totals: TelemetryTotals) -> str:
    from kvdeck.sessions.text.telemetry_report import about  # deferred: only telemetry needs it

    return about(totals)


def _traffic_about(traffic: _TrafficListed | None) -> str:
    """Return what a traffic test's row says: ranks, patterns, and the largest congestion ratio."""
    if traffic is None:
        return ""
    ranks = [many(traffic.ranks, "rank")] if traffic.ranks else []
    ratios = [one.ratio.median for one in traffic.patterns if one.ratio is not None]
    congestion = [f"congestion up to {ratio_text(max(ratios))}"] if ratios else []
    return " · ".join([*ranks, many(len(traffic.patterns), "pattern"), *congestion])


def _read_index(home: Path) -> dict[str, tuple[Mark, SessionSummary]]:
    try:
        index = msgspec.json.decode(read_regular(home / "sessions.index", MAX_RECORD), type=_Index)
    except (OSError, ValueError, RecursionError):
        return {}
    if index.version != _INDEX_VERSION or index.fields != _FIELDS:
        return {}
    rows = {row[1]: (row[0], SessionSummary(*row[1:])) for row in index.rows}
    former = {name: known for name, known in rows.items() if known[1].kind in KIND_V1.values()}
    for name, (mark, summary) in former.items():  # of an index that an earlier version wrote
        rows[name] = (mark, msgspec.structs.replace(summary, kind=present_kind(summary.kind)))
    return rows


def _write_index(home: Path, found: dict[str, tuple[Mark, SessionSummary]]) -> None:
    rows = [
        [mark, *(getattr(summary, name) for name in _FIELDS)]
        for mark, summary in found.values()
        if summary.state != UNREADABLE
    ]
    # Best effort: without an index, or with a damaged one, listing is only slower.
    with contextlib.suppress(OSError):
        replace_file(
            home / "sessions.index", orjson.dumps({"version": _INDEX_VERSION, "fields": _FIELDS, "rows": rows})
        )
