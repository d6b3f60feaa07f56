"""Discovery of telemetry sources on this host, in a child process: it imports modules that the screen never needs."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

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
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=LONGEST_S, check=False, start_new_session=True
        )
    except subprocess.TimeoutExpired:
        raise KvdeckError(f"looking for sources did not end within {number_text(LONGEST_S)} s") from None
    except OSError as error:
        raise KvdeckError(f"looking for sources failed: {error}") from error
    try:
        rows = load_record(done.stdout)["sources"]
        return tuple(FoundSource(str(row["name"]), str(row["kind"])) for row in rows)
    except (ValueError, KeyError, TypeError):
        words = done.stderr.decode(errors="replace").strip().splitlines()
        raise KvdeckError(f"looking for sources failed: {words[-1] if words else done.returncode}") from None
