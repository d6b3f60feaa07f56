"""Reader of a telemetry session's samples, also during recording; holds one segment in memory."""

from __future__ import annotations

import contextlib
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path

from kvdeck.sessions.store.telemetry.delta import Moment, decode, time_of
from kvdeck.sessions.store.telemetry.segments import Segment, lines_of, segments

TRIES = 5
"""Maximum listings of the segments while a writer packs or thins them."""


class MomentReader:
    """Reads samples by time. Going forward costs one line per sample; any other move, at most one segment."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "moments"
        self.segments: list[Segment] = []
        self.damaged = 0
        """Number of lines read so far that hold no sample."""
        self._cursor: _Cursor | None = None
        self.refresh()

    def refresh(self) -> None:
        """Update to what was written since."""
        before = self.segments
        self.segments = segments(self._folder)
        cursor = self._cursor
        if cursor is None:
            return
        now = next((found for found in self.segments if found.number == cursor.segment.number), None)
        if now is None or now.every != cursor.segment.every:
            self._cursor = None
        elif now.size != cursor.segment.size or now.packed != cursor.segment.packed or before != self.segments:
            with contextlib.suppress(FileNotFoundError):
                cursor.extend(now)

    @property
    def begin(self) -> float | None:
        """Unix time of the first sample, in seconds; None if there is none."""
        first = next(self.moments(), None)
        return None if first is None else float(first["t"])

    @property
    def end(self) -> float | None:
        """Unix time of the last sample, in seconds; None if there is none."""
        for segment in reversed(self.segments):
            t = self._open(segment).last
            if t is not None:
                return t
        return None

    @property
    def size(self) -> int:
        """Bytes of all segments on disk."""
        return sum(segment.size for segment in self.segments)

    @property
    def thinned(self) -> list[tuple[float, float, int]]:
        """Thinned spans: begin, end (Unix seconds) and N, where one in N samples remains."""
        spans: list[tuple[float, float, int]] = []
        for part, following in zip(self.segments, [*self.segments[1:], None], strict=False):
            end = part.begin if following is None else following.begin
            if spans and spans[-1][1:] == (part.begin, part.every):
                spans[-1] = (spans[-1][0], end, part.every)
            elif part.every > 1:
                spans.append((part.begin, end, part.every))
        return spans

    def at(self, t: float) -> Moment | None:
        """Return the newest sample at or before `t`; None before the first."""
        index = bisect_right(self.segments, t, key=lambda segment: segment.begin) - 1
        while index >= 0:
            found = self._in_segment(index, t)
            if found is not None:
                return found
            index -= 1
        return None

    def _in_segment(self, index: int, t: float) -> Moment | None:
        segment = self.segments[index]
        cursor = self._cursor
        if cursor is None or cursor.segment.number != segment.number or cursor.t > t:
            self._cursor = cursor = self._open(segment)
        found = cursor.until(t)
        self.damaged += cursor.take_damaged()
        return found

    def moments(self, begin: float | None = None, end: float | None = None) -> Iterator[Moment]:
        """Yield every sample from `begin` to `end` inclusive, also those written meanwhile."""
        last = float("-inf")
        index = 0 if begin is None else bisect_right(self.segments, begin, key=lambda segment: segment.begin) - 1
        cursor = self._cursor_at(max(0, index))
        known = True  # the start of a segment thinned meanwhile may have been yielded already
        while cursor is not None:
            while (moment := cursor.step()) is not None:
                t = moment["t"]
                if end is not None and t > end:
                    return
                known = known and t <= last
                if not known and (begin is None or t >= begin):
                    last = t
                    yield moment
            self.damaged += cursor.take_damaged()
            before, cursor = cursor, self._after(cursor)
            known = known if cursor is before else True

    def _after(self, cursor: _Cursor) -> _Cursor | None:
        """Return the cursor to continue with at the end of a segment; None at the end of all."""
        self.segments = segments(self._folder)
        done = cursor.segment
        index = bisect_right(self.segments, done.number, key=lambda segment: segment.number) - 1
        if index >= 0:
            now = self.segments[index]
            if (now.number, now.every) != (done.number, done.every):
                return self._cursor_at(index)  # thinned and merged: its remaining samples are in that segment
            if now.size != done.size or now.packed != done.packed:
                with contextlib.suppress(FileNotFoundError):
                    if cursor.extend(now):
                        return cursor
        return self._cursor_at(index + 1)

    def _cursor_at(self, index: int) -> _Cursor | None:
        if index >= len(self.segments):
            return None
        return self._open(self.segments[index])

    def _open(self, segment: Segment) -> _Cursor:
        """Return a cursor at the start of a segment, or of the one it was merged into meanwhile."""
        for _ in range(TRIES):
            with contextlib.suppress(FileNotFoundError):
                return _Cursor(segment, lines_of(segment))
            self.segments = segments(self._folder)
            index = bisect_right(self.segments, segment.number, key=lambda found: found.number) - 1
            if index < 0:
                break
            segment = self.segments[index]
        return _Cursor(segment, [])


class _Cursor:
    """A position in a segment's lines, with the sample decoded there."""

    def __init__(self, segment: Segment, lines: list[bytes]) -> None:
        self.segment = segment
        self._lines = lines
        self._next = 0
        self._base: Moment | None = None
        """Base of the next line's delta; None if unknown."""
        self._moment: Moment | None = None
        self._ahead: Moment | None = None
        self._damaged = 0

    @property
    def t(self) -> float:
        return float("inf") if self._moment is None else float(self._moment["t"])

    @property
    def last(self) -> float | None:
        """Unix time of the segment's last sample, in seconds; None if it has none."""
        return next((t for line in reversed(self._lines) if (t := time_of(line)) is not None), None)

    def extend(self, segment: Segment) -> bool:
        """Add new lines; True if there are any. Packing a segment doesn't change its lines."""
        lines, before = lines_of(segment), len(self._lines)
        if len(lines) >= before:
            self.segment, self._lines = segment, lines
        return len(lines) > before

    def take_damaged(self) -> int:
        count, self._damaged = self._damaged, 0
        return count

    def until(self, t: float) -> Moment | None:
        """Advance to the last sample at or before `t` and return it."""
        while True:
            # A sample past `t` shows that the one before it is the newest; it is kept for the next call.
            ahead = self._ahead or self._decode()
            self._ahead = ahead
            if ahead is None or ahead["t"] > t:
                return self._moment
            self._moment, self._ahead = ahead, None

    def step(self) -> Moment | None:
        """Return the next sample; None at the end."""
        self._moment = self._decode()
        return self._moment

    def _decode(self) -> Moment | None:
        while self._next < len(self._lines):
            line = self._lines[self._next]
            self._next += 1
            try:
                moment = decode(line, self._base)
            except ValueError:
                # The following deltas have no base: continue with the next full sample.
                self._base = moment = None
            if moment is not None:
                self._base = moment
                return moment
            self._damaged += 1
        return None
