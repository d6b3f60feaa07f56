"""The engine's main process: `python -m kvdeck.engine.daemon.server`, one per runtime folder.

It outlives its clients. It transfers nothing and loads neither NIXL nor CUDA, so that their crashes end only a worker.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
import os
import shlex
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kvdeck.engine.children.child import Limits
from kvdeck.engine.client.launch import LOCKED
from kvdeck.engine.daemon import recovery, runtime
from kvdeck.engine.daemon.connection import Connection, Following
from kvdeck.engine.daemon.folders import home_folder
from kvdeck.engine.daemon.log import start_log
from kvdeck.engine.daemon.run_queue import Jobs
from kvdeck.engine.daemon.stream import Feed
from kvdeck.engine.daemon.telemetry_sessions import Recordings
from kvdeck.engine.protocol import (
    MAX_LINE,
    VERSION,
    Annotate,
    Cancel,
    FromClient,
    Hello,
    Record,
    RecordingsChanged,
    Reply,
    RunsChanged,
    Status,
    Stop,
    StopRecording,
    Submit,
    Subscribe,
    Watch,
    encode,
)
from kvdeck.engine.spec import spec_from_mapping
from kvdeck.sessions.errors import EngineError, KvdeckError, SessionError, UsageError
from kvdeck.sessions.host import umask
from kvdeck.sessions.host.processes import own_identity, signal_name
from kvdeck.sessions.host.user_home import ensure_home
from kvdeck.sessions.model.records import FINAL_STATES, to_json
from kvdeck.sessions.store.event_log import LineReader, count_lines
from kvdeck.sessions.store.store import Store

WORKER = (sys.executable, "-m", "kvdeck.engine.transfer.worker")
IDLE_EXIT_SECONDS = 3600.0
PROGRESS_SECONDS = 1.0
"""Minimum interval in seconds between queue messages that differ in progress only."""
FAREWELL_SECONDS = 2.0
HURRIED_FAREWELL_SECONDS = 0.3
THREADS = 4
"""Threads for file operations; started up front, since the host may have none left later."""
RECOVERY_SECONDS = 3.0

log = logging.getLogger("kvdeck.engine")


@dataclass(frozen=True, slots=True)
class Config:
    """Folders, worker command and time limits of an engine."""

    home: Path
    runtime: Path
    worker: tuple[str, ...] = WORKER
    idle_exit: float = IDLE_EXIT_SECONDS
    """Seconds without clients, runs and recordings after which the engine ends; 0: never."""
    limits: Limits = field(default_factory=Limits)


def config_from_environment() -> Config:
    """Read `KVDECK_HOME`, `KVDECK_RUNTIME`, `KVDECK_IDLE_EXIT` (s) and, for tests, `KVDECK_WORKER`, `KVDECK_GRACE` (s).

    Raises:
        UsageError: A number of seconds is invalid.
    """
    worker = shlex.split(os.environ.get("KVDECK_WORKER", ""))
    return Config(
        home=home_folder(),
        runtime=runtime.runtime_folder(),
        worker=tuple(worker) or WORKER,
        idle_exit=_seconds("KVDECK_IDLE_EXIT", IDLE_EXIT_SECONDS),
        limits=Limits(grace=_seconds("KVDECK_GRACE", Limits().grace)),
    )


def _seconds(variable: str, default: float) -> float:
    text = os.environ.get(variable)
    try:
        value = default if not text else float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise UsageError(f"{variable} is {text!r}", "give a number of seconds")
    return value


class Server:
    """The engine: run queue, telemetry recordings, connections, and its own end."""

    def __init__(self, config: Config, store: Store) -> None:
        self._config, self._store = config, store
        self._kvdeck = importlib.metadata.version("kvdeck")
        self._started = time.time()
        self._jobs = Jobs(store, config.worker, config.limits, self._kvdeck, self._runs_changed)
        self._connections: dict[Connection, asyncio.Task[Any]] = {}
        self._recordings = Recordings(store, self._kvdeck, self._recordings_changed)
        self._runs: bytes | None = None
        self._runs_timer: asyncio.TimerHandle | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._stopping = asyncio.Event()
        self._hurry = False
        """Set if the engine is stopped by force: shorter time limits apply."""
        self._why = "shutting down"

    async def run(self) -> None:
        """Recover sessions of dead engines, then serve until stopped or idle for `idle_exit`."""
        loop = asyncio.get_running_loop()
        loop.set_default_executor(_started_threads())
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, signal_name(number))
        for session, done in recovery.recover(self._store, min(RECOVERY_SECONDS, self._config.limits.grace)):
            log.warning("%s", done)
            if session.kind == "run":
                self._jobs.adopt(session, count_lines(self._store.samples_path(session.name)))
        path = runtime.socket_path(self._config.runtime)
        path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._accept, path, limit=MAX_LINE)
        inode = path.lstat().st_ino
        log.info("engine %d serves %s, sessions in %s", os.getpid(), path, self._store.home)
        working = asyncio.ensure_future(self._jobs.work())
        stopped = asyncio.ensure_future(self._stopping.wait())
        self._watch_idle()
        try:
            await asyncio.wait({working, stopped}, return_when=asyncio.FIRST_COMPLETED)
            runtime.remove_runtime_files(self._config.runtime, inode)
            server.close()
            if working.done():
                await self._queue_failed(working)
            else:
                self._jobs.cancel_all("the engine was stopped", self._hurry)
                await self._recordings.settle(self._hurry)
                await self._jobs.settle()
            await self._farewell()
        finally:
            stopped.cancel()
            working.cancel()
            self._recordings.watching.close()
            runtime.remove_runtime_files(self._config.runtime, inode)
        log.info("engine %d ends", os.getpid())

    def _stop(self, why: str) -> None:
        log.info("stopping: %s", why)
        self._why = why
        self._stopping.set()

    async def _queue_failed(self, working: asyncio.Task[None]) -> None:
        """Log the failure of the queue's task and interrupt runs and recordings; the engine ends."""
        error = working.exception() if not working.cancelled() else None
        self._why = f"the run queue failed: {type(error).__name__}: {error}" if error else "the run queue ended"
        log.critical("the engine ends: %s", self._why, exc_info=error)
        await self._jobs.interrupt(f"the engine failed ({self._why})")
        await self._recordings.settle(hurry=True)

    async def _farewell(self) -> None:
        for connection in self._connections:
            connection.leave(self._why)
        if self._connections:
            timeout = HURRIED_FAREWELL_SECONDS if self._hurry else FAREWELL_SECONDS
            await asyncio.wait(self._connections.values(), timeout=timeout)
        for task in list(self._connections.values()):
            task.cancel()

    # --- clients ---

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        uid = runtime.peer(writer.get_extra_info("socket")).uid
        if uid not in (os.geteuid(), 0):
            log.warning("refused a client of user %d", uid)
            writer.close()
            return
        connection = Connection(reader, writer, self._answer, self._runs_message, self._recordings_message)
        task = asyncio.current_task()
        assert task is not None
        self._connections[connection] = task
        self._watch_idle()
        try:
            await connection.serve(self._hello())
        finally:
            del self._connections[connection]
            self._recordings.watching.leave(connection)
            self._watch_idle()

    def _hello(self) -> Hello:
        return Hello(
            version=VERSION,
            engine_pid=os.getpid(),
            kvdeck=self._kvdeck,
            started=self._started,
            monotonic_ns=time.monotonic_ns(),
            home=str(self._store.home),
            runs=self._jobs.infos(),
        )

    def _runs_changed(self, urgent: bool) -> None:
        if urgent:
            self._send_runs()
        elif self._runs_timer is None:
            self._runs_timer = asyncio.get_running_loop().call_later(PROGRESS_SECONDS, self._send_runs)

    def _send_runs(self) -> None:
        if self._runs_timer is not None:
            self._runs_timer.cancel()
            self._runs_timer = None
        self._runs = None
        for connection in self._connections:
            connection.runs_changed()
        self._watch_idle()

    def _runs_message(self) -> bytes:
        """Return the encoded queue, cached until the next change."""
        if self._runs is None:
            self._runs = encode(RunsChanged(self._jobs.infos()))
        return self._runs

    def _recordings_changed(self) -> None:
        for connection in self._connections:
            connection.recordings_changed()
        self._watch_idle()

    def _recordings_message(self) -> bytes:
        return encode(RecordingsChanged(self._recordings.states))

    def _watch_idle(self) -> None:
        """Start the idle timer if there is no client, run or recording; cancel it otherwise."""
        busy = self._jobs.busy or self._recordings.busy
        idle = not self._connections and not busy and self._config.idle_exit > 0
        if not idle and self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        elif idle and self._idle_timer is None:
            loop = asyncio.get_running_loop()
            self._idle_timer = loop.call_later(self._config.idle_exit, self._stop, "idle")

    # --- commands ---

    async def _answer(self, connection: Connection, command: FromClient) -> Reply:
        if isinstance(command, Subscribe):
            return await self._subscribe(connection, command)
        if isinstance(command, Status):
            return Reply(command.id, True, self._status())
        if isinstance(command, Watch):
            self._recordings.watching.watch(connection, command)
            return Reply(command.id, True)
        if connection.readonly:
            raise EngineError(f"a read-only client may not {command.type}", "attach without read-only")
        if isinstance(command, Stop):
            return self._stop_asked(command)
        if self._stopping.is_set():
            raise EngineError("the engine is stopping", "try again")
        if isinstance(command, Submit):
            spec = spec_from_mapping(command.spec)
            return Reply(command.id, True, {"session": await self._jobs.submit(spec, command.session)})
        if isinstance(command, Cancel):
            if self._recordings.makes(command.session):
                self._recordings.stop(command.session)
            else:
                self._jobs.cancel(command.session)
            return Reply(command.id, True, {"session": command.session})
        if isinstance(command, Record):
            return Reply(command.id, True, {"session": await self._recordings.begin(command)})
        if isinstance(command, StopRecording):
            self._recordings.stop(command.name)
            return Reply(command.id, True, {"session": command.name})
        if isinstance(command, Annotate):
            self._recordings.mark(command)
            return Reply(command.id, True)
        raise UsageError(f"unknown command: {command.type}")

    async def _subscribe(self, connection: Connection, command: Subscribe) -> Reply:
        hz, from_seq = command.hz, command.from_seq
        if not isinstance(hz, (int, float)) or not isinstance(from_seq, int) or not (hz >= 0 and from_seq >= 0):
            raise UsageError(f"can't follow from line {from_seq!r} at {hz!r} Hz", "give numbers of at least 0")
        following: Following | None = None
        data: dict[str, Any] = {}
        if command.session is not None:
            feed = self._jobs.feed(command.session)
            if feed is None:
                feed = await asyncio.to_thread(self._old_feed, command.session)
            reader = LineReader(feed.path, from_seq)
            following = Following(feed, from_seq, feed.next_seq, float(hz), reader)
            data = {"session": command.session, "live_from": feed.next_seq}
        connection.subscribe(following, bool(command.readonly))
        return Reply(command.id, True, data)

    def _old_feed(self, name: str) -> Feed:
        """Return a stream with only history, for a session that is not in the queue."""
        if not self._store.exists(name):
            raise SessionError(f"there is no session {name!r}", "see `kvdeck session list`")
        path = self._store.samples_path(name)
        return Feed(name, path, count_lines(path))

    def _status(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "started": self._started,
            "kvdeck": self._kvdeck,
            "home": str(self._store.home),
            "runtime": str(self._config.runtime),
            "clients": len(self._connections),
            "idle_exit_s": self._config.idle_exit,
            "runs": [to_json(info) for info in self._jobs.infos()],
            "recordings": [to_json(state) for state in self._recordings.states],
        }

    def _stop_asked(self, command: Stop) -> Reply:
        if self._stopping.is_set():
            if command.force:
                self._hurry = True
                self._jobs.hurry()
            return Reply(command.id, True)
        if self._jobs.busy and not command.force:
            raise EngineError("a run is in progress", "wait for it, cancel it, or stop with force")
        if self._recordings.busy and not command.force:
            names = ", ".join(state.name for state in self._recordings.states if state.state not in FINAL_STATES)
            raise EngineError(
                f"a recording is in progress: {names}", "stop it, or stop with force; its samples are saved"
            )
        self._hurry = bool(command.force)
        self._stop("requested by a client")
        return Reply(command.id, True)


def _started_threads() -> ThreadPoolExecutor:
    """Return a thread pool whose threads have all started.

    Raises:
        EngineError: This user can't start more threads.
    """
    pool, barrier = ThreadPoolExecutor(THREADS, "files"), threading.Barrier(THREADS + 1)
    try:
        for _ in range(THREADS):
            pool.submit(barrier.wait, 10.0)
    except RuntimeError as error:
        barrier.abort()
        raise EngineError(f"the engine can't start its threads: {error}", "raise `ulimit -u`") from error
    barrier.wait(10.0)
    return pool


def main() -> int:
    """Run the engine in the foreground, logging to its file; return the exit status (`LOCKED` if one runs already)."""
    umask.make_private()
    ensure_home()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        config = config_from_environment()
        runtime.prepare_home(config.home)
        start_log(runtime.log_path(config.home))
        runtime.prepare_runtime(config.runtime)
        lock = runtime.take_lock(config.runtime)
        if lock is None:
            return LOCKED
        record = runtime.EngineRecord(
            own_identity(), time.time(), str(config.home), importlib.metadata.version("kvdeck")
        )
        runtime.write_record(config.runtime, record)
        asyncio.run(Server(config, Store(config.home)).run())
    except KvdeckError as error:
        print(f"kvdeck engine: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
