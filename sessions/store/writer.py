"""Writer of a session measured by another program, result by result."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from kvdeck.sessions.host.documents import dump_yaml
from kvdeck.sessions.model.events import RunStarted, StateChanged, StepFinished
from kvdeck.sessions.model.records import RunState, Session, StepResult
from kvdeck.sessions.store import event_log
from kvdeck.sessions.store.store import Store, fold


class External:
    """A session that this process writes without the engine."""

    def __init__(self, store: Store, session: Session) -> None:
        self._store, self._session = store, session
        self._count = 0

    @classmethod
    def begin(cls, store: Store, name: str | None, program: str, spec: Mapping[str, Any]) -> External:
        """Create the session.

        Args:
            store: Where to create it.
            name: None to generate one from the time and the program's name.
            program: The measuring program.
            spec: Its parameters, as plain values.

        Raises:
            UsageError: The name is invalid or taken.
            SessionError: It can't be written.
        """
        asked = dict(spec)
        kept = cls(store, store.create(name, asked, dump_yaml(asked), label=program))
        kept._append(RunStarted(time.monotonic_ns(), time.time(), (), {"hostname": platform.node()}, spec=asked))
        return kept

    @property
    def name(self) -> str:
        return self._session.name

    def add(self, result: StepResult) -> None:
        """Append a result as the next step."""
        numbered = replace(result, step=self._count, trial=self._count)
        self._count += 1
        self._append(StepFinished(time.monotonic_ns(), numbered))

    def end(self, state: RunState, reason: str | None = None) -> None:
        """Write the final state and `session.json`."""
        self._append(StateChanged(time.monotonic_ns(), time.time(), state, reason))
        self._store.write(fold(self._session, event_log.read_events(self._store.samples_path(self.name))))

    def _append(self, event: RunStarted | StepFinished | StateChanged) -> None:
        event_log.append_event(self._store.samples_path(self.name), event)
