"""Discovery of telemetry sources on this host, in a child process: it imports modules that the screen never needs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

from kvdeck.app.tui.messages import Found, SourcesFound
from kvdeck.sessions.host.documents import load_record
from kvdeck.sessions.units import number_text

LONGEST_S = 20.0


def look(post: Callable[[SourcesFound], object]) -> None:
    """Run `kvdeck monitor --list-sources` and post its sources.

    Posts no sources and an error text if it fails or runs longer than `LONGEST_S` seconds.
    """
    argv = [sys.executable, "-m", "kvdeck.app.cli.main", "monitor", "--list-sources", "--json"]
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=LONGEST_S, check=False, start_new_session=True
        )
        rows = load_record(done.stdout)["sources"]
        found = tuple(Found(str(row["name"]), str(row["kind"])) for row in rows)
    except subprocess.TimeoutExpired:
        post(SourcesFound((), f"the search for sources took more than {number_text(LONGEST_S)} s"))
    except (ValueError, KeyError, TypeError):
        words = done.stderr.decode(errors="replace").strip().splitlines()
        post(SourcesFound((), f"the search for sources failed: {words[-1] if words else done.returncode}"))
    else:
        post(SourcesFound(found))
