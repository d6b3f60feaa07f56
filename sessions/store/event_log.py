"""`samples.jsonl`: the append-only file of a run's events. A line's number, from 0, is its `seq`.

A line is one write, so a writer that dies leaves at most a torn last line; readers ignore it, and the next writer
removes it. Each read reopens the file, because that makes new data visible over NFS.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import orjson

from kvdeck.sessions.errors import SessionError
from kvdeck.sessions.host.documents import load_record
from kvdeck.sessions.host.files import open_regular
from kvdeck.sessions.model.events import Event, StateChanged, event_from_json, event_to_json

READ_BYTES = 256 * 1024
FOLLOW_SECONDS = 0.25


class SampleSource(Protocol):
    """A run's events from any origin: its file, the engine, or the file and then the engine.

    Rounds from the engine have empty `post_ns` and `transfer_ns`: it sends only their counters.
    """

    def events(self) -> Iterator[tuple[int, Event]]:
        """Yield each event with its `seq`, in order."""
        ...


class FileSource:
    """A `SampleSource` on the file alone; with `follow` it waits until the run ends or `stop` is set."""

    def __init__(
        self, path: Path, from_seq: int = 0, follow: bool = False, stop: threading.Event | None = None
    ) -> None:
        self._path, self._from_seq, self._follow, self._stop = path, from_seq, follow, stop

    def events(self) -> Iterator[tuple[int, Event]]:
        if self._follow:
            yield from follow_events(self._path, self._from_seq, self._stop)
        else:
            yield from read_events(self._path, self._from_seq)


class LineReader:
    """Reads complete lines of a growing file, from line `from_seq` on."""

    def __init__(self, path: Path, from_seq: int = 0) -> None:
        self._path, self._from_seq = path, from_seq
        self._offset = 0
        self._seq = 0

    @property
    def seq(self) -> int:
        """Number of the next line to be returned."""
        return max(self._seq, self._from_seq)

    def skip_to(self, seq: int) -> None:
        """Skip the lines before `seq`; going back needs a new reader."""
        self._from_seq = max(self._from_seq, seq)

    def read(self, limit: int = READ_BYTES) -> list[tuple[int, bytes]]:
        """Return the next lines, about `limit` bytes, without newlines; empty at the end of the file or if it is
        missing.

        Raises:
            SessionError: The file exists but can't be read.
        """
        try:
            with open_regular(self._path) as file:
                while (chunk := self._chunk(file.fileno(), limit)) is not None:
                    lines = self._take(chunk)
                    if lines:
                        return lines
        except FileNotFoundError:
            pass
        except OSError as error:
            raise SessionError(f"can't read {self._path}: {error.strerror}", "check its owner and mode") from error
        return []

    def _chunk(self, fd: int, limit: int) -> bytes | None:
        while True:
            data = os.pread(fd, limit, self._offset)
            end = data.rfind(b"\n") + 1
            if end:
                return data[:end]
            if len(data) < limit:
                return None
            limit *= 2

    def _take(self, chunk: bytes) -> list[tuple[int, bytes]]:
        self._offset += len(chunk)
        count = chunk.count(b"\n")
        first, self._seq = self._seq, self._seq + count
        if self._seq <= self._from_seq:
            return []
        lines = chunk[:-1].split(b"\n")
        skip = max(0, self._from_seq - first)
        return list(enumerate(lines[skip:], first + skip))


def read_lines(path: Path, from_seq: int = 0) -> Iterator[tuple[int, bytes]]:
    """Yield the file's complete lines from `from_seq` to the current end."""
    reader = LineReader(path, from_seq)
    while batch := reader.read():
        yield from batch


def read_events(path: Path, from_seq: int = 0) -> Iterator[tuple[int, Event]]:
    """Yield the file's events from `from_seq` on; lines of unknown kinds and damaged lines are skipped."""
    for seq, line in read_lines(path, from_seq):
        event = decode_event(line)
        if event is not None:
            yield seq, event


def follow_events(path: Path, from_seq: int = 0, stop: threading.Event | None = None) -> Iterator[tuple[int, Event]]:
    """Yield as `read_events`, then every appended event, until the run's final state or `stop`."""
    stop = stop or threading.Event()
    reader = LineReader(path, from_seq)
    while not stop.is_set():
        batch = reader.read()
        for seq, line in batch:
            event = decode_event(line)
            if event is not None:
                yield seq, event
            if isinstance(event, StateChanged) and event.state not in ("queued", "running"):
                return
        if not batch:
            stop.wait(FOLLOW_SECONDS)


def count_lines(path: Path) -> int:
    """Return the number of complete lines in the file."""
    return sum(1 for _ in read_lines(path))


def encode_event(event: Event) -> bytes:
    """Return the event as a line, newline included."""
    return orjson.dumps(event_to_json(event), option=orjson.OPT_APPEND_NEWLINE)


def decode_event(line: bytes) -> Event | None:
    """Return the event of a line; None if its kind is unknown to this version or it is damaged."""
    try:
        data = load_record(line)
        return event_from_json(data) if isinstance(data, dict) else None
    except (ValueError, TypeError, AttributeError):
        return None


def truncate_torn_tail(path: Path) -> int:
    """Truncate the file after its last newline, so that a line can be appended.

    Returns:
        Bytes removed; 0 if the file is complete or missing.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        size = os.fstat(fd).st_size
        end = _line_start(fd, size)
        if end < size:
            os.ftruncate(fd, end)
        return size - end
    finally:
        os.close(fd)


def drop_last_line(path: Path) -> None:
    """Remove the last complete line, and a torn tail after it."""
    truncate_torn_tail(path)
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size
        os.ftruncate(fd, _line_start(fd, max(0, size - 1)))
    finally:
        os.close(fd)


def _line_start(fd: int, end: int) -> int:
    """Return the offset after the last newline before `end`."""
    while end > 0:
        start = max(0, end - 65536)
        newline = os.pread(fd, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def append_event(path: Path, event: Event) -> bytes:
    """Append one line with a single write and fsync it; a torn tail is removed first.

    Returns:
        The line, newline included.

    Raises:
        SessionError: The line can't be written completely; none of it remains.
    """
    line = encode_event(event)
    try:
        truncate_torn_tail(path)
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.write(fd, line) != len(line):
                truncate_torn_tail(path)
                raise SessionError(f"can't append to {path}: the disk is full", "free disk space in that folder")
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise SessionError(
            f"can't append to {path}: {error.strerror}", "check the folder's free space and owner"
        ) from error
    return line
