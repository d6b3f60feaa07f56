"""The doctor's report, made in a child process, since drivers may hang or crash it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from typing import Any

from kvdeck.sessions.errors import KvdeckError
from kvdeck.sessions.host.documents import load_record
from kvdeck.sessions.host.user_home import expanded
from kvdeck.sessions.units import number_text

DOCTOR_SECONDS = 20.0


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
    child = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/", start_new_session=True
    )
    try:
        output, errors = child.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        raise KvdeckError(
            f"the doctor took more than {number_text(timeout)} s", "see dmesg: a driver may hang"
        ) from None
    try:
        report = load_record(output)
    except ValueError:
        words = errors.decode(errors="replace").strip().splitlines()
        said = words[-1] if words else "nothing"
        raise KvdeckError(f"the doctor ended with status {child.returncode}: {said}") from None
    if not isinstance(report, dict):
        raise KvdeckError("the doctor's report is not a JSON object", "report this bug in kvdeck")
    return report
