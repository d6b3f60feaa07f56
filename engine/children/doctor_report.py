"""The doctor's report, made in a child process, since drivers may hang or crash it."""

from __future__ import annotations

import sys
from typing import Any

from kvdeck.engine.children.child import last_line, run
from kvdeck.sessions.errors import KvdeckError
from kvdeck.sessions.host.documents import load_record
from kvdeck.sessions.host.user_home import expanded
from kvdeck.sessions.units import number_text

DOCTOR_SECONDS = 20.0
PEER_SECONDS = 60.0
"""Time for ssh, for the other half to start, and for UCX to connect."""


def doctor_report(folder: str | None = None, timeout: float = DOCTOR_SECONDS) -> dict[str, Any]:
    """Return the JSON object that a child process `python -m kvdeck.engine.doctor.report --json` prints.

    Args:
        folder: Folder for test files.
        timeout: Seconds after which the child and its process group are killed.

    Raises:
        KvdeckError: The child did not end in time, or printed no JSON object.
    """
    argv = [sys.executable, "-m", "kvdeck.engine.doctor.report", "--json"]
    if folder is not None:
        argv += ["--folder", str(expanded(folder).absolute())]
    return _printed(argv, timeout)


def peer_report(peer: str, command: str, timeout: float = PEER_SECONDS) -> dict[str, Any]:
    """Return what a run with a peer would find; see `engine.doctor.peer_check`.

    Args:
        peer: Host as for `kvdeck run --peer`.
        command: How kvdeck is called there.

    Raises:
        KvdeckError: The check did not end in time, or printed no JSON object.
    """
    module = "kvdeck.engine.doctor.peer_check"
    return _printed([sys.executable, "-m", module, "--command", command, peer], timeout)


def _printed(argv: list[str], timeout: float) -> dict[str, Any]:
    child = run(argv, timeout, cwd="/")
    if child.status is None:
        raise KvdeckError(f"the doctor took more than {number_text(timeout)} s", "see dmesg: a driver may hang")
    try:
        report = load_record(child.output)
    except ValueError:
        said = last_line(child.errors, "no error message")
        raise KvdeckError(f"the doctor ended with status {child.status}: {said}") from None
    if not isinstance(report, dict):
        raise KvdeckError("the doctor's report is not a JSON object", "report this bug in kvdeck")
    return report
