"""A process of its own that records telemetry into one session, for commands that need no engine."""

from __future__ import annotations

import contextlib
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import orjson

from kvdeck.engine.children.child import PIPE, Child, exit_reason, last_line, tail_of
from kvdeck.engine.lines import LineBuffer
from kvdeck.engine.threads import start_thread
from kvdeck.sessions.host.documents import load_record
from kvdeck.sessions.units import number_text

COMMAND = (sys.executable, "-m", "kvdeck.engine.telemetry")
LATE_SECONDS = 5.0
"""By how much a sample may be late, on a host that is busy."""
END_SECONDS = 10.0
"""Time for the last lines of a recording."""


class RecorderProcess:
    """Records telemetry into an existing telemetry session until `close`, or until this process ends.

    Args:
        home: kvdeck's home folder, which holds the session.
        name: The telemetry session; `NAME/telemetry` is the one inside the session NAME.
        sources: Sources to sample; empty for all that are discovered on this host.
        hz: Samples per second.
        owner: This process, in the reason of a recording that it left unended: `kvdeck trace`.

    Raises:
        OSError: The process can't be started.
    """

    def __init__(self, home: Path, name: str, sources: Sequence[str], hz: float, owner: str) -> None:
        self._name, self._hz = name, hz
        self._sampled = threading.Event()
        self._reported = ""
        """Why the recording failed, in the process's own words."""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  closed in `close`
        # In its own group: Ctrl-C in the terminal is for the command, whose last seconds are to be recorded too.
        self._child = Child(COMMAND, stdin=PIPE, stdout=PIPE, stderr=self._errors, own_group=True)
        self._send({"home": str(home), "sources": list(sources), "hz": hz, "owner": owner}, {"record": name})
        # The thread must not receive this process's signals, which the main thread may wait for.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        self._reader = start_thread(f"recording of {name}", self._read)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def wait_for_sample(self, seconds: float) -> bool:
        """Wait until the first sample was recorded; False if there is none after `seconds`, or the process ended."""
        self._sampled.wait(seconds)
        return self._sampled.is_set() and not self._child.exited()

    def close(self) -> str | None:
        """End the recording after one more sample; return why it did not end well, None if it did."""
        # What moved since the last sample is in the next one only.
        self._sampled.clear()
        self._sampled.wait(0.0 if self._child.exited() else 1 / self._hz + LATE_SECONDS)
        self._send({"stop": self._name, "reason": None})
        with contextlib.suppress(OSError):
            self._child.stdin.close()  # it exits then
        deadline = time.monotonic() + END_SECONDS
        status = self._child.wait(END_SECONDS)
        self._reader.join(max(0.0, deadline - time.monotonic()))
        in_time = status is not None
        if not in_time:
            self._child.kill()
        said = last_line(tail_of(self._errors))
        self._child.close()
        self._errors.close()
        if status == 0 and not self._reported:
            return None
        how = exit_reason(status) if status is not None else f"did not end in {number_text(END_SECONDS)} s"
        return self._reported or f"the sampling process {how}" + (f": {said}" if said else "")

    def _send(self, *commands: dict[str, object]) -> None:
        with contextlib.suppress(OSError):  # it has ended, which `close` reports
            self._child.stdin.write(b"".join(orjson.dumps(one) + b"\n" for one in commands))
            self._child.stdin.flush()

    def _read(self) -> None:
        """Read the process's output to its end: it blocks when nothing reads it."""
        buffer = LineBuffer()
        try:
            while data := self._child.stdout.read1(65536):  # type: ignore[attr-defined]
                for line in buffer.take(data):
                    self._take(line)
        finally:
            self._sampled.set()

    def _take(self, line: bytes) -> None:
        try:
            record = load_record(line)
        except ValueError:  # native libraries may print anything
            return
        if "recording" not in record:
            self._sampled.set()
        elif record["recording"].get("state") == "failed":
            self._reported = str(record["recording"].get("reason"))
