"""`kvdeck run` as one of several ranks: in the foreground, without an engine."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import orjson

from kvdeck.app.cli.follow import exit_status
from kvdeck.app.cli.foreground import ForegroundChild, followed, started_session
from kvdeck.engine.children.program import Signals, noted_signals
from kvdeck.engine.client.client import store
from kvdeck.engine.launchers import traces_of
from kvdeck.engine.meeting import Meeting, MeetingOptions, meeting_of
from kvdeck.engine.spec import RunSpec, spec_from_mapping
from kvdeck.sessions.host.documents import load_record
from kvdeck.sessions.model.records import Session
from kvdeck.sessions.store.index import check_name

TRANSFER_MODULE = "kvdeck.engine.transfer.rank_worker"


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


class RankChild(ForegroundChild):
    """The rank's own process."""

    def __init__(self, meeting: Meeting, signals: Signals, module: str = TRANSFER_MODULE) -> None:
        super().__init__(
            [sys.executable, "-m", module, "--parent", str(os.getpid()),
             "--meeting", orjson.dumps(meeting).decode()],
            signals,
        )  # fmt: skip
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
        self.write(f"{folder}\n")

    def _takes(self, number: int) -> bool:
        return not self.rank or number != signal.SIGINT  # Ctrl-C reaches all ranks; rank 0 ends the others


def between_ranks(spec: RunSpec, hosts: list[str]) -> RunSpec:
    """Return the spec with the other ranks' hosts as its peers, and by default an initiator for each of them."""
    threads = len(hosts) if spec.threads == 1 and spec.topology.plain else spec.threads
    return spec_from_mapping({**spec.to_mapping(), "peer": list(hosts), "threads": threads}, "the options")


def _measure(child: RankChild, spec: RunSpec, name: str | None, as_json: bool) -> RankEnd:
    """Measure as rank 0 and print the report."""
    kept = store()
    session = started_session(kept, spec, "run", name)
    child.measure(kept.folder(session.name))
    session = followed(child, kept, session, as_json=as_json)
    return RankEnd(exit_status(session), 0, session)


def _say(text: str) -> None:
    click.echo(f"kvdeck: {text}", err=True)
