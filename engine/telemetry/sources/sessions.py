"""Sources that read sessions: Dynamo's session files, and the samples of kvdeck's own runs."""

from __future__ import annotations

import os
import time
from pathlib import Path

from kvdeck.engine.telemetry.source import Reading, Series, SourceGone
from kvdeck.engine.telemetry.sources.local_source import LocalSource, now_ns
from kvdeck.sessions.errors import SessionError
from kvdeck.sessions.formats import dynamo
from kvdeck.sessions.model.run_state import RunState, advance
from kvdeck.sessions.store.event_log import LineReader, entry_of_line
from kvdeck.sessions.store.index import names

RECENT_S = 60.0
"""A run is included if its samples file changed within this time."""
RESCAN_S = 5.0
_READ_LIMIT = 4 << 20
"""Bytes after which one reading of a run stops; the next one continues there."""
_MEASURES = {
    "bytes": ("session_bytes", 1.0),
    "blocks": ("session_blocks", 1.0),
    "iterations": ("session_transfers", 1.0),
    "descriptors": ("session_descriptors", 1.0),
    "busy_ns": ("session_seconds", 1e-9),
}
"""Counter of a round → metric, and the factor to the metric's unit."""


def dynamo_file_source(path: Path) -> LocalSource:
    """Return a source for one of Dynamo's session files, which is parsed again when it changes."""
    return LocalSource(f"session {path}", "session", DynamoFile(path).look)


class DynamoFile:
    """Totals of a session file; ignores the file's own rates, which are averages over the whole session."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mark: tuple[int, int, int] | None = None
        self._reading: Reading | None = None

    def look(self) -> Reading:
        """Return the totals, timed by the file's modification time.

        Raises:
            OSError: The file doesn't exist.
            SourceGone: It can't be read.
        """
        status = self._path.stat()
        mark = (status.st_ino, status.st_mtime_ns, status.st_size)
        if mark == self._mark and self._reading is not None:
            return self._reading
        try:
            counts = dynamo.read(self._path)
        except SessionError as error:
            raise SourceGone(error.what) from None
        values: dict[Series, float] = {}
        for one in counts.transfer_counts:
            labels = (("layout", one.layout), ("path", one.path))
            values[Series("session_bytes", labels)] = one.bytes
            values[Series("session_blocks", labels)] = one.blocks
            values[Series("session_transfers", labels)] = one.transfers
        self._mark, self._reading = mark, Reading(status.st_mtime_ns, values)
        return self._reading


def runs_source(home: Path) -> LocalSource:
    """Return a source for kvdeck's own runs in progress."""
    return LocalSource("kvdeck runs", "session", OwnRuns(home).look, least_period_s=0.25)


class OwnRuns:
    """Counters of every run whose samples changed recently, one set of series per path and layout."""

    def __init__(self, home: Path) -> None:
        self._sessions = home / "sessions"
        self._runs: dict[str, _Run] = {}
        self._scanned = -RESCAN_S

    def look(self) -> Reading:
        """Return the counters from the last complete line of each run."""
        now = time.monotonic()
        if now - self._scanned >= RESCAN_S:
            self._scanned = now
            self._rescan()
        values: dict[Series, float] = {}
        for run in self._runs.values():
            run.read()
            run.add_to(values)
        return Reading(now_ns(), values, quiet="" if values else "no run of kvdeck is in progress")

    def _rescan(self) -> None:
        fresh = {}
        for name in names(self._sessions):
            path = self._sessions / name / "samples.jsonl"
            try:
                changed = os.stat(path).st_mtime  # noqa: PTH116
            except OSError:
                continue
            if time.time() - changed < RECENT_S:
                fresh[name] = self._runs.get(name) or _Run(name, path)
        self._runs = fresh


class _Run:
    def __init__(self, name: str, path: Path) -> None:
        self._reader = LineReader(path)
        self._state = RunState(name)

    def read(self) -> None:
        taken = 0
        while taken < _READ_LIMIT and (lines := self._reader.read()):
            for seq, raw in lines:
                taken += len(raw)
                self._state = advance(self._state, entry_of_line(seq, raw))

    def add_to(self, values: dict[Series, float]) -> None:
        """Add the run's series: one per counter, path and layout, summed over its steps."""
        for step in self._state.steps:
            plan = step.plan
            labels = (("layout", plan.layout), ("path", plan.path), ("session", self._state.session))
            for counter, (metric, factor) in _MEASURES.items():
                value = step.counter(counter)
                if value is not None:
                    series = Series(metric, labels)
                    values[series] = values.get(series, 0.0) + value * factor
