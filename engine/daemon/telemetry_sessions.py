"""The engine's telemetry recordings: start, annotate, stop and report their states.

The sampling child writes the recording. While it is active, `active/NAME.json` in the home names this engine, so that
the next engine can mark a recording whose engine died as interrupted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from kvdeck.engine.daemon import recovery
from kvdeck.engine.daemon.samplers import Asked, Watching, asked
from kvdeck.engine.protocol import Annotate, Record, RecordingState
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


class Recordings:
    """Starts, annotates and ends telemetry recordings; calls `changed` after each change of state."""

    def __init__(self, store: Store, kvdeck: str, changed: Callable[[], None]) -> None:
        self._store, self._kvdeck, self._changed = store, kvdeck, changed
        self.watching = Watching(store.home, self._said)
        self._states: dict[str, RecordingState] = {}
        self._asked: dict[str, Asked] = {}
        self._over = asyncio.Event()

    @property
    def states(self) -> tuple[RecordingState, ...]:
        """Active recordings and the last `KEPT_ENDED` ended ones, in order of start."""
        return tuple(self._states.values())

    @property
    def busy(self) -> bool:
        return bool(self._asked)

    def makes(self, name: object) -> bool:
        """True if a recording of that name is active."""
        return name in self._asked

    async def begin(self, command: Record) -> str:
        """Create the session, start recording to it, and return its name.

        Raises:
            UsageError: The name is invalid or taken, or a number is invalid.
            SessionError: The session can't be written.
        """
        what = asked(command)
        if not what.hz:
            raise UsageError("can't record at 0 Hz", "give a number above 0")
        if not isinstance(command.name, str):
            raise UsageError("a recording needs a name", "give one of A-Z a-z 0-9 . _ -")
        limit = DEFAULT_LIMIT if command.limit_bytes is None else command.limit_bytes
        if not isinstance(limit, int):
            raise UsageError(f"can't keep a recording within {limit!r} bytes", "give a whole number")
        await asyncio.to_thread(self._make, command.name, what, limit)
        self._asked[command.name] = what
        self._states.pop(command.name, None)
        self._states[command.name] = RecordingState(command.name, "queued")
        self.watching.sampling(what).record(command.name)
        self._over.clear()
        self._changed()
        return command.name

    def _make(self, name: str, what: Asked, limit: int) -> None:
        session.begin(
            self._store,
            name,
            hz=what.hz,
            sources=what.sources,
            block_bytes=what.block_bytes,
            limit=limit,
            kvdeck=self._kvdeck,
        )
        recovery.write_owner(self._store, name, recovery.Owner(own_identity()))

    def stop(self, name: str, reason: str | None = None) -> None:
        """Request the end of a recording; the sampling child writes its last lines.

        Raises:
            SessionError: No recording of that name is active.
        """
        what = self._what(name)
        sampling = self.watching.sampling(what)
        if sampling.works:
            sampling.end_recording(name, reason)
        else:  # no child runs now (one died, the next is not started): end the session here
            self._end(name, what, replace(self._states[name], state="done", reason=reason))
            self._changed()

    def mark(self, command: Annotate) -> None:
        """Add an annotation to a recording, stamped with its own time or else the current one.

        Raises:
            SessionError: No recording of that name is active, or no sampling child runs at this moment.
            UsageError: The text is empty, or a field is not text.
        """
        what = self._what(command.name)
        if not isinstance(command.text, str) or not isinstance(command.kind, str) or not command.text.strip():
            raise UsageError("a mark needs a text", "say what happens at this moment")
        if command.t is not None and not (isinstance(command.t, (int, float)) and math.isfinite(command.t)):
            raise UsageError(f"a mark can't be at {command.t!r}", "give a Unix time in seconds, or none")
        mark = {
            "mark": command.name,
            "text": command.text,
            "kind": command.kind,
            "t": time.time() if command.t is None else command.t,
        }
        sampling = self.watching.sampling(what)
        if not sampling.works:
            raise SessionError(f"nothing samples for {command.name!r} at this moment", "try again in a moment")
        sampling.tell(mark)

    def _what(self, name: str) -> Asked:
        what = self._asked.get(name)
        if what is None:
            raise SessionError(f"the engine makes no recording {name!r}", "it has ended, or another process makes it")
        return what

    async def settle(self, hurry: bool = False) -> None:
        """End all recordings within `SETTLE_SECONDS` (`HURRY_SECONDS` with `hurry`); the rest become `interrupted`."""
        for name in list(self._asked):
            self.stop(name, "the engine was stopped")
        if self._asked:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._over.wait(), HURRY_SECONDS if hurry else SETTLE_SECONDS)
        for name, what in list(self._asked.items()):
            self._end(name, what, RecordingState(name, "interrupted", reason="its process did not end in time"))

    def _said(self, what: Asked, said: dict[str, Any]) -> None:
        """Apply a child's report on one of its recordings, or, without a name, on all of them (recording failed)."""
        names = [said["name"]] if said["name"] else [name for name, own in self._asked.items() if own == what]
        for name in names:
            known = self._states.get(name)
            if known is None or name not in self._asked:
                continue
            news = {key: said[key] for key in ("state", "begin", "bytes") if said.get(key) is not None}
            state = self._states[name] = replace(known, **news, reason=said.get("reason"))
            if state.state in FINAL_STATES:
                self._end(name, what, state)
        self._changed()

    def _end(self, name: str, what: Asked, state: RecordingState) -> None:
        del self._asked[name]
        self._states[name] = state
        ended = [one for one in self._states.values() if one.state in FINAL_STATES]
        for old in ended[:-KEPT_ENDED]:
            del self._states[old.name]
        sampling = self.watching.sampling(what)
        sampling.forget(name)
        self.watching.let_go(what)
        try:
            if self._store.read(name).state not in FINAL_STATES:
                session.end(self._store, name, state.state, state.reason)
        except (KvdeckError, OSError) as error:
            log.warning("recording %s: %s", name, error)
        with contextlib.suppress(OSError):
            recovery.remove_owner(self._store, name)
        if not self._asked:
            self._over.set()
