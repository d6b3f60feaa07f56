"""Discovery of telemetry sources on this host, in a child process: it imports modules that the screen never needs."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from kvdeck.engine.children.child import last_line, run
from kvdeck.sessions.errors import KvdeckError
from kvdeck.sessions.host.documents import load_record
from kvdeck.sessions.units import number_text

LONGEST_S = 20.0


@dataclass(frozen=True, slots=True)
class FoundSource:
    """A telemetry source on this host."""

    name: str
    kind: str


def find_sources() -> tuple[FoundSource, ...]:
    """Run `kvdeck monitor --list-sources` and return its sources.

    Raises:
        KvdeckError: It can't be started, fails, or runs longer than `LONGEST_S` seconds.
    """
    argv = [sys.executable, "-m", "kvdeck.app.cli.main", "monitor", "--list-sources", "--json"]
    try:
        done = run(argv, LONGEST_S)
    except OSError as error:
        raise KvdeckError(f"the search for sources failed: {error}") from error
    if done.status is None:
        raise KvdeckError(f"the search for sources took more than {number_text(LONGEST_S)} s")
    try:
        rows = load_record(done.output)["sources"]
        return tuple(FoundSource(str(row["name"]), str(row["kind"])) for row in rows)
    except (ValueError, KeyError, TypeError):
        raise KvdeckError(f"the search for sources failed: {last_line(done.errors, str(done.status))}") from None
