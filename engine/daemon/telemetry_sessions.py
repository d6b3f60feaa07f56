"""The engine's telemetry sessions: start, annotate, stop and report their states.

The sampling child writes the session's files. While it is active, `active/NAME.json` in the home names this engine, so
that the next engine can mark a telemetry session whose engine died as interrupted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from msgspec.structs import replace

from kvdeck.engine.daemon import recovery
from kvdeck.engine.daemon.connection import Connection
from kvdeck.engine.daemon.dispatch import answers
from kvdeck.engine.daemon.samplers import Samplers, SamplingRequest, asked
from kvdeck.engine.protocol import Annotate, RecordingState, StartRecording, StopRecording
from kvdeck.engine.tasks import TaskGroup, start_part
from kvdeck.sessions.errors import KvdeckError, SessionError, UsageError
from kvdeck.sessions.host.processes import own_identity
from kvdeck.sessions.model.records import FINAL_STATES
from kvdeck.sessions.store.store import Store
from kvdeck.sessions.store.telemetry import session
from kvdeck.sessions.store.telemetry.writer import DEFAULT_LIMIT

KEPT_ENDED = 16
SETTLE_SECONDS = 5.0
HURRY_SECONDS = 1.0

log = logging.getLogger("kvdeck.engine")


class TelemetrySessions:
    """Starts, annotates and ends telemetry sessions; calls `changed` after each change of state."""

    def __init__(self, store: Store, kvdeck: str, changed: Callable[[], None]) -> None:
        self._store, self._kvdeck, self._changed = store, kvdeck, changed
        self.watching = Samplers(store.home, self._said)
        self._states: dict[str, RecordingState] = {}
        self._asked: dict[str, SamplingRequest] = {}
        self._of_runs: dict[str, bool] = {}
        """Recordings inside runs, by the run's name: whether it has begun to sample."""
        self._closing: set[str] = set()
        """Recordings whose files are being completed."""
        # Ends of two recordings may be written in two threads.
        self._writing = threading.Lock()
        """Held while an end is written: a task that is cancelled leaves its thread behind."""
        self._over = asyncio.Event()
        self._group: TaskGroup | None = None

    def start(self, group: TaskGroup) -> None:
        """Let tasks belong to `group`."""
        self._group = group
        self.watching.start(group)

    @property
    def states(self) -> tuple[RecordingState, ...]:
        """Active telemetry sessions and the last `KEPT_ENDED` ended ones, in order of start."""
        return tuple(self._states.values())

    @property
    def busy(self) -> bool:
        return bool(self._asked)

    def makes(self, name: object) -> bool:
        """True if a telemetry session of that name is active."""
        return name in self._asked

    async def begin(self, command: StartRecording, of_run: bool = False) -> str:
        """Create the session, start recording to it, and return its name.

        Args:
            command: What to record.
            of_run: A queued or running run has that name: record inside its session, from when it starts until it
                ends. The caller passes the runs' states to `runs_changed`.

        Raises:
            UsageError: The name is invalid or taken, or a number is invalid.
            SessionError: The session can't be written.
        """
        what = asked(command)
        if not what.hz:
            raise UsageError("can't record at 0 Hz", "give a number above 0")
        limit = DEFAULT_LIMIT if command.limit_bytes is None else command.limit_bytes
        name = f"{command.name}/{session.INSIDE}" if of_run else command.name
        await asyncio.to_thread(self._make, name, what, limit)
        self._asked[name] = what
        # The newest is last: the oldest ended ones are dropped first.
        self._states.pop(name, None)
        self._states[name] = RecordingState(name, "queued")
        if of_run:
            self._of_runs[command.name] = False
        else:
            self._record(name)
        self._over.clear()
        self._changed()
        return name

    def runs_changed(self, states: Mapping[str, str]) -> None:
        """Begin or end the recordings inside runs, by the runs' states."""
        for run, begun in list(self._of_runs.items()):
            name, state = f"{run}/{session.INSIDE}", states.get(run, "done")
            if state in FINAL_STATES:
                del self._of_runs[run]
                if name in self._asked:
                    self.stop(name)
            elif state == "running" and not begun and name in self._asked:
                self._of_runs[run] = True
                self._record(name)

    def _record(self, name: str) -> None:
        """Let a sampling child write to a telemetry session."""
        sampling = self.watching.sampling(self._asked[name])
        sampling.record(name)
        sampling.revive()

    def _make(self, name: str, what: SamplingRequest, limit: int) -> None:
        store, own = session.addressed(self._store, name)
        session.begin(
            store,
            own,
            hz=what.hz,
            sources=what.sources,
            block_bytes=what.block_bytes,
            limit=limit,
            kvdeck=self._kvdeck,
        )
        if own == name:  # a run has a note already, and its own recovery
            recovery.write_owner(self._store, name, recovery.Owner(own_identity()))

    @answers(StopRecording)
    def stop_recording(self, _: Connection, command: StopRecording) -> dict[str, Any]:
        self.stop(command.name)
        return {"session": command.name}

    def stop(self, name: str, reason: str | None = None) -> None:
        """Request the end of a telemetry session; the sampling child writes its last lines.

        Raises:
            SessionError: No telemetry session of that name is active.
        """
        what = self._what(name)
        sampling = self.watching.writer(what, name)
        if sampling is not None:
            sampling.end_recording(name, reason)
        else:  # its run is queued, or no child runs now (one died, the next is not started): end the session here
            self._end(name, replace(self._states[name], state="done", reason=reason))

    @answers(Annotate)
    def mark(self, _: Connection, command: Annotate) -> None:
        """Add an annotation to a telemetry session, stamped with its own time or else the current one.

        Raises:
            SessionError: No telemetry session of that name is active, or no sampling child runs at this moment.
            UsageError: The text is empty.
        """
        what = self._what(command.name)
        if not command.text.strip():
            raise UsageError("the annotation is empty", "give a text")
        if command.t is not None and not math.isfinite(command.t):
            raise UsageError(f"an annotation can't be at {command.t!r}", "give a Unix time in seconds, or none")
        when = time.time() if command.t is None else command.t
        mark = {"mark": command.name, "text": command.text, "kind": command.kind, "t": when}
        sampling = self.watching.writer(what, command.name)
        if sampling is None:
            raise SessionError(f"no sampler runs for {command.name!r} now", "try again")
        sampling.tell(mark)

    def _what(self, name: str) -> SamplingRequest:
        what = self._asked.get(name)
        if what is None:
            raise SessionError(
                f"the engine isn't recording a telemetry session {name!r}",
                "check its name: it has ended, or another process records it",
            )
        return what

    async def settle(self, hurry: bool = False) -> None:
        """End all within `SETTLE_SECONDS` (`HURRY_SECONDS` with `hurry`); the rest become `interrupted`."""
        for name in list(self._asked):
            self.stop(name, "the engine was stopped")
        if self._asked:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._over.wait(), HURRY_SECONDS if hurry else SETTLE_SECONDS)
        await self.interrupt("its process did not exit in time")

    async def interrupt(self, reason: str) -> None:
        """Set all unfinished recordings to `interrupted`; their files are complete when this returns."""
        for name in list(self._asked):
            await asyncio.to_thread(self._write_end, name, RecordingState(name, "interrupted", reason=reason))
            self._ended(name, RecordingState(name, "interrupted", reason=reason))

    def _said(self, what: SamplingRequest, said: dict[str, Any]) -> None:
        """Apply a child's report on one of its sessions, or, without a name, on all of them (recording failed)."""
        names = [said["name"]] if said["name"] else [name for name, own in self._asked.items() if own == what]
        for name in names:
            known = self._states.get(name)
            if known is None or name not in self._asked:
                continue
            news = {key: said[key] for key in ("state", "begin", "bytes") if said.get(key) is not None}
            state = replace(known, **news, reason=said.get("reason"))
            if state.state in FINAL_STATES:
                self._end(name, state)
            elif name not in self._closing:
                self._states[name] = state
        self._changed()

    def _end(self, name: str, state: RecordingState) -> None:
        """Complete a recording's files on a thread, then inform clients."""
        assert self._group is not None
        if name not in self._closing:
            self._closing.add(name)
            start_part(self._group, "recordings", self._complete(name, state))

    async def _complete(self, name: str, state: RecordingState) -> None:
        await asyncio.to_thread(self._write_end, name, state)
        self._ended(name, state)

    def _write_end(self, name: str, state: RecordingState) -> None:
        with self._writing:
            try:
                store, own = session.addressed(self._store, name)
                if store.read(own).state not in FINAL_STATES:
                    session.end(store, own, state.state, state.reason)
            except (KvdeckError, OSError) as error:
                log.warning("telemetry session %s: %s", name, error)
            if "/" not in name:
                with contextlib.suppress(OSError):
                    recovery.remove_owner(self._store, name)

    def _ended(self, name: str, state: RecordingState) -> None:
        what = self._asked.pop(name, None)
        self._closing.discard(name)
        if what is None:
            return
        self._states[name] = state
        ended = [one for one in self._states.values() if one.state in FINAL_STATES]
        for old in ended[:-KEPT_ENDED]:
            del self._states[old.name]
        self.watching.release(what, name)
        if not self._asked:
            self._over.set()
        self._changed()
