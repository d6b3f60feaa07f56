"""The engine's main process: `python -m kvdeck.engine.daemon.server`, one per runtime folder.

It outlives its clients. It transfers nothing and loads neither NIXL nor CUDA, so that their crashes end only a worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import logging
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kvdeck.engine.children.worker_process import Limits
from kvdeck.engine.client.launch import LOCKED
from kvdeck.engine.daemon import recovery, runtime
from kvdeck.engine.daemon.connection import Connection, Following, Topic
from kvdeck.engine.daemon.dispatch import answers, handlers
from kvdeck.engine.daemon.folders import home_folder
from kvdeck.engine.daemon.job_kinds import job_kind
from kvdeck.engine.daemon.log import start_log
from kvdeck.engine.daemon.run_executor import RunExecutor
from kvdeck.engine.daemon.stream import RunStream
from kvdeck.engine.daemon.telemetry_sessions import TelemetrySessions
from kvdeck.engine.protocol import (
    CARRIED,
    MAX_LINE,
    VERSION,
    Cancel,
    Command,
    FromEngine,
    Hello,
    RecordingsChanged,
    Reply,
    RunsChanged,
    StartRecording,
    Status,
    StopEngine,
    Submit,
    Subscribe,
)
from kvdeck.engine.tasks import BaseExceptionGroup, TaskGroup, failure_of, first_of, start_part
from kvdeck.engine.threads import start_thread
from kvdeck.sessions.errors import EngineError, KvdeckError, SessionError, UsageError
from kvdeck.sessions.host import umask
from kvdeck.sessions.host.processes import own_identity, signal_name
from kvdeck.sessions.host.user_home import ensure_home
from kvdeck.sessions.model.records import FINAL_STATES, Session
from kvdeck.sessions.store.event_log import LineReader, count_lines
from kvdeck.sessions.store.store import Store

IDLE_EXIT_SECONDS = 3600.0
PROGRESS_SECONDS = 1.0
"""Minimum interval in seconds between queue messages that differ in progress only."""
FAREWELL_SECONDS = 2.0
HURRIED_FAREWELL_SECONDS = 0.3
THREADS = 4
"""Threads for file operations; started up front, since the host may have none left later."""
RECOVERY_SECONDS = 3.0
REMOVAL_SECONDS = 1.0
"""Longest wait, after all else has ended, for the removal of the runtime folder's files."""

log = logging.getLogger("kvdeck.engine")


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Folders, worker command and time limits of an engine."""

    home: Path
    runtime: Path
    worker: tuple[str, ...] = ()
    """Command of the worker of transfers, if it is not the one of `job_kinds`."""
    idle_exit: float = IDLE_EXIT_SECONDS
    """Seconds without clients, runs and recordings after which the engine ends; 0: never."""
    limits: Limits = field(default_factory=Limits)


def config_from_environment() -> EngineConfig:
    """Read `KVDECK_HOME`, `KVDECK_RUNTIME`, `KVDECK_IDLE_EXIT` (s) and, for tests, `KVDECK_WORKER`, `KVDECK_GRACE` (s).

    Raises:
        UsageError: A number of seconds is invalid.
    """
    worker = shlex.split(os.environ.get("KVDECK_WORKER", ""))
    return EngineConfig(
        home=home_folder(),
        runtime=runtime.runtime_folder(),
        worker=tuple(worker),
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

    def __init__(self, config: EngineConfig, store: Store) -> None:
        self._config, self._store = config, store
        self._kvdeck = importlib.metadata.version("kvdeck")
        self._started = time.time()
        self._jobs = RunExecutor(store, config.worker, config.limits, self._kvdeck, self._runs_changed)
        self._connections: dict[Connection, asyncio.Task[None]] = {}
        self._clients: TaskGroup | None = None
        """Owner of the connections' tasks."""
        self._recordings = TelemetrySessions(store, self._kvdeck, self._recordings_changed)
        self._topics: list[Topic] = []
        self._runs = self.topic(lambda: RunsChanged(self._jobs.infos()))
        self._recorded = self.topic(lambda: RecordingsChanged(self._recordings.states))
        self._handlers = handlers(self, self._recordings, self._recordings.watching)
        self._runs_timer: asyncio.TimerHandle | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._stopping = asyncio.Event()
        self._removed = asyncio.Event()
        """Cleared while the runtime folder's files are being removed."""
        self._removed.set()
        self._failed = False
        """Set if a part died; the engine ends with an error then."""
        self._broken: Exception | None = None
        """Error in a callback of the event loop, such as a timer or an accepted connection."""
        self._hurry = False
        """Set if the engine is stopped by force: shorter time limits apply."""
        self._why = "shutting down"

    async def run(self) -> None:
        """Recover sessions of dead engines, then serve until stopped or idle for `idle_exit`.

        Raises:
            EngineError: A part died of an unexpected error. Runs and recordings are interrupted, and clients have the
                reason.
        """
        loop = asyncio.get_running_loop()
        loop.set_default_executor(_started_threads())
        loop.set_exception_handler(self._on_loop_error)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, signal_name(number))
        for session, lines in await asyncio.to_thread(self._recover):
            self._jobs.adopt(session, lines)
        path = runtime.socket_path(self._config.runtime)
        # Only the holder of the lock comes here, so a socket in its place is a dead engine's.
        await asyncio.to_thread(path.unlink, missing_ok=True)
        async with TaskGroup() as self._clients:
            try:
                async with TaskGroup() as parts:
                    self._jobs.start(parts)
                    self._recordings.start(parts)
                    server = await asyncio.start_unix_server(self._accept, path, limit=MAX_LINE)
                    # At its end this engine must not remove the socket of a later one at the same path.
                    inode = path.lstat().st_ino
                    log.info("engine %d serves %s, sessions in %s", os.getpid(), path, self._store.home)
                    self._watch_idle()
                    try:
                        await self._stopping.wait()
                    finally:
                        self._remove_files(inode)
                        server.close()
                    await self._end_work()
            except BaseExceptionGroup as failures:
                await self._part_failed(first_of(failures))
            await self._farewell()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._removed.wait(), REMOVAL_SECONDS)
        log.info("engine %d ends", os.getpid())
        if self._failed:
            raise EngineError(f"the engine failed: {self._why}", "please report it with the engine's log")

    def _remove_files(self, inode: int) -> None:
        """Begin to remove the socket and the record, in a thread, which is left behind if the folder hangs."""
        loop, removed = asyncio.get_running_loop(), self._removed
        removed.clear()

        def remove() -> None:
            try:
                runtime.remove_runtime_files(self._config.runtime, inode)
            finally:
                with contextlib.suppress(RuntimeError):  # the engine has ended without waiting for it
                    loop.call_soon_threadsafe(removed.set)

        try:
            # Not in the pool: at a dead disk all of its threads may hang.
            start_thread("runtime files", remove)
        except RuntimeError:  # the host has no thread left
            remove()

    def _recover(self) -> list[tuple[Session, int]]:
        """Recover sessions of dead engines; return the runs among them with the lengths of their event logs."""
        found = []
        for session, done in recovery.recover(self._store, min(RECOVERY_SECONDS, self._config.limits.grace)):
            log.warning("%s", done)
            if session.kind == "run":
                found.append((session, count_lines(self._store.samples_path(session.name))))
        return found

    async def _end_work(self) -> None:
        """End runs and recordings, and with them every task of theirs."""
        if self._broken is not None:
            raise self._broken
        self._jobs.stop("the engine was stopped", self._hurry)
        await self._recordings.settle(self._hurry)
        await self._jobs.settle()
        self._recordings.watching.close()

    def _stop(self, why: str) -> None:
        log.info("stopping: %s", why)
        self._why = why
        self._stopping.set()

    def _on_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """End the engine after an error in a callback; log others, such as a failed `accept`, which is tried again."""
        error = context.get("exception")
        # A callback that failed has left its state half changed; out of memory passes, and the engine must outlive it.
        if "handle" in context and isinstance(error, Exception) and not isinstance(error, MemoryError):
            self._broken = failure_of("event loop", error)
            self._stop(str(self._broken))
        loop.default_exception_handler(context)

    async def _part_failed(self, error: BaseException) -> None:
        """Interrupt runs and recordings after a part died; its tasks and those of the other parts have ended."""
        self._stopping.set()
        self._failed, self._why = True, str(error)
        log.critical("the engine ends: %s", self._why, exc_info=error.__cause__ or error)
        reason = f"the engine failed ({self._why})"
        await self._jobs.interrupt(reason)
        await self._recordings.interrupt(reason)

    async def _farewell(self) -> None:
        for connection in self._connections:
            connection.leave(self._why)
        if self._connections:
            timeout = HURRIED_FAREWELL_SECONDS if self._hurry else FAREWELL_SECONDS
            await asyncio.wait(self._connections.values(), timeout=timeout)
        for task in list(self._connections.values()):
            task.cancel()

    # --- clients ---

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            uid = runtime.peer(writer.get_extra_info("socket")).uid
        except OSError:
            writer.close()
            return
        # The folder's mode keeps others out already; root may look, as it may in every file.
        if uid not in (os.geteuid(), 0):
            log.warning("refused a client of user %d", uid)
            writer.close()
            return
        assert self._clients is not None
        connection = Connection(reader, writer, self._answer, self._topics)
        self._connections[connection] = start_part(self._clients, "connection", self._serve(connection))
        self._watch_idle()

    async def _serve(self, connection: Connection) -> None:
        try:
            await connection.serve(self._hello())
        except Exception:  # one client's connection must not end the engine
            log.exception("a client's connection failed")
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

    def topic(self, message: Callable[[], FromEngine]) -> Topic:
        """Return a state that every subscriber receives, from now on."""
        topic = Topic(message, self._connections)
        self._topics.append(topic)
        return topic

    def _runs_changed(self, urgent: bool) -> None:
        if urgent:
            self._recordings.runs_changed(self._jobs.states())
            self._send_runs()
        elif self._runs_timer is None:
            self._runs_timer = asyncio.get_running_loop().call_later(PROGRESS_SECONDS, self._send_runs)

    def _send_runs(self) -> None:
        if self._runs_timer is not None:
            self._runs_timer.cancel()
            self._runs_timer = None
        self._runs.changed()
        self._watch_idle()

    def _recordings_changed(self) -> None:
        self._recorded.changed()
        self._watch_idle()

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

    async def _answer(self, connection: Connection, command: Command) -> Reply:
        handler = self._handlers.get(type(command))
        if handler is None:
            raise UsageError(f"unknown command: {command.type}")
        if command.changes_state:
            if connection.readonly:
                raise EngineError(f"a read-only client may not {command.type}", "attach without read-only")
            if self._stopping.is_set() and not isinstance(command, StopEngine):
                raise EngineError("the engine is stopping", "try again")
        data = handler(connection, command)
        return Reply(command.id, True, (await data if isinstance(data, Awaitable) else data) or {})

    @answers(Submit)
    async def _submit(self, _: Connection, command: Submit) -> dict[str, Any]:
        spec = job_kind(command.kind).parse(command.spec)
        environment = {name: value for name, value in command.environment.items() if name in CARRIED}
        return {"session": await self._jobs.submit(spec, command.session, command.kind, environment)}

    @answers(StartRecording)
    async def _start_recording(self, _: Connection, command: StartRecording) -> dict[str, Any]:
        of_run = self._jobs.states().get(command.name, "done") not in FINAL_STATES
        name = await self._recordings.begin(command, of_run)
        # The run may have started or ended while the session was created.
        self._recordings.runs_changed(self._jobs.states())
        return {"session": name}

    @answers(Cancel)
    def _cancel(self, _: Connection, command: Cancel) -> dict[str, Any]:
        if self._recordings.makes(command.session):
            self._recordings.stop(command.session)
        else:
            self._jobs.cancel(command.session)
        return {"session": command.session}

    @answers(Subscribe)
    async def _subscribe(self, connection: Connection, command: Subscribe) -> dict[str, Any]:
        hz, from_seq = command.hz, command.from_seq
        if hz < 0 or from_seq < 0:
            raise UsageError(f"can't follow from line {from_seq!r} at {hz!r} Hz", "give numbers of at least 0")
        following: Following | None = None
        data: dict[str, Any] = {}
        if command.session is not None:
            feed = self._jobs.feed(command.session)
            if feed is None:
                feed = await asyncio.to_thread(self._old_feed, command.session)
            reader = LineReader(feed.path, from_seq)
            following = Following(feed, from_seq, feed.next_seq, hz, reader)
            data = {"session": command.session, "live_from": feed.next_seq}
        connection.subscribe(following, command.readonly)
        return data

    def _old_feed(self, name: str) -> RunStream:
        """Return a stream with only history, for a session that is not in the queue."""
        if not self._store.exists(name):
            raise SessionError(f"there is no session {name!r}", "see `kvdeck session list`")
        path = self._store.samples_path(name)
        # Complete, so nothing follows: `live_from` is its end.
        return RunStream(name, path, count_lines(path))

    @answers(Status)
    def _status(self, _: Connection, __: Status) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "started": self._started,
            "kvdeck": self._kvdeck,
            "home": str(self._store.home),
            "runtime": str(self._config.runtime),
            "clients": len(self._connections),
            "idle_exit_s": self._config.idle_exit,
            "runs": self._jobs.infos(),
            "recordings": self._recordings.states,
        }

    @answers(StopEngine)
    def _stop_asked(self, _: Connection, command: StopEngine) -> None:
        if self._stopping.is_set():
            if command.force:
                self._hurry = True
                self._jobs.hurry()
            return
        if self._jobs.busy and not command.force:
            raise EngineError("a run is in progress", "wait for it, cancel it, or stop with force")
        if self._recordings.busy and not command.force:
            names = ", ".join(state.name for state in self._recordings.states if state.state not in FINAL_STATES)
            raise EngineError(
                f"a recording is in progress: {names}", "stop it, or stop with force; its samples are saved"
            )
        self._hurry = command.force
        self._stop("requested by a client")


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
    # The terminal of the command that started it may close; runs continue.
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
