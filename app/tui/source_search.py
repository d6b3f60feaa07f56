"""Search for telemetry sources on this host, in a child process: it imports modules that the screen never needs."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass

from kvdeck.engine.children.child import PIPE, Child, last_line, tail_of
from kvdeck.engine.children.pipes import PipeLines
from kvdeck.engine.client.client import home
from kvdeck.sessions.errors import KvdeckError
from kvdeck.sessions.host.documents import load_record
from kvdeck.sessions.units import number_text

LONGEST_S = 20.0
"""Time, s, after which a search has failed: its own limit is shorter, and a busy host starts a process slowly."""


@dataclass(frozen=True, slots=True)
class FoundSource:
    """A telemetry source on this host."""

    name: str
    kind: str


@dataclass(frozen=True, slots=True)
class SilentProcess:
    """A serving process without an endpoint."""

    name: str
    """Its program and process id."""
    reason: str


@dataclass(frozen=True, slots=True)
class FoundSources:
    """What a search has found so far."""

    sources: tuple[FoundSource, ...] = ()
    silent: tuple[SilentProcess, ...] = ()
    awaited: tuple[str, ...] = ()
    """Addresses that were asked and haven't answered."""
    unanswered: tuple[str, ...] = ()
    """Addresses that let the time of the search pass."""
    done: bool = False


Progress = Callable[[FoundSources], None]


async def find_sources(progress: Progress) -> FoundSources:
    """Search this host; `progress` gets what is known whenever that changes. Cancelling it ends the search.

    Raises:
        KvdeckError: The search can't be started, fails, or runs longer than `LONGEST_S` seconds.
    """
    newest = FoundSources()

    def take(lines: list[bytes]) -> None:
        nonlocal newest
        newest = _from_line(lines[-1])
        progress(newest)

    argv = [sys.executable, "-m", "kvdeck.engine.telemetry.search_process", str(home())]
    with tempfile.TemporaryFile() as errors:
        try:
            child = Child(argv, stdout=PIPE, stderr=errors)
        except OSError as error:
            raise KvdeckError(f"the search for sources failed: {error}") from error
        output = PipeLines(child.stdout, take)
        try:
            await asyncio.wait_for(output.ended.wait(), LONGEST_S)
        except asyncio.TimeoutError:
            raise KvdeckError(f"the search for sources took more than {number_text(LONGEST_S)} s") from None
        finally:
            output.close()
            child.kill()
            child.close()
        if output.broken is not None or not newest.done:
            reason = last_line(tail_of(errors), str(output.broken or "it ended early"))
            raise KvdeckError(f"the search for sources failed: {reason}")
    return newest


def _from_line(line: bytes) -> FoundSources:
    row = load_record(line)
    return FoundSources(
        tuple(FoundSource(str(one["name"]), str(one["kind"])) for one in row["sources"]),
        tuple(SilentProcess(str(one["process"]), str(one["reason"])) for one in row["silent"]),
        tuple(map(str, row["awaited"])),
        tuple(map(str, row["unanswered"])),
        bool(row["done"]),
    )
