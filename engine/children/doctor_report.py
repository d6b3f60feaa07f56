"""What is asked of a child that may hang or die, so that whoever asks does neither."""

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
    """What `python -m kvdeck.engine.doctor.report --json` says, asked in a child that may hang or die.

    Args:
        folder: Where test files would go.
        timeout: Seconds after which the child is killed with whatever it started.

    Raises:
        KvdeckError: It said nothing that can be read.
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
            f"the doctor did not end within {number_text(timeout)} s", "a driver may hang: see dmesg"
        ) from None
    try:
        report = load_record(output)
    except ValueError:
        words = errors.decode(errors="replace").strip().splitlines()
        said = words[-1] if words else "nothing"
        raise KvdeckError(f"the doctor ended with status {child.returncode} and said: {said}") from None
    if not isinstance(report, dict):
        raise KvdeckError("the doctor's report is no JSON object", "this is a fault of kvdeck: please report it")
    return report
