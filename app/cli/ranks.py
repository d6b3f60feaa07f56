"""`kvdeck run` as one of several ranks: in the foreground, without an engine."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import orjson
from msgspec.structs import replace

from kvdeck.app.cli.follow import exit_status
from kvdeck.app.cli.output import print_session
from kvdeck.app.cli.progress import Progress
from kvdeck.engine.children.child import PIPE, Child, shell_status
from kvdeck.engine.children.program import Signals, noted_signals
from kvdeck.engine.children.worker_process import last_words
from kvdeck.engine.client.client import store
from kvdeck.engine.launchers import traces_of
from kvdeck.engine.lines import LineBuffer
from kvdeck.engine.meeting import Meeting, MeetingOptions, meeting_of
from kvdeck.engine.spec import RunSpec, spec_from_mapping
from kvdeck.sessions.host.documents import load_record
from kvdeck.sessions.model.events import StateChanged
from kvdeck.sessions.model.records import FINAL_STATES, Session
from kvdeck.sessions.store.event_log import append_event, entry_of_line, read_events, truncate_torn_tail
from kvdeck.sessions.store.index import check_name
from kvdeck.sessions.store.store import Store, fold

_GRACE_SECONDS = 15.0
"""Time for a rank's process to end by itself."""
_LOOK_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class RankEnd:
    """How a rank ended."""

    status: int
    """Exit status: rank 0's is that of `kvdeck run`; another rank's is 0 if rank 0 ended it."""
    rank: int | None = None
    """None: it met no others."""
    session: Session | None = None
    """Rank 0's session."""


def run_rank(spec: RunSpec, options: MeetingOptions, session: str | None, as_json: bool,
             met: Callable[[], object] = lambda: None) -> RankEnd:  # fmt: skip
    """Meet the other ranks; as rank 0 measure `spec`, keep the session and print it, otherwise serve to the end.

    Args:
        met: Called as rank 0, when all ranks are there.

    Raises:
        UsageError: The options, the launcher's variables or the spec are invalid.
    """
    meeting = meeting_of(options, os.environ)
    if session is not None:
        check_name(session)
    between_ranks(spec, [f"rank{rank}" for rank in range(1, meeting.world)])  # refused now, not when all are there
    if meeting.launcher is not None:
        _say(f"rank {meeting.rank} of {meeting.world}, started by {meeting.launcher}")
    with noted_signals() as signals, contextlib.closing(RankChild(meeting, signals)) as child:
        placed = child.placed()
        if placed is None:
            return RankEnd(child.end())
        if placed["rank"]:
            _say(f"rank {placed['rank']} of {placed['world']} serves until rank 0 ends")
            for _ in child.lines():
                pass
            return RankEnd(child.end(), placed["rank"])
        met()
        return _measure(child, between_ranks(spec, placed["hosts"]), session, as_json)


def traces_text() -> str:
    """Return which variables of a launcher are set though `--launcher` isn't; empty if none are."""
    found = traces_of(os.environ)
    if not found:
        return ""
    names = ", ".join(name for names in found.values() for name in names)
    return f"{names} set: runs on this host only; with --launcher {next(iter(found))}, its ranks run together"


class RankChild:
    """The rank's own process, which loads NIXL. Signals to this one cancel it: the second one kills it."""

    def __init__(self, meeting: Meeting, signals: Signals) -> None:
        # A process of its own: one that has loaded UCX can crash, and leaves without destructors.
        argv = [sys.executable, "-m", "kvdeck.engine.transfer.rank_worker", "--parent", str(os.getpid()),
                "--meeting", orjson.dumps(meeting).decode()]  # fmt: skip
        self._child = Child(argv, stdin=PIPE, stdout=PIPE, cwd="/", env={"PYTHONFAULTHANDLER": "1"})
        self._signals, self._passed = signals, 0
        self._buffer, self._ready = LineBuffer(), deque[bytes]()
        self.rank: int | None = None
        """Its rank, once it is known."""

    def placed(self) -> dict[str, Any] | None:
        """Wait for the rank's place among the others; None if it ended without one."""
        line = next(self.lines(), None)
        if line is None:
            return None
        placed = load_record(line)
        self.rank = placed["rank"]
        return dict(placed)

    def measure(self, folder: Path) -> None:
        """Let rank 0 measure the spec in a session's folder."""
        with contextlib.suppress(BrokenPipeError):  # it has died: the end of its lines says so
            self._child.stdin.write(f"{folder}\n".encode())
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
            elif not self.rank or number != signal.SIGINT:  # Ctrl-C reaches all ranks; rank 0 ends the others
                self._child.signal(signal.SIGTERM)

    def end(self) -> int:
        """Wait for its end, and return its exit status as a shell gives it."""
        self._child.stdin.close()
        status = self._child.wait(_GRACE_SECONDS)
        if status is None:
            status = self._child.kill()
        return shell_status(-signal.SIGKILL if status is None else status)

    def close(self) -> None:
        """Kill it if it still runs."""
        if self._child.poll() is None:
            self._child.kill()
        self._child.close()


def between_ranks(spec: RunSpec, hosts: list[str]) -> RunSpec:
    """Return the spec with the other ranks' hosts as its peers, and by default an initiator for each of them."""
    threads = len(hosts) if spec.threads == 1 and spec.topology.plain else spec.threads
    return spec_from_mapping({**spec.to_mapping(), "peer": list(hosts), "threads": threads}, "the options")


def _measure(child: RankChild, spec: RunSpec, name: str | None, as_json: bool) -> RankEnd:
    """Measure as rank 0 and print the report."""
    kept = store()
    session = kept.create(name, spec.to_mapping(), spec.to_yaml(), label=spec.label, kvdeck=version("kvdeck"))
    kept.write(replace(session, state="running", started=time.time()))
    progress = Progress(session.name)
    progress.say(f"session {session.name}")
    child.measure(kept.folder(session.name))
    try:
        for seq, line in enumerate(child.lines()):
            progress.take(entry_of_line(seq, line))
        session = _completed(kept, session, child.end())
    finally:
        progress.clear()
    if session.state in ("failed", "crashed", "interrupted") and session.reason:
        progress.say(f"{session.state}: {session.reason}")
    print_session(session, as_json)
    return RankEnd(exit_status(session), 0, session)


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


def _say(text: str) -> None:
    click.echo(f"kvdeck: {text}", err=True)
