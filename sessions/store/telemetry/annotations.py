"""Annotations of a telemetry session: the append-only `marks.jsonl`, and the lock of the process that writes it."""

from __future__ import annotations

import time
from pathlib import Path

from msgspec import Struct

from kvdeck.sessions.errors import SessionError
from kvdeck.sessions.host.files import open_regular
from kvdeck.sessions.model.encoding import decode, encode_line
from kvdeck.sessions.store.locks import lock

MOST_BYTES = 1 << 20
MOST_TEXT = 500
FRESH_SECONDS = 15.0
ASKED_SECONDS = 0.5
"""Maximum seconds that `is_written` calls of other processes may hold the lock."""


class Mark(Struct, frozen=True):
    """An annotation: a time and a text."""

    t: float
    """Unix time in seconds."""
    text: str
    kind: str = "note"
    """`note`, `threshold`, `gap` (nothing was recorded before it), `thinned` (the limit was reached), `end`."""


def marks_path(folder: Path) -> Path:
    return folder / "marks.jsonl"


def encode_mark(mark: Mark) -> bytes:
    """Return the annotation as a line, newline included; control characters become spaces, long text is truncated."""
    text = " ".join("".join(c if c.isprintable() else " " for c in mark.text).split())[:MOST_TEXT]
    kind = mark.kind if mark.kind.isidentifier() and len(mark.kind) <= 32 else "note"
    return encode_line(Mark(mark.t, text, kind))


def read_marks(folder: Path) -> tuple[Mark, ...]:
    """Return all annotations in order of time; damaged lines are skipped.

    Raises:
        SessionError: The file exists but can't be read.
    """
    path = marks_path(folder)
    try:
        with open_regular(path) as file:
            data = file.read(2 * MOST_BYTES)
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise SessionError(f"can't read {path}: {error.strerror}", "check its owner and mode") from error
    found = (_mark(line) for line in data.split(b"\n")[:-1])
    return tuple(sorted((mark for mark in found if mark is not None), key=lambda mark: mark.t))


def _mark(line: bytes) -> Mark | None:
    try:
        return decode(Mark, line)
    except ValueError:
        return None


def lock_as_writer(fd: int) -> bool:
    """Take the writer's lock on an open `marks.jsonl`; False if another writer has it. Released when the process exits.

    `is_written` holds the lock for an instant, so only a lock held longer than `ASKED_SECONDS` is a writer's.

    Raises:
        OSError: It can't be locked, on a file system that has locks.
    """
    deadline = time.monotonic() + ASKED_SECONDS
    while lock(fd) == "busy":
        if time.monotonic() > deadline:
            return False
        # Not a waiting lock: a real writer holds it for as long as it records.
        time.sleep(0.001)
    return True


def is_written(folder: Path) -> bool:
    """True if a process has the telemetry session open for writing."""
    try:
        with open_regular(marks_path(folder)) as file:
            found = lock(file.fileno(), shared=True)
    except OSError:
        return False
    return found == "busy" or (found == "unsupported" and _fresh(folder))


def _fresh(folder: Path) -> bool:
    """True if `summary.json` was updated recently, as writers do every few seconds; used on file systems without
    locks."""
    try:
        return time.time() - (folder / "summary.json").stat().st_mtime < FRESH_SECONDS
    except OSError:
        return False
