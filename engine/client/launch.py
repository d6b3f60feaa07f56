"""Connection to the engine's socket, and start of the engine."""

from __future__ import annotations

import signal
import socket
import sys
import time
from pathlib import Path

from kvdeck.engine.children.child import Child, last_line, tail_of
from kvdeck.engine.daemon import runtime
from kvdeck.sessions.errors import EngineError

TRY_SECONDS = 0.02
"""Polling interval in seconds while an engine starts or ends."""
LOCKED = 3
"""Exit status of an engine whose runtime folder is locked by another engine."""
_started: list[Child] = []
"""Engines started by this process, to reap when they end."""


def attach(folder: Path) -> socket.socket | None:
    """Return a socket connected to the engine; None if no engine listens.

    Raises:
        EngineError: The connection fails for another reason.
    """
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connected.connect(str(runtime.socket_path(folder)))
    except (FileNotFoundError, ConnectionRefusedError):
        connected.close()
        return None
    except OSError as error:
        connected.close()
        raise EngineError(f"can't reach {runtime.socket_path(folder)}: {error.strerror}", "check the folder") from error
    return connected


def start_and_attach(folder: Path, home: Path, deadline: float) -> socket.socket:
    """Start an engine and return a connected socket.

    If two processes start engines at once, one engine ends and both processes connect to the other.

    Args:
        deadline: `time.monotonic()` value, in seconds.

    Raises:
        EngineError: The engine can't be started, ended at once, or did not listen before the deadline.
    """
    log = runtime.log_path(runtime.prepare_home(home))
    engine = _start(folder, home)
    while time.monotonic() < deadline:
        connected = attach(folder)
        if connected is not None:
            if runtime.peer(connected).pid != engine.pid:
                # Another process's engine was first; this one must not take over when that one ends.
                engine.signal(signal.SIGTERM)
                engine.wait()
            return connected
        status = engine.poll()
        if status == LOCKED:
            # Another engine holds the folder: it is either starting (wait) or ending (start again).
            engine = engine if _holder_lives(folder) else _start(folder, home)
        elif status is not None:
            raise EngineError(f"the engine exited with status {status} while starting: {_tail(log)}", f"see {log}")
        time.sleep(TRY_SECONDS)
    raise EngineError(f"the engine did not start: {_tail(log)}", f"see {log}")


def _start(folder: Path, home: Path) -> Child:
    reap()
    log = runtime.log_path(home)
    try:
        with log.open("ab") as output:
            engine = Child(
                [sys.executable, "-m", "kvdeck.engine.daemon.server"],
                stdout=output,
                stderr=output,
                cwd="/",
                env={"KVDECK_HOME": str(home), "KVDECK_RUNTIME": str(folder)},
            )
    except OSError as error:
        raise EngineError(
            f"the engine can't be started: {error}", f"check {log.parent} and {sys.executable}"
        ) from error
    _started.append(engine)
    return engine


def _holder_lives(folder: Path) -> bool:
    record = runtime.read_record(folder)
    return record is not None and record.process.alive


def reap() -> None:
    """Reap engines that this process started and that have ended."""
    _started[:] = [engine for engine in _started if engine.poll() is None]


def _tail(log: Path) -> str:
    """Return the log's last line that is not blank."""
    try:
        with log.open("rb") as file:
            return last_line(tail_of(file), "its log is empty")
    except OSError:
        return "its log is empty"
