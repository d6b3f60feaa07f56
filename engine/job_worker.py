"""What the workers of all kinds of jobs share: the writer of events, the request to stop, and the last event."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from kvdeck.engine.threads import start_thread
from kvdeck.sessions.errors import RunFailedError
from kvdeck.sessions.host.files import no_room
from kvdeck.sessions.model import events, records
from kvdeck.sessions.model.encoding import encode_line
from kvdeck.sessions.store.owners import ENGINE_ENDED

HANG_SECONDS = 30.0
"""Time from the end of stdin until a run that doesn't stop is killed."""


class Scribe:
    """Writer of events: to the session's samples.jsonl first, then to the supervisor on stdout."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = os.open(folder / "samples.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        # Native libraries print to descriptor 1: reserve the real stdout for events and send their output to stderr.
        self._stream: int | None = os.dup(1)
        os.dup2(2, 1)

    def emit(self, event: events.Event) -> None:
        """Write one event.

        Raises:
            RunFailedError: The session can't be written; the event is still sent to the supervisor.
        """
        line = encode_line(event)
        try:
            _write(self._file, line)
        except OSError as error:
            raise RunFailedError(*write_error(error, self._folder)) from error
        finally:
            self._send(line)

    def _send(self, line: bytes) -> None:
        if self._stream is not None:
            try:
                _write(self._stream, line)
            except BrokenPipeError:  # the supervisor is gone; the end of stdin cancels the run
                self._stream = None


def _write(fd: int, line: bytes) -> None:
    done = os.write(fd, line)
    while done < len(line):
        done += os.write(fd, line[done:])


class Stop:
    """Stop request of the run and its reason: SIGTERM, or the end of stdin. SIGINT is ignored."""

    def __init__(self) -> None:
        self.reason: str | None = None
        signal.signal(signal.SIGTERM, lambda *_: self.ask("cancelled"))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        start_thread("stdin", self._watch_stdin, lambda error: self.ask(f"its stdin can't be read: {error}"))

    def ask(self, reason: str) -> None:
        self.reason = self.reason or reason

    def asked(self) -> bool:
        return self.reason is not None

    def _watch_stdin(self) -> None:
        while os.read(0, 4096):
            pass
        self.ask(ENGINE_ENDED)
        time.sleep(HANG_SECONDS)
        # No supervisor is left to end a run that hangs in a native call; the ranks end with this process.
        os.kill(os.getpid(), signal.SIGKILL)


def tell_end(scribe: Scribe, state: records.RunState, reason: str | None) -> None:
    """Emit the run's last event: its final state."""
    # On a full disk the engine still receives the event, and writes it once the test files are removed.
    with contextlib.suppress(RunFailedError):
        scribe.emit(events.StateChanged(time.monotonic_ns(), time.time(), state, reason))


def write_error(error: OSError, session: Path) -> tuple[str, str]:
    """Return message and fix of a filesystem error; an error without a file name is about the session's own files."""
    where = error.filename if isinstance(error.filename, str) else str(session)
    what, fix = no_room(error) or (os.strerror(error.errno or 0), "check its owner and mode")
    return f"can't write in {where}: {what}", f"{fix}, or set KVDECK_HOME to a folder on another disk"
