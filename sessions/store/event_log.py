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

from kvdeck.sessions.errors import SessionError
from kvdeck.sessions.host.files import open_regular
from kvdeck.sessions.model.encoding import encode_line
from kvdeck.sessions.model.events import Event, decode_event
from kvdeck.sessions.model.run_state import LogEntry

READ_BYTES = 256 * 1024
FOLLOW_SECONDS = 0.25
PIECE_BYTES = 1 << 20
"""Size of a chunk of a file that is not read whole."""


class LogSource(Protocol):
    """A run's lines from any origin: its file, its engine, or the file and then the engine.

    Rounds from the engine have empty `post_ns` and `transfer_ns`: it sends only their counters.
    """

    def follow(self, from_seq: int = 0) -> Iterator[LogEntry]:
        """Yield the lines from number `from_seq` on, in order, each once."""
        ...


class FileLog:
    """A `LogSource` over the file alone; with `wait` it waits at its end until the run ends or `stop` is set."""

    def __init__(self, path: Path, *, wait: bool = False, stop: threading.Event | None = None) -> None:
        self._path, self._wait, self._stop = path, wait, stop or threading.Event()

    def follow(self, from_seq: int = 0) -> Iterator[LogEntry]:
        """Yield the file's lines from `from_seq` on.

        Raises:
            SessionError: The file exists but can't be read.
        """
        reader = LineReader(self._path, from_seq)
        while not self._stop.is_set():
            batch = reader.read()
            for seq, raw in batch:
                entry = entry_of_line(seq, raw)
                yield entry
                if self._wait and entry.ends:
                    return
            if not batch:
                if not self._wait:
                    return
                self._stop.wait(FOLLOW_SECONDS)


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
            # A round's line holds a time per request, and may be longer than one read.
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


def read_events(path: Path) -> Iterator[Event]:
    """Yield the file's events; lines of unknown kinds and damaged lines are skipped."""
    return (entry.event for entry in FileLog(path).follow() if entry.event is not None)


def spread_events(path: Path, most: int) -> Iterator[Event]:
    """Yield the file's events; of a file larger than `most` bytes, those of chunks spread evenly over it.

    Raises:
        SessionError: The file exists but can't be read.
    """
    try:
        size = path.stat().st_size
    except OSError:
        return
    if size <= most:
        yield from read_events(path)
        return
    pieces = most // PIECE_BYTES
    try:
        with open_regular(path) as file:
            for number in range(pieces):
                file.seek(number * (size - PIECE_BYTES) // max(1, pieces - 1))
                # The first and the last line of a chunk are cut, or whole by chance.
                lines = file.read(PIECE_BYTES).split(b"\n")[1:-1]
                yield from (event for line in lines if (event := decode_event(line)) is not None)
    except OSError as error:
        raise SessionError(f"can't read {path}: {error.strerror}", "check its owner and mode") from error


def count_lines(path: Path) -> int:
    """Return the number of complete lines in the file."""
    return sum(1 for _ in read_lines(path))


def entry_of_line(seq: int, line: bytes) -> LogEntry:
    """Return line number `seq` of the file, given without its newline."""
    return LogEntry(seq, decode_event(line))


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
    line = encode_line(event)
    try:
        truncate_torn_tail(path)
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # A short write means a full disk: half a line must not stay, or the next one would be joined to it.
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
