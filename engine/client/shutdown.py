"""Shutdown of an engine of any version, in any state: by the `stop` command, or by its pid.

The line sent here must never change: `{"v": 1, "type": "stop", "id": 1, "force": …}`, without waiting for a hello.
Only `id`, `ok`, `error` and `fix` (or the older `mend`) of the reply are read.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import orjson

from kvdeck.engine.client.launch import TRY_SECONDS, reap
from kvdeck.engine.daemon import recovery, runtime
from kvdeck.engine.daemon.folders import home_folder
from kvdeck.engine.lines import LineBuffer
from kvdeck.sessions.errors import EngineError
from kvdeck.sessions.host.documents import load_record
from kvdeck.sessions.host.processes import ProcessIdentity, group_members, identity
from kvdeck.sessions.store.store import Store

ANSWER_SECONDS = 10.0
END_SECONDS = 60.0
FORCED_ANSWER_SECONDS = 1.0
"""With force: seconds after which an engine that doesn't reply counts as hanging."""
FORCED_END_SECONDS = 3.2
"""With force: seconds from the call after which an engine that still runs is killed."""
LEFT_SECONDS = 0.4
"""Seconds for children of a killed engine, which notice its end, to end by themselves."""


def stop_engine(folder: Path, force: bool = False) -> int | None:
    """Stop the engine of a runtime folder and wait until it has ended; with `force`, within 5 s.

    Args:
        force: Stop even during a run, and without a reply: a hanging engine is killed with its worker, and its runs
            become `interrupted`; their results are saved.

    Returns:
        The engine's pid; None if there was none.

    Raises:
        EngineError: The engine refuses, does not reply (without `force`), or can't be ended.
    """
    begun = time.monotonic()
    with contextlib.ExitStack() as stack:
        connected = _connect(folder, FORCED_ANSWER_SECONDS if force else ANSWER_SECONDS)
        if connected is not None:
            stack.enter_context(connected)
        engine = _engine(folder, connected)
        if engine is None:
            return None
        answered = connected is not None and _ask(connected, force)
    if not answered and not force:
        raise EngineError(f"engine {engine.pid} does not answer", "end it with `kvdeck engine stop --force`")
    if answered and _has_ended(engine, begun + (FORCED_END_SECONDS if force else END_SECONDS)):
        return engine.pid
    if not force:
        raise EngineError(f"engine {engine.pid} has not exited", "end it with `kvdeck engine stop --force`")
    _kill(folder, engine)
    return engine.pid


def _connect(folder: Path, seconds: float) -> socket.socket | None:
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # A hanging engine doesn't accept: with a full backlog, `connect` would wait as well.
    connected.settimeout(seconds)
    try:
        connected.connect(str(runtime.socket_path(folder)))
    except OSError:  # no socket, no listener, or a full backlog: the record has the pid
        connected.close()
        return None
    return connected


def _engine(folder: Path, connected: socket.socket | None) -> ProcessIdentity | None:
    """Return the engine's process: the listener, else the one in `engine.json`, else the lock's holder."""
    if connected is not None and (found := identity(runtime.peer(connected).pid)) is not None:
        return found
    record = runtime.read_record(folder)
    if record is not None and record.process.alive:
        return record.process
    pid = runtime.lock_holder(folder)
    return None if pid is None else identity(pid)


def _ask(connected: socket.socket, force: bool) -> bool:
    """Request the stop; return True if the engine agrees or closes the connection, False if it does not reply.

    Raises:
        EngineError: The engine refuses.
    """
    buffer, deadline = LineBuffer(), time.monotonic() + (connected.gettimeout() or 0.0)
    try:
        connected.sendall(orjson.dumps({"v": 1, "type": "stop", "id": 1, "force": force}) + b"\n")
        while time.monotonic() < deadline:
            data = connected.recv(1 << 18)
            for answer in map(_answer, buffer.take(data)):
                if answer is not None and not answer.get("ok"):
                    fix = answer.get("fix") or answer.get("mend") or ""
                    raise EngineError(str(answer.get("error") or "the engine refused to stop"), str(fix))
                if answer is not None:
                    return True
            if not data:
                return True  # the engine closed the connection: it is ending
    except OSError:
        return False
    return False


def _answer(line: bytes) -> dict[str, Any] | None:
    try:
        data = load_record(line)
    except ValueError:
        return None
    return data if isinstance(data, dict) and data.get("type") == "reply" and data.get("id") == 1 else None


def _has_ended(engine: ProcessIdentity, deadline: float) -> bool:
    while engine.alive:
        reap()
        if time.monotonic() > deadline:
            return False
        time.sleep(TRY_SECONDS)
    return True


def _kill(folder: Path, engine: ProcessIdentity) -> None:
    """Kill an engine and its children, remove its runtime files, and set its runs to `interrupted`.

    Raises:
        EngineError: The kernel does not end the engine, or it belongs to another user.
    """
    record = runtime.read_record(folder)
    # Before the kill: of a process that is gone the group can't be asked any more.
    own_group = _group(engine.pid) == engine.pid
    try:
        os.kill(engine.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    except PermissionError as error:
        raise EngineError(f"engine {engine.pid} belongs to another user", "ask that user to end it") from error
    if not _has_ended(engine, time.monotonic() + 1.0):
        raise EngineError(
            f"engine {engine.pid} was killed but has not exited: the kernel waits for a disk or a device",
            f"see `cat /proc/{engine.pid}/stack`",
        )
    if own_group:
        _end_group(engine.pid)
    deadline = time.monotonic() + LEFT_SECONDS
    while (lock := runtime.take_lock(folder)) is None:  # its last threads may hold the lock for a moment longer
        if time.monotonic() > deadline:
            return  # another engine runs already, and does this recovery itself
        time.sleep(TRY_SECONDS)
    try:
        runtime.socket_path(folder).unlink(missing_ok=True)
        (folder / "engine.json").unlink(missing_ok=True)
        home = Path(record.home) if record is not None else home_folder()
        if home.is_dir():
            recovery.recover(Store(home), LEFT_SECONDS)
    finally:
        os.close(lock)


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


def _end_group(group: int) -> None:
    """Kill the processes in a dead engine's group that don't end by themselves within `LEFT_SECONDS`."""
    deadline = time.monotonic() + LEFT_SECONDS
    while (members := group_members(group)) and time.monotonic() < deadline:
        time.sleep(TRY_SECONDS)
    for member in members:
        with contextlib.suppress(OSError):
            os.kill(member, signal.SIGKILL)
