"""The sessions of a home folder: names, `session.json`, and the folder `sessions/<name>/` of each.

session.json   written atomically: temp file, fsync, rename
samples.jsonl  append-only, see `event_log`
run.yaml       the requested run, enough to repeat it
engine.log     stderr of the worker and its native libraries
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from kvdeck.sessions.errors import SessionError, UsageError
from kvdeck.sessions.host.documents import DocumentError, load_yaml
from kvdeck.sessions.host.files import MAX_RECORD, is_regular, no_room, read_regular, replace_file
from kvdeck.sessions.model.encoding import decode, encode_document
from kvdeck.sessions.model.events import Event, StateChanged
from kvdeck.sessions.model.records import FINAL_STATES, Session, SessionKind
from kvdeck.sessions.model.run_state import CUT_SHORT, RunState, apply
from kvdeck.sessions.model.telemetry import TelemetryTotals
from kvdeck.sessions.model.traffic import TRAFFIC
from kvdeck.sessions.store import event_log, trace_counts
from kvdeck.sessions.store.index import SessionSummary, check_name, names, summaries
from kvdeck.sessions.store.locks import alone_in
from kvdeck.sessions.store.owners import OWNER_GONE, encode_owner, is_abandoned, owner_path
from kvdeck.sessions.store.unfinished import Rounds


class Store:
    """The sessions under `home`; stateless except for the folder's path."""

    def __init__(self, home: Path, sessions: Path | None = None) -> None:
        self.home = home
        self.sessions = home / "sessions" if sessions is None else sessions

    def inside(self, name: str) -> Store:
        """Return the store of the sessions inside a session: its telemetry."""
        return Store(self.home, self.folder(name))

    def folder(self, name: str) -> Path:
        """Return the session's folder, existing or not.

        Raises:
            UsageError: The name is invalid, such as one that would leave the store.
        """
        return self.sessions / check_name(name)

    def samples_path(self, name: str) -> Path:
        return self.folder(name) / "samples.jsonl"

    def run_yaml_path(self, name: str) -> Path:
        return self.folder(name) / "run.yaml"

    def log_path(self, name: str) -> Path:
        return self.folder(name) / "engine.log"

    def exists(self, name: str) -> bool:
        return is_regular(self.folder(name) / "session.json")

    def create(
        self,
        name: str | None,
        spec: Mapping[str, Any],
        run_yaml: str,
        *,
        label: str = "run",
        kvdeck: str = "",
        kind: SessionKind = "run",
    ) -> Session:
        """Create a queued session, atomically.

        Args:
            name: None to generate a unique name from the time and `label`.
            spec: The run's specification as plain values, with all defaults filled in.
            run_yaml: Text of `run.yaml`.

        Raises:
            UsageError: The name is invalid or taken.
            SessionError: The folder can't be written.
        """
        if name is not None and self.folder(name).exists():
            raise UsageError(f"session {name!r} already exists", "choose another name")
        created = time.time()
        candidates = [name] if name is not None else generated_names(created, label)
        fresh = self.sessions / f".new-{os.getpid()}-{time.monotonic_ns()}"
        try:
            fresh.mkdir(parents=True, mode=0o700)
            (fresh / "run.yaml").write_text(run_yaml)
            (fresh / "samples.jsonl").touch(mode=0o600)
            blank = Session("", "queued", created, kvdeck=kvdeck, spec=dict(spec), kind=kind)
            return self._move_in(fresh, candidates, blank)
        except OSError as error:
            raise _write_error(self.sessions, error) from error
        finally:
            shutil.rmtree(fresh, ignore_errors=True)

    def _move_in(self, fresh: Path, candidates: Iterable[str], blank: Session) -> Session:
        for candidate in candidates:
            session = replace(blank, name=check_name(candidate))
            replace_file(fresh / "session.json", encode_session(session), durable=True)
            if session.state not in FINAL_STATES:
                owner_path(fresh).write_bytes(encode_owner())
            try:
                # Renaming onto a non-empty folder fails, so two processes never share a name.
                fresh.rename(self.sessions / candidate)
            except OSError:
                if not (self.sessions / candidate).exists():
                    raise
            else:
                return session
        raise UsageError(f"session {blank.name or 'of that name'!r} already exists", "choose another name")

    def keep(self, session: Session) -> Session:
        """Store a session that is not a run: imported, a trace, or telemetry.

        Raises:
            UsageError: The name is invalid or taken.
            SessionError: The folder can't be written.
        """
        fresh = self.sessions / f".new-{os.getpid()}-{time.monotonic_ns()}"
        try:
            fresh.mkdir(parents=True, mode=0o700)
            if session.kind == "trace":
                trace_counts.prepare(fresh)
            return self._move_in(fresh, [session.name], session)
        except OSError as error:
            raise _write_error(self.sessions, error) from error
        finally:
            shutil.rmtree(fresh, ignore_errors=True)

    def change(self, name: str, revised: Callable[[Session], Session]) -> Session:
        """Change what an operator may edit, tags and note; also allowed while transfers are being counted.

        Args:
            revised: Returns the changed session for the current one; other processes can't change it meanwhile.

        Raises:
            SessionError: It doesn't exist, is still running, or can't be written.
        """
        with self._alone():
            session = revised(self._ended(name, counting=True))
            self.write(session)
        return session

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        try:
            with alone_in(self.sessions) if self.sessions.is_dir() else contextlib.nullcontext():
                yield
        except OSError as error:
            raise _write_error(self.sessions, error) from error

    def rename(self, name: str, new: str) -> None:
        """Rename a session that has ended.

        Raises:
            UsageError: The new name is invalid or taken.
            SessionError: It doesn't exist, has not ended, or can't be written.
        """
        with self._alone():
            session = self._ended(name)
            folder, target = self.folder(name), self.folder(new)
            if target.exists():
                raise UsageError(f"session {new!r} already exists", "choose another name")
            # A kill before the write leaves the old name in session.json, where the folder's name counts.
            folder.rename(target)
            self.write(replace(session, name=new))

    def delete(self, name: str) -> None:
        """Delete a session that has ended, with its folder.

        Raises:
            SessionError: It doesn't exist, has not ended, or can't be removed.
        """
        with self._alone():
            self._ended(name, damaged=True)
            # Renamed first: the name is free at once, and no reader meets half a session. No name starts with a dot.
            gone = self.sessions / f".deleted-{os.getpid()}-{time.monotonic_ns()}"
            self.folder(name).rename(gone)
        try:
            shutil.rmtree(gone)
        except OSError as error:
            raise _write_error(self.sessions, error) from error

    def _ended(self, name: str, damaged: bool = False, counting: bool = False) -> Session:
        try:
            session = self.read(name)
        except SessionError:
            if not (damaged and self.folder(name).is_dir()):
                raise
            return Session(name, "interrupted", 0.0)
        session = self._settled(session)
        if session.kind == "telemetry" and session.state == "running":
            raise SessionError(
                f"session {name!r} is being recorded",
                f"end it first with `kvdeck cancel {name}`, or Ctrl-C in its terminal",
            )
        if session.state not in FINAL_STATES:
            raise SessionError(
                f"session {name!r} is still {session.state}", f"cancel it first with `kvdeck cancel {name}`"
            )
        if session.kind == "trace" and not counting and (live := trace_counts.live(self.folder(name))):
            pids = ", ".join(str(process.pid) for process in live[:5])
            raise SessionError(f"session {name!r} is being written by process {pids}", "end the process first")
        if session.kind == "trace" and not counting and self._is_recorded_into(name):
            raise SessionError(f"session {name!r} is being recorded", "end its `kvdeck trace --record` first")
        return session

    def read(self, name: str) -> Session:
        """Return the content of `session.json`.

        Raises:
            SessionError: The session doesn't exist, or its file is damaged.
        """
        path = self.folder(name) / "session.json"
        try:
            session = decode(Session, read_regular(path, MAX_RECORD))
        except FileNotFoundError as error:
            raise SessionError(f"there is no session {name!r}", "see `kvdeck session list`") from error
        except OSError as error:
            raise SessionError(f"can't read {path}: {error.strerror}", "check its owner and mode") from error
        except ValueError as error:
            raise SessionError(f"{path} is damaged: {error}", "kvdeck rebuilds it from samples.jsonl") from error
        # The folder's name takes precedence: a copy, move or interrupted rename leaves another name in the file.
        return session if session.name == name else replace(session, name=name)

    def load(self, name: str) -> Session:
        """Return the session in its current state; before it ends, with the content of `samples.jsonl` so far.

        Raises:
            SessionError: The session doesn't exist, or its file is damaged.
        """
        session = self.read(name)
        if session.kind == "trace":
            return self._with_telemetry(trace_counts.filled(session, self.folder(name)))
        session = self._settled(session)
        return self._with_telemetry(session) if session.kind in ("run", "traffic") else session

    def _settled(self, session: Session) -> Session:
        """Return the session with all events so far; `interrupted` if it has not ended and its owner is gone."""
        if session.kind == "telemetry":
            return self._telemetry(session)
        if session.state in FINAL_STATES:
            return session
        now = fold(session, event_log.read_events(self.samples_path(session.name)))
        if now.state in FINAL_STATES or not is_abandoned(self.folder(session.name)):
            return now
        return self._interrupted(session.name, session)

    def _interrupted(self, name: str, base: Session) -> Session:
        path = self.samples_path(name)
        events = event_log.read_events(path)
        try:
            wall = path.stat().st_mtime
        except OSError:
            wall = base.created
        return fold(base, itertools.chain(events, (StateChanged(0, wall, "interrupted", OWNER_GONE),)))

    def settle(self, name: str) -> Session:
        """Write the final state of a session that was interrupted, and return it.

        Raises:
            SessionError: The session doesn't exist, or can't be written.
        """
        before = self.read(name)
        if before.state not in FINAL_STATES and before.kind != "trace":
            now = self._settled(before)
            if now.state in FINAL_STATES:
                self.write(now)
        return self.load(name)

    def _telemetry(self, session: Session) -> Session:
        from kvdeck.sessions.store.telemetry import session as telemetry  # deferred: only telemetry needs it

        return telemetry.filled(session, self.folder(session.name))

    def _with_telemetry(self, session: Session) -> Session:
        """Return the session with the totals of the telemetry inside it, if any, which `session.json` has not."""
        from kvdeck.sessions.store.telemetry import session as keeping

        inside = self.inside(session.name)
        if not inside.exists(keeping.INSIDE):
            return session
        try:
            found = inside.load(keeping.INSIDE)
        except SessionError:  # damaged telemetry must not hide the session
            return session
        totals = found.telemetry or TelemetryTotals()
        if found.state in CUT_SHORT and found.reason:
            totals = replace(totals, failure=found.reason)
        return replace(session, telemetry=totals)

    def _is_recorded_into(self, name: str) -> bool:
        from kvdeck.sessions.store.telemetry.annotations import is_written
        from kvdeck.sessions.store.telemetry.session import INSIDE

        return is_written(self.inside(name).folder(INSIDE))

    def write(self, session: Session) -> None:
        """Replace `session.json` atomically.

        Raises:
            SessionError: It can't be written; the previous one remains.
        """
        folder = self.folder(session.name)
        try:
            replace_file(folder / "session.json", encode_session(session), durable=True)
        except OSError as error:
            raise _write_error(folder, error) from error

    def rebuild(self, name: str) -> Session:
        """Rebuild the session from `samples.jsonl`; `session.json` supplies only what no event holds.

        Raises:
            SessionError: The session doesn't exist.
        """
        try:
            base = self.read(name)
        except SessionError:
            if not self.folder(name).is_dir():
                raise
            base = self._base(name)
        return fold(base, event_log.read_events(self.samples_path(name)))

    def _base(self, name: str) -> Session:
        folder = self.folder(name)
        try:
            spec = load_yaml(read_regular(folder / "run.yaml", MAX_RECORD), MAX_RECORD)
        except (OSError, DocumentError):
            spec = None
        known = spec if isinstance(spec, dict) else {}
        kind: SessionKind = "traffic" if known.get("job") == TRAFFIC else "run"
        return Session(name, "interrupted", folder.stat().st_mtime, spec=known, kind=kind)

    def names(self) -> list[str]:
        """Return all session names, unordered."""
        return names(self.sessions)

    def mark(self, names: Iterable[str]) -> tuple[int, ...]:
        """Return a value that changes if a session is added, removed or renamed, or one of `names` is written or
        counted into."""
        found = [_changed(self.sessions)]
        for name in names:
            folder = self.folder(name)
            found += (_changed(folder), trace_counts.mark(str(folder)))
        return tuple(found)

    def summaries(self) -> list[SessionSummary]:
        """Return the rows of all sessions, newest first."""
        return summaries(self.home)


def fold(base: Session, events: Iterable[Event]) -> Session:
    """Return the session after these events, which replace its results, comparisons, times and state.

    If the worker or a rank died, steps without a result get one from their rounds.
    """
    state, rounds = run_state_of(base), Rounds()
    for event in events:
        state = apply(state, event)
        rounds.take(event)
    left = rounds.results(state) if state.state in CUT_SHORT else ()
    return replace(
        base,
        state=state.state,
        reason=state.reason,
        started=state.started,
        ended=state.ended,
        host=state.host,
        nixl=state.nixl,
        spec=state.spec,
        results=tuple(sorted((*state.results, *left), key=lambda result: result.step)),
        comparisons=state.comparisons,
        tuned=state.tuned,
        traffic_result=base.traffic_result if state.traffic is None else state.traffic.result,
    )


def run_state_of(base: Session) -> RunState:
    """Return the state of a session's run before the first line of its log."""
    return RunState(
        base.name,
        base.state,
        reason=base.reason,
        started=base.started,
        ended=base.ended,
        host=base.host,
        nixl=base.nixl,
        spec=base.spec,
    )


def encode_session(session: Session) -> bytes:
    """Return the bytes of `session.json`."""
    return encode_document(session)


def _changed(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return 0


def generated_names(created: float, label: str) -> Iterable[str]:
    """Yield session names made of a Unix time and a label; the second and later ones are numbered."""
    slug = re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")[:40] or "run"
    stem = f"{time.strftime('%Y%m%d-%H%M%S', time.localtime(created))}-{slug}"
    yield stem
    for number in range(2, 10_000):
        yield f"{stem}-{number}"


def _write_error(folder: Path, error: OSError) -> SessionError:
    what, fix = no_room(error) or (error.strerror, "check its owner and mode")
    return SessionError(f"can't write in {folder}: {what}", f"{fix}, or set KVDECK_HOME to another folder")
