"""A job measured in the foreground, by a process that this command starts itself, without the engine."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from msgspec.structs import replace

from kvdeck.app.cli.follow import exit_status
from kvdeck.app.cli.output import print_session
from kvdeck.app.cli.progress import Progress
from kvdeck.engine.children.child import PIPE, Child, shell_status
from kvdeck.engine.children.program import Signals, noted_signals
from kvdeck.engine.children.worker_process import last_words
from kvdeck.engine.client.client import store
from kvdeck.engine.lines import LineBuffer
from kvdeck.sessions.host.files import MAX_RECORD
from kvdeck.sessions.model.events import StateChanged
from kvdeck.sessions.model.records import FINAL_STATES, Session, SessionKind
from kvdeck.sessions.model.run_state import RunState
from kvdeck.sessions.store.event_log import append_event, entry_of_line, read_events, truncate_torn_tail
from kvdeck.sessions.store.store import Store, fold

_GRACE_SECONDS = 15.0
"""Time for the process to end by itself."""
_LOOK_SECONDS = 0.2


class ForegroundSpec(Protocol):
    """What is to be measured."""

    @property
    def label(self) -> str: ...
    def to_mapping(self) -> dict[str, Any]: ...
    def to_yaml(self) -> str: ...


class ForegroundChild:
    """The process that loads NIXL. Signals to this one cancel it: the second one kills it."""

    def __init__(self, argv: Sequence[str], signals: Signals, log: Path | None = None) -> None:
        """`log`: file for its stderr; None inherits this process's."""
        with contextlib.nullcontext() if log is None else log.open("ab", 0) as stderr:
            self._child = Child(argv, stdin=PIPE, stdout=PIPE, stderr=stderr, cwd="/", env={"PYTHONFAULTHANDLER": "1"})
        self._signals, self._passed = signals, 0
        self._buffer, self._ready = LineBuffer(MAX_RECORD), deque[bytes]()

    def write(self, text: str) -> None:
        """Write to its stdin."""
        with contextlib.suppress(BrokenPipeError):  # it has died: the end of its lines says so
            self._child.stdin.write(text.encode())
            self._child.stdin.flush()

    def lines(self) -> Iterator[bytes]:
        """Yield the lines that it prints, until it ends."""
        fd = self._child.stdout.fileno()
        while True:
            while self._ready:
                yield self._ready.popleft()
            ready, _, _ = select.select([fd, self._signals.wakes], [], [], _LOOK_SECONDS)
            self._pass_signals_on()
            if fd in ready:
                data = os.read(fd, 1 << 16)
                self._ready += self._buffer.take(data)
                if not data and not self._ready:
                    return
            elif not ready and self._child.exited():
                return  # one of its own children may hold the pipe open

    def _pass_signals_on(self) -> None:
        while self._passed < len(self._signals.came):
            number = self._signals.came[self._passed]
            self._passed += 1
            if self._passed > 1:
                self._child.kill()
            elif self._takes(number):
                self._child.signal(signal.SIGTERM)

    def _takes(self, number: int) -> bool:  # noqa: ARG002
        """True if a signal with that number cancels it."""
        return True

    def end(self) -> int:
        """Wait for its end, and return its exit status as a shell gives it."""
        self._child.stdin.close()
        status = self._child.wait(_GRACE_SECONDS)
        if status is None:
            status = self._child.kill()
        return shell_status(-signal.SIGKILL if status is None else status)

    def close(self) -> None:
        """Kill it and its children if it still runs."""
        if self._child.poll() is None:
            self._child.kill()
        self._child.close()


def run_here(
    spec: ForegroundSpec,
    kind: SessionKind,
    module: str,
    name: str | None,
    before: Callable[[RunState], object],
    *,
    as_json: bool,
) -> int:
    """Measure a spec by a worker module, keep the session and print its report; return the exit status.

    Args:
        before: Called before the report, with the state folded of the session's log.
    """
    with noted_signals() as signals:
        kept = store()
        session = started_session(kept, spec, kind, name)
        folder = kept.folder(session.name)
        argv = [sys.executable, "-m", module, "--session-dir", str(folder)]
        with contextlib.closing(ForegroundChild(argv, signals, kept.log_path(session.name))) as child:
            session = followed(child, kept, session, before, as_json=as_json)
    return exit_status(session)


def started_session(kept: Store, spec: ForegroundSpec, kind: SessionKind, name: str | None) -> Session:
    """Create the session of a job that begins now."""
    mapping = spec.to_mapping() if kind == "run" else {"job": kind, **spec.to_mapping()}
    session = kept.create(name, mapping, spec.to_yaml(), label=spec.label, kvdeck=version("kvdeck"), kind=kind)
    session = replace(session, state="running", started=time.time())
    kept.write(session)
    return session


def followed(
    child: ForegroundChild,
    kept: Store,
    session: Session,
    before: Callable[[RunState], object] = lambda _: None,
    *,
    as_json: bool,
) -> Session:
    """Follow a worker to its end, and print the report; return the session as it is kept."""
    progress = Progress(session.name)
    progress.say(f"session {session.name}")
    try:
        for seq, line in enumerate(child.lines()):
            progress.take(entry_of_line(seq, line))
        session = _completed(kept, session, child.end())
    finally:
        progress.clear()
    if session.state in ("failed", "crashed", "interrupted") and session.reason:
        progress.say(f"{session.state}: {session.reason}")
    before(progress.run)
    print_session(session, as_json)
    return session


def _completed(kept: Store, session: Session, status: int) -> Session:
    """Write and return the session with its events; a worker that left no last state has crashed."""
    path = kept.samples_path(session.name)
    truncate_torn_tail(path)
    folded = fold(session, read_events(path))
    if folded.state not in FINAL_STATES:
        words = last_words(kept.log_path(session.name))
        reason = f"its process ended with status {status}" + (f" ({words[-1]})" if words else "")
        append_event(path, StateChanged(time.monotonic_ns(), time.time(), "crashed", reason))
        folded = fold(session, read_events(path))
    kept.write(folded)
    return folded
