"""Telemetry sessions: written sample by sample, read by time, also while they are being written."""

from __future__ import annotations

import contextlib
import importlib.metadata
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import orjson
from msgspec.structs import replace

from kvdeck.engine.telemetry.histogram import Histogram
from kvdeck.engine.telemetry.sample import Check, Flow, Number, Snapshot, check_row, to_mapping
from kvdeck.engine.telemetry.service import Latency, Service, TierHits
from kvdeck.engine.telemetry.tracker import SourceStatus
from kvdeck.sessions.errors import SessionError
from kvdeck.sessions.model.encoding import convert
from kvdeck.sessions.model.records import RunState, Session
from kvdeck.sessions.store.store import Store
from kvdeck.sessions.store.telemetry import session as keeping
from kvdeck.sessions.store.telemetry.annotations import Mark, is_written, read_marks
from kvdeck.sessions.store.telemetry.delta import Moment, Row
from kvdeck.sessions.store.telemetry.reader import MomentReader
from kvdeck.sessions.store.telemetry.summary import Summary
from kvdeck.sessions.store.telemetry.writer import DEFAULT_LIMIT, Writer
from kvdeck.sessions.units import duration_text

SUMMARY_SECONDS = 5.0
"""Seconds between two summaries saved while recording."""

__all__ = ["Mark", "TelemetryRecorder", "TelemetrySession"]


class TelemetryRecorder:
    """Writes one recording into its session; call `take` before showing a sample (write-ahead)."""

    def __init__(self, home: Path, name: str) -> None:
        """Open a session that `begin` created; an earlier telemetry session in it is continued after a gap annotation.

        Raises:
            KvdeckError: The session doesn't exist, another process writes it, or it can't be written.
        """
        self._store, self.name = keeping.addressed(Store(home), name)
        self._folder = self._store.folder(self.name)
        session = self._store.read(self.name)
        self._period = 1 / float(session.spec.get("hz") or 1.0)
        self._writer = Writer(self._folder, int(session.spec.get("limit_bytes") or DEFAULT_LIMIT))
        self._summary, self._kept = Summary(), 0.0
        self.first: float | None = None
        """Unix time of the first sample, s."""
        self._last: float | None = None
        self._restarts: dict[str, str | None] = {}
        """The restart that each source's last sample reported, by name; None without one."""
        if session.started is not None:
            before = MomentReader(self._folder)
            self._summary = keeping.caught_up(self._folder, before)
            self.first, self._last = before.begin, before.end
        started = session.started or time.time()
        self._store.write(replace(session, state="running", started=started, ended=None, reason=None))

    @classmethod
    def begin(
        cls,
        home: Path,
        name: str,
        *,
        hz: float = 1.0,
        sources: tuple[str, ...] = (),
        block_bytes: float | None = None,
        limit: int = DEFAULT_LIMIT,
    ) -> TelemetryRecorder:
        """Create a session and return its recorder; arguments and errors as in `keeping.begin`."""
        kvdeck = importlib.metadata.version("kvdeck")
        keeping.begin(Store(home), name, hz=hz, sources=sources, block_bytes=block_bytes, limit=limit, kvdeck=kvdeck)
        return cls(home, name)

    @property
    def size(self) -> int:
        """Bytes on disk so far."""
        return self._writer.size

    def take(self, snapshot: Snapshot) -> None:
        """Append a sample.

        Raises:
            SessionError: It can't be written.
        """
        self.take_json(snapshot.t, orjson.dumps(to_mapping(snapshot)))

    def take_json(self, t: float, raw: bytes) -> None:
        """As `take`, for a sample of Unix time `t` given as JSON."""
        if self._last is not None:
            self._note_gap(self._last, t)
        moment = self._writer.write(raw)
        with contextlib.suppress(ValueError):  # record a sample even if it can't be summarised
            self._summary.take(moment)
        self._note_restarts(moment, t)
        self.first, self._last = self.first or t, t
        if t - self._kept >= SUMMARY_SECONDS or t < self._kept:
            self._kept = t
            with contextlib.suppress(OSError):  # best effort: readers can compute the summary from the samples
                keeping.write_summary(self._summary, self._folder)

    def _note_restarts(self, moment: Moment, t: float) -> None:
        """Annotate each restart of a source once; its state says so for several samples."""
        for row in moment.get("sources") or ():
            name, reason = row.get("name"), row.get("reason") if row.get("state") == "reset" else None
            if reason is not None and self._restarts.get(name) != reason:
                self.mark(Mark(t, f"{name} {reason}", "restart"))
            self._restarts[name] = reason

    def _note_gap(self, last: float, t: float) -> None:
        missing = t - last
        if missing > 3 * self._period + 2:
            self.mark(Mark(t, f"no samples for {duration_text(missing)} before this", "gap"))
        elif missing < 0:
            self.mark(Mark(t, f"the clock was set back by {duration_text(-missing)}", "gap"))

    def mark(self, mark: Mark) -> None:
        """Append an annotation.

        Raises:
            SessionError: It can't be written, or there are too many.
        """
        self._writer.mark(mark)

    def close(self, state: RunState = "done", reason: str | None = None) -> None:
        """End the telemetry session and set its final state.

        Raises:
            SessionError: The session can't be written; its state isn't updated then.
        """
        # On a full disk both may fail: session.json holds the end too, and readers can compute the summary.
        with contextlib.suppress(SessionError):
            self._writer.mark(Mark(time.time(), reason or "the recording ended", "end"))
        with contextlib.suppress(OSError):
            keeping.write_summary(self._summary, self._folder)
        self._writer.close()
        keeping.end(self._store, self.name, state, reason)


class TelemetrySession:
    """A telemetry session on disk; at most one of its segments is in memory."""

    def __init__(self, session: Session, folder: Path) -> None:
        self.name = session.name
        self.session = session
        self._folder = folder
        self._reader = MomentReader(folder)
        self._rows = _Rows()
        self.begin = 0.0
        """Unix time of the first sample, s; the session's start or creation if there was none at the first refresh."""
        self.end = 0.0
        """Unix time of the last sample so far, s."""
        self.marks: tuple[Mark, ...] = ()
        self.bytes = 0
        """Size on disk."""
        self.live = False
        """True while it is being written."""
        self.refresh()

    @classmethod
    def open(cls, home: Path, name: str) -> TelemetrySession:
        """Return the telemetry session `name`, or the one inside the run `name`.

        Raises:
            KvdeckError: It doesn't exist, is another kind of session, or can't be read.
        """
        store = Store(home)
        if not store.exists(name):
            raise SessionError(f"unknown telemetry session {name!r}", "see `kvdeck session list telemetry`")
        session = store.load(name)
        inside = store.inside(name)
        if session.kind != "telemetry" and inside.exists(keeping.INSIDE):
            recording = cls(inside.load(keeping.INSIDE), inside.folder(keeping.INSIDE))
            recording.name = name
            return recording
        if session.kind != "telemetry":
            raise SessionError(f"session {name!r} is not a telemetry session", "see `kvdeck session list telemetry`")
        return cls(session, store.folder(name))

    def refresh(self) -> None:
        """Update to what has been written since the last refresh.

        Raises:
            SessionError: It can't be read.
        """
        self.live = is_written(self._folder)
        self._reader.refresh()
        self.begin = self.begin or self._reader.begin or self.session.started or self.session.created
        self.end = self._reader.end or self.begin
        self.marks = read_marks(self._folder)
        self.bytes = self._reader.size

    @property
    def thinned(self) -> tuple[tuple[float, float, int], ...]:
        """Thinned spans as (begin, end, n): Unix times in s, and one stored sample per `n` recorded ones."""
        return tuple(self._reader.thinned)

    def at(self, t: float) -> Snapshot | None:
        """Return the newest sample at or before Unix time `t`; None before the first.

        Raises:
            SessionError: The sample is damaged.
        """
        moment = self._reader.at(t)
        return None if moment is None else self._rows.snapshot(moment)

    def moments(self, begin: float | None = None, end: float | None = None) -> Iterator[Snapshot]:
        """Yield the samples from Unix time `begin` to `end`, in order; skips damaged ones."""
        rows = _Rows()
        for moment in self._reader.moments(begin, end):
            with contextlib.suppress(SessionError):  # skip a damaged sample, as the reader skips damaged lines
                yield rows.snapshot(moment)

    def mappings(self, begin: float | None = None, end: float | None = None) -> Iterator[Moment]:
        """As `moments`, each in the form of `kvdeck monitor --json`."""
        return self._reader.moments(begin, end)


Record = TypeVar("Record")


class _Rows:
    """Converts rows to records; reuses the record of a row that is the same object as in the previous sample."""

    def __init__(self) -> None:
        self._before: dict[str, list[tuple[Row, Any]]] = {}

    def snapshot(self, moment: Moment) -> Snapshot:
        """Return the sample as records.

        Raises:
            SessionError: It is damaged.
        """
        try:
            return Snapshot(
                moment["t"],
                self._records("sources", moment, SourceStatus),
                self._records("flows", moment, Flow),
                self._records("counters", moment, Number),
                self._records("gauges", moment, Number),
                self._records("checks", moment, Check),
                self._records("pinned", moment, Number),
                self._records("histograms", moment, Histogram),
                self._records("latencies", moment, Latency),
                self._records("services", moment, Service),
                self._records("tiers", moment, TierHits),
            )
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise SessionError(f"a recorded sample is damaged: {error}") from error

    def _records(self, name: str, moment: Moment, cls: type[Record]) -> tuple[Record, ...]:
        before, now = self._before.get(name, []), list[tuple[Row, Any]]()
        for index, row in enumerate(moment.get(name, ())):
            if index < len(before) and before[index][0] is row:
                now.append(before[index])
            else:
                now.append((row, _record(cls, row)))
        self._before[name] = now
        return tuple(record for _, record in now)


def _record(cls: type[Record], row: Row) -> Record:
    if cls is Flow:
        row = {**row, "source_tier": row.get("from"), "target_tier": row.get("to")}
    if cls is Check:
        row = check_row(row)
    return convert(cls, row)
