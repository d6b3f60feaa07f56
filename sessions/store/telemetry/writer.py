"""Writer of a telemetry session: samples in size-bounded segments, and annotations. One process at a time.

If the segments exceed the limit, two neighbours are merged into one with every second of their samples, starting with
the densest for their age. So old data gets thinner over time, and none is cut off.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from pathlib import Path

import orjson

from kvdeck.sessions.errors import SessionError, UsageError
from kvdeck.sessions.host.files import replace_file
from kvdeck.sessions.store.telemetry import annotations as marks_module
from kvdeck.sessions.store.telemetry.annotations import Mark, encode_mark, marks_path
from kvdeck.sessions.store.telemetry.delta import Encoder, Moment, decode
from kvdeck.sessions.store.telemetry.segments import Segment, lines_of, pack, segment_name, segments
from kvdeck.sessions.units import size_text

DEFAULT_LIMIT = 256 << 20
LEAST_LIMIT = 1_000_000
SEGMENT_MOMENTS = 256
SEGMENT_BYTES = 1 << 20


class Writer:
    """Appends samples and annotations to a session's folder; each is one write, so a kill tears at most the last
    line."""

    def __init__(self, folder: Path, limit: int = DEFAULT_LIMIT) -> None:
        """Take the telemetry session's lock and create its folders.

        Raises:
            UsageError: Another process is writing it.
            SessionError: It can't be written or locked.
        """
        self._folder, self._moments, self._limit = folder, folder / "moments", limit
        self._segment_bytes = min(SEGMENT_BYTES, max(4096, limit // 16))
        self._encoder = Encoder()
        self._live: _Live | None = None
        self._thinned = False
        try:
            self._moments.mkdir(exist_ok=True, mode=0o700)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self._marks = os.open(marks_path(folder), flags, 0o600)
            self._marks_bytes = os.fstat(self._marks).st_size
        except OSError as error:
            raise _error(folder, error) from error
        try:
            free = marks_module.lock_as_writer(self._marks)
        except OSError as error:
            os.close(self._marks)
            raise SessionError(
                f"can't lock {marks_path(folder)}: {error.strerror}", "set KVDECK_HOME to a folder on a local disk"
            ) from error
        if not free:
            os.close(self._marks)
            raise UsageError(f"another process is writing the telemetry session {folder.name!r}", "choose another name")
        self._closed = segments(self._moments)

    @property
    def size(self) -> int:
        """Bytes of samples and annotations on disk."""
        live = 0 if self._live is None else self._live.size
        return sum(segment.size for segment in self._closed) + live + self._marks_bytes

    def write(self, raw: bytes) -> Moment:
        """Append a sample, given as JSON.

        Returns:
            The sample; unchanged rows are the same objects as before.

        Raises:
            SessionError: It can't be written; none of it remains.
            ValueError: It is not a sample.
        """
        if self._live is not None and self._live.full(self._segment_bytes):
            self._roll()
        if self._live is None:
            # A segment has to be readable without the one before, which may be thinned or lost.
            self._encoder.restart()
        line = self._encoder.line(raw)
        try:
            if self._live is None:
                self._live = self._begin(line)
            self._live.append(line)
        except OSError as error:
            # The line that failed is no base for the next one.
            self._encoder.restart()
            raise _error(self._moments, error) from error
        return self._encoder.moment

    def mark(self, mark: Mark) -> None:
        """Append an annotation; there is room for about ten thousand, further ones fail.

        Raises:
            SessionError: There is no room, or it can't be written.
        """
        line = encode_mark(mark)
        if self._marks_bytes + len(line) > marks_module.MOST_BYTES and mark.kind != "end":
            raise SessionError("the telemetry session can't hold more annotations", "start another telemetry session")
        try:
            if os.write(self._marks, line) != len(line):
                # A torn line would swallow the next annotation.
                os.ftruncate(self._marks, self._marks_bytes)
                raise OSError(errno.ENOSPC, "the disk is full")
        except OSError as error:
            raise _error(self._folder, error) from error
        self._marks_bytes += len(line)

    def close(self) -> None:
        """Pack the last segment and release the lock."""
        with contextlib.suppress(SessionError):  # an unpacked segment is readable too
            self._roll()
        os.close(self._marks)

    def _begin(self, line: bytes) -> _Live:
        moment = decode(line, None)
        assert moment is not None
        # After the last one that exists: numbers of merged segments aren't used again, as readers may be at them.
        number = 1 + (self._closed[-1].number if self._closed else -1)
        path = self._moments / segment_name(number, moment["t"], 1, packed=False)
        return _Live(number, moment["t"], path)

    def _roll(self) -> None:
        """Close and pack the current segment, then thin old ones if over the limit."""
        live, self._live = self._live, None
        if live is None:
            return
        live.close()
        segment = Segment(live.number, live.begin, 1, False, live.path, live.size)
        try:
            self._closed.append(self._replace([segment], lines_of(segment), 1))
            self._make_room()
        except OSError as error:
            self._closed = segments(self._moments)
            raise _error(self._moments, error) from error

    def _replace(self, old: list[Segment], lines: list[bytes], every: int) -> Segment:
        """Replace segments by one packed segment; if interrupted, readers see either the old ones or the new one."""
        first = old[0]
        path = self._moments / segment_name(first.number, first.begin, every, packed=True)
        data = pack(lines)
        replace_file(path, data)
        for segment in old:
            if segment.path != path:
                segment.path.unlink(missing_ok=True)
        return Segment(first.number, first.begin, every, True, path, len(data))

    def _make_room(self) -> None:
        while len(self._closed) > 1 and self.size > self._limit - self._segment_bytes - marks_module.MOST_BYTES // 8:
            index = self._densest_for_its_age()
            pair = self._closed[index : index + 2]
            every = 2 * max(segment.every for segment in pair)
            self._closed[index : index + 2] = [self._replace(pair, _every_second(pair), every)]
            if not self._thinned:
                self._thinned = True
                with contextlib.suppress(SessionError):
                    self.mark(Mark(time.time(), (
                        f"the limit of {size_text(self._limit)} is reached: from "
                        "here on older samples are thinned"
                    ), "thinned"))  # fmt: skip

    def _densest_for_its_age(self) -> int:
        """Return the index of the pair that is densest for its age; pairs of equal density are preferred."""
        now = self._closed[-1].begin
        pairs = list(zip(self._closed, self._closed[1:], strict=False))
        alike = [index for index, (a, b) in enumerate(pairs) if a.every == b.every] or list(range(len(pairs)))
        return max(alike, key=lambda index: (now - pairs[index][0].begin + 1) / pairs[index][0].every)


def _every_second(pair: list[Segment]) -> list[bytes]:
    """Return every second sample of these segments, re-encoded, starting with the first.

    Samples already seen are skipped: a kill between merging two segments and removing the second leaves them in both.
    """
    encoder, kept = Encoder(), list[bytes]()
    count, last = 0, float("-inf")
    for segment in pair:
        before: Moment | None = None
        known = True
        for line in lines_of(segment):
            try:
                before = decode(line, before)
            except ValueError:
                before = None
            if before is None:
                continue
            known = known and before["t"] <= last
            if known:
                continue
            last = before["t"]
            if count % 2 == 0:
                kept.append(encoder.line(orjson.dumps(before)).rstrip(b"\n"))
            count += 1
    return kept


class _Live:
    """The segment being written."""

    def __init__(self, number: int, begin: float, path: Path) -> None:
        self.number, self.begin, self.path = number, begin, path
        self.size = self._count = 0
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def full(self, most: int) -> bool:
        return self._count >= SEGMENT_MOMENTS or self.size >= most

    def append(self, line: bytes) -> None:
        written = os.write(self._fd, line)
        if written != len(line):
            os.ftruncate(self._fd, self.size)
            raise OSError(errno.ENOSPC, "the disk is full")
        self.size += written
        self._count += 1

    def close(self) -> None:
        os.close(self._fd)


def _error(folder: Path, error: OSError) -> SessionError:
    return SessionError(
        f"can't write in {folder}: {error.strerror}", "free disk space, or set KVDECK_HOME to a folder you own"
    )
