"""Reaching the engine's socket, and starting an engine where there is none."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from kvdeck.engine.daemon import runtime
from kvdeck.sessions.errors import EngineError

TRY_SECONDS = 0.02
"""Between two looks whether an engine has come or gone."""
LOCKED = 3
"""Exit status of an engine that finds another in its runtime folder."""
_started: list[subprocess.Popen[bytes]] = []
"""Engines that this process started: kept so that their end can be waited for."""


def attach(folder: Path) -> socket.socket | None:
    """Connect to the engine's socket; null where nobody listens.

    Raises:
        EngineError: The socket is there and can't be used.
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
    """Start an engine and attach; of two that are started at once one goes, and both starters get the other."""
    log = runtime.log_path(runtime.prepare_home(home))
    engine = _start(folder, home)
    while time.monotonic() < deadline:
        connected = attach(folder)
        if connected is not None:
            if runtime.peer(connected).pid != engine.pid:
                # Another starter's engine was first; ours must not come up once that one has gone.
                engine.terminate()
                engine.wait()
            return connected
        status = engine.poll()
        if status == LOCKED:
            # Another engine holds the folder: it comes up, or it is just ending and makes room.
            engine = engine if _holder_lives(folder) else _start(folder, home)
        elif status is not None:
            raise EngineError(f"the engine ended with status {status} at its start: {_tail(log)}", f"see {log}")
        time.sleep(TRY_SECONDS)
    raise EngineError(f"the engine did not come up: {_tail(log)}", f"see {log}")


def _start(folder: Path, home: Path) -> subprocess.Popen[bytes]:
    reap()
    log = runtime.log_path(home)
    try:
        with log.open("ab") as output:
            engine = subprocess.Popen(
                [sys.executable, "-m", "kvdeck.engine.daemon.server"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                env={**os.environ, "KVDECK_HOME": str(home), "KVDECK_RUNTIME": str(folder)},
                start_new_session=True,
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
    """Wait for engines that this process started and that have ended."""
    _started[:] = [engine for engine in _started if engine.poll() is None]


def _tail(log: Path) -> str:
    """The log's last line."""
    try:
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        lines = []
    return lines[-1].strip() if lines else "its log is empty"
