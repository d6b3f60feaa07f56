"""Discovery of telemetry sources on this host, in a child process: it imports modules that the screen never needs."""

from __future__ import annotations

import sys
from collections.abc import Callable

from kvdeck.app.tui.messages import Found, SourcesFound
from kvdeck.engine.children.child import last_line, run
from kvdeck.sessions.host.documents import load_record
from kvdeck.sessions.units import number_text

LONGEST_S = 20.0


def look(post: Callable[[SourcesFound], object]) -> None:
    """Run `kvdeck monitor --list-sources` and post its sources.

    Posts no sources and an error text if it fails or runs longer than `LONGEST_S` seconds.
    """
    argv = [sys.executable, "-m", "kvdeck.app.cli.main", "monitor", "--list-sources", "--json"]
    done = run(argv, LONGEST_S)
    if done.status is None:
        post(SourcesFound((), f"the search for sources took more than {number_text(LONGEST_S)} s"))
        return
    try:
        rows = load_record(done.output)["sources"]
        found = tuple(Found(str(row["name"]), str(row["kind"])) for row in rows)
    except (ValueError, KeyError, TypeError):
        post(SourcesFound((), f"the search for sources failed: {last_line(done.errors, str(done.status))}"))
    else:
        post(SourcesFound(found))
