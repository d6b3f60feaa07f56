"""Executor of the run queue: worker processes, session files and streams. `RunQueue` decides what it does."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from kvdeck.engine.children.pipes import started
from kvdeck.engine.children.worker_process import Limits, Worker, last_words
from kvdeck.engine.daemon import recovery, run_queue
from kvdeck.engine.daemon.job_kinds import JobSpec, job_kind
from kvdeck.engine.daemon.run_queue import Run, RunQueue, Verdict
from kvdeck.engine.daemon.stream import RunStream
from kvdeck.engine.protocol import TRANSFER, RunInfo
from kvdeck.engine.tasks import TaskGroup, failure_of, start_part
from kvdeck.sessions.errors import EngineError, KvdeckError
from kvdeck.sessions.host.processes import identity, own_identity
from kvdeck.sessions.model.encoding import encode_line
from kvdeck.sessions.model.events import StateChanged, decode_event
from kvdeck.sessions.model.records import FINAL_STATES, RunState, Session
from kvdeck.sessions.store.event_log import append_event, read_lines, truncate_torn_tail
from kvdeck.sessions.store.store import Store

log = logging.getLogger("kvdeck.engine")


@dataclass(slots=True)
class RunFiles:
    """What the executor holds of a run: its session, stream and newest counters, and the orders for its worker."""

    session: Session
    stream: RunStream
    paths: tuple[str, ...] = ()
    """Paths that were requested, until the run plans its steps."""
    kind: str = TRANSFER
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables for the worker."""
    last_line: bytes | None = None
    """The worker's line with the run's last state, once received; clients get it when the files are complete."""
    worker: Worker | None = None
    cancel: asyncio.Event = field(default_factory=asyncio.Event)
    hurry: asyncio.Event = field(default_factory=asyncio.Event)

    def info(self, run: Run, position: int | None) -> RunInfo:
        """Return the run's queue entry."""
        folded = self.stream.run
        return RunInfo(
            session=run.name,
            state=run.state,
            created=self.session.created,
            position=position,
            pid=run.pid,
            fraction=1.0 if run.state == "done" else folded.fraction,
            eta_s=None if run.over else folded.eta_s,
            seq=self.stream.next_seq,
            paths=folded.paths or self.paths,
            reason=run.reason,
            kind=self.kind,
        )


@dataclass(frozen=True, slots=True)
class Completed:
    """A run's complete files: the lines that clients haven't got yet, and the last state."""

    unseen: list[bytes]
    last: list[bytes]
    ended: StateChanged
    session: Session | None
    """None if session.json can't be written yet."""


class RunExecutor:
    """Executes the run queue. Calls `changed(urgent)` after each change; `urgent` is False for mere progress.

    Its tasks belong to the group that `start` gets: an error that is no run's own ends that group.
    """

    def __init__(
        self, store: Store, argv: Sequence[str], limits: Limits, kvdeck: str, changed: Callable[[bool], None]
    ) -> None:
        self._store, self._argv, self._limits, self._kvdeck = store, argv, limits, kvdeck
        self._changed = changed
        self._engine = own_identity()
        self._queue = RunQueue()
        self._files: dict[str, RunFiles] = {}
        self._group: TaskGroup | None = None
        self._creating = 0
        self._event_came = asyncio.Event()
        self._writing = threading.Lock()
        """Held while a run's files are completed, in a thread: a task that is cancelled leaves its thread behind."""
        self._orders: dict[type, Callable[[Any], None]] = {
            run_queue.StartWorker: lambda order: self._spawn(self._work(order.name)),
            run_queue.StopWorker: lambda order: self._files[order.name].cancel.set(),
            run_queue.HurryWorker: lambda order: self._files[order.name].hurry.set(),
            run_queue.LetWorkerEnd: self._let_end,
            run_queue.CompleteFiles: lambda order: self._spawn(self._complete(order.name, order.verdict)),
            run_queue.ShowVerdict: self._show_verdict,
            run_queue.WriteLeft: lambda order: self._spawn(self._write_left(order.name, order.verdict)),
            run_queue.Forget: lambda order: self._forget(order.name),
            run_queue.TellClients: lambda _: self._changed(True),
        }

    def start(self, group: TaskGroup) -> None:
        """Start executing; tasks belong to `group`."""
        self._group = group

    @property
    def busy(self) -> bool:
        """True if a run is queued or running."""
        return self._queue.busy

    def infos(self) -> tuple[RunInfo, ...]:
        """Return the running run, the queued ones in order, then the finished ones, newest first."""
        runs = self._queue.ordered()
        queued = [run.name for run in runs if run.state == "queued"]
        places = {name: place for place, name in enumerate(queued, 1)}
        return tuple(self._files[run.name].info(run, places.get(run.name)) for run in runs)

    def states(self) -> dict[str, RunState]:
        """Return each run's state, by its session's name."""
        return {name: run.state for name, run in self._queue.runs.items()}

    def feed(self, name: str) -> RunStream | None:
        """Return the stream of a run in this engine's queue; None if there is no such run."""
        files = self._files.get(name)
        return None if files is None else files.stream

    # --- commands ---

    def adopt(self, session: Session, lines: int) -> None:
        """Add a run that recovery set to interrupted; `lines` is the length of its samples.jsonl."""
        stream = RunStream(session.name, self._store.samples_path(session.name), lines)
        paths = tuple(dict.fromkeys(result.path for result in session.results))
        self._files[session.name] = RunFiles(session, stream, paths, str(session.spec.get("job", TRANSFER)))
        self._handle(run_queue.Adopted(session.name, session.state, session.reason))

    async def submit(
        self, spec: JobSpec, name: str | None, kind: str = TRANSFER, environment: Mapping[str, str] | None = None
    ) -> str:
        """Queue a job; `environment` are variables for its worker, which aren't stored.

        Returns:
            The session's name.

        Raises:
            UsageError: The name is invalid or taken.
            SessionError: The session can't be written.
        """
        # A session that is being created is in no queue yet; `settle` waits for it.
        self._creating += 1
        try:
            session = await asyncio.to_thread(self._create, spec, name, kind)
        finally:
            self._creating -= 1
            self._event_came.set()
        stream = RunStream(session.name, self._store.samples_path(session.name))
        self._files[session.name] = RunFiles(session, stream, spec.paths or (), kind, environment or {})
        self._handle(run_queue.Submitted(session.name))
        return session.name

    def _create(self, spec: JobSpec, name: str | None, kind: str) -> Session:
        mapping = spec.to_mapping() if kind == TRANSFER else {"job": kind, **spec.to_mapping()}
        session = self._store.create(
            name, mapping, spec.to_yaml(), label=spec.label, kvdeck=self._kvdeck, kind=job_kind(kind).session
        )
        self._note_owner(session.name, None)
        return session

    def _note_owner(self, name: str, worker_pid: int | None) -> None:
        worker = None if worker_pid is None else identity(worker_pid)
        try:
            recovery.write_owner(self._store, name, recovery.Owner(self._engine, worker))
        except OSError as error:
            log.error("%s: can't store the run's owner: %s", name, error)

    def cancel(self, name: str, reason: str | None = None) -> None:
        """Cancel a queued or running run; results so far are saved.

        Raises:
            EngineError: There is no such run, or it is over.
        """
        run = self._queue.runs.get(name)
        if run is None:
            raise EngineError(f"no run {name!r} is queued or running", "see `kvdeck engine status`")
        if run.over:
            raise EngineError(f"run {name!r} is already {run.state}", "nothing to cancel")
        self._handle(run_queue.CancelRun(name, reason))

    def stop(self, reason: str, hurry: bool = False) -> None:
        """Cancel all runs and start none; with `hurry`, kill a worker that does not end within `HURRY_SECONDS`."""
        self._handle(run_queue.StopQueue(reason, hurry))

    def hurry(self) -> None:
        """Shorten the time for workers to end to `HURRY_SECONDS`."""
        self._handle(run_queue.Hurry())

    async def settle(self) -> None:
        """Wait until all runs are over and written, as far as the disk has room."""
        await self._until_settled()
        self._handle(run_queue.Settled())
        await self._until_settled()

    async def _until_settled(self) -> None:
        while self._creating or not self._queue.settled:
            self._event_came.clear()
            await self._event_came.wait()

    async def interrupt(self, reason: str) -> None:
        """Set all unfinished runs to `interrupted`, after a part of the engine failed and its tasks were cancelled.

        It doesn't ask the queue, which may be what failed. The workers ended with their tasks.
        """
        for name, run in list(self._queue.runs.items()):
            if run.phase == "over":
                continue
            verdict = Verdict(run.state, run.reason) if run.over else Verdict("interrupted", reason)
            try:
                completed = await asyncio.to_thread(self._complete_files, name, verdict)
            except Exception as error:
                log.error("%s: its last state can't be written: %s", name, error)
                continue
            run.phase, run.state, run.reason, run.pid = "over", completed.ended.state, completed.ended.reason, None
            self._changed(True)
            self._files[name].stream.push(completed.unseen + completed.last)

    # --- events and instructions ---

    def _handle(self, event: run_queue.Event) -> None:
        """Pass an event to the queue, and do what it says; an error of either is the end of the engine."""
        try:
            for order in self._queue.handle(event):
                self._orders[type(order)](order)
        except Exception as error:
            if self._group is not None:
                start_part(self._group, "queue", _raise(error))
            raise failure_of("queue", error) from error
        self._event_came.set()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        assert self._group is not None
        start_part(self._group, "queue", work)

    async def _work(self, name: str) -> None:
        """Start a run's worker, and pass its lines on until it has ended."""
        ended: run_queue.Event
        try:
            ended = await self._run_worker(name)
        except Exception as error:
            ended = run_queue.WorkerFailed(name, _reason(name, error))
        self._files[name].worker = None
        self._handle(ended)

    async def _run_worker(self, name: str) -> run_queue.WorkerEnded | run_queue.WorkerNotStarted:
        files = self._files[name]
        running = replace(files.session, state="running", started=time.time())
        await asyncio.to_thread(self._store.write, running)
        own = self._argv if files.kind == TRANSFER else ()
        try:
            worker_log = await asyncio.to_thread(self._store.log_path(name).open, "ab", 0)
            command, folder = own or job_kind(files.kind).command, self._store.folder(name)
            worker = await started(lambda: Worker(command, folder, worker_log, files.environment))
            files.worker = worker
        except OSError as error:
            return run_queue.WorkerNotStarted(name, str(error))
        log.info("%s: worker %d", name, worker.pid)
        try:
            self._handle(run_queue.WorkerStarted(name, worker.pid))
            await asyncio.to_thread(self._note_owner, name, worker.pid)
            ending = await worker.run(lambda lines: self._take(name, lines), files.cancel, self._limits, files.hurry)
        finally:
            worker.abandon()
        log.info("%s: worker %d ended with %d", name, worker.pid, ending.status)
        words = await asyncio.to_thread(last_words, self._store.log_path(name))
        return run_queue.WorkerEnded(name, ending.status, ending.killed, words)

    def _take(self, name: str, lines: list[bytes]) -> None:
        """Stream lines up to the run's last one, which clients get after the files are complete."""
        files = self._files[name]
        if files.last_line is not None:
            return
        end = next((place for place, raw in enumerate(lines) if _is_last(raw)), None)
        self._pass_on(files, lines[:end])
        if end is not None:
            files.last_line = lines[end]
            self._handle(run_queue.LastLine(name))

    def _let_end(self, order: run_queue.LetWorkerEnd) -> None:
        worker = self._files[order.name].worker
        if worker is not None:
            worker.ending.set()

    def _pass_on(self, files: RunFiles, lines: list[bytes]) -> None:
        files.stream.push(lines)
        self._changed(any(raw.startswith(b'{"kind":"run_started"') for raw in lines))

    def _show_verdict(self, order: run_queue.ShowVerdict) -> None:
        self._files[order.name].stream.push([encode_line(_stamped(order.verdict)).rstrip(b"\n")])

    def _forget(self, name: str) -> None:
        if name not in self._queue.runs:
            del self._files[name]

    # --- files ---

    async def _complete(self, name: str, verdict: Verdict) -> None:
        files = self._files[name]
        try:
            completed = await asyncio.to_thread(self._complete_files, name, verdict)
            self._pass_on(files, completed.unseen)
        except Exception as error:
            self._handle(run_queue.FilesFailed(name, _reason(name, error)))
            return
        files.session = completed.session or files.session
        ended = completed.ended
        self._handle(run_queue.FilesCompleted(name, ended.state, ended.reason, completed.session is not None))
        files.stream.push(completed.last)

    def _complete_files(self, name: str, verdict: Verdict) -> Completed:
        """Write a run's last state: the one in its file, else the worker's line, else the verdict. Blocks.

        Raises:
            OSError: The event log can't be written.
        """
        files = self._files[name]
        path = self._store.samples_path(name)
        with self._writing:
            # A killed worker may have written lines to the file that never arrived through the pipe.
            truncate_torn_tail(path)
            lines = [line for _, line in read_lines(path, files.stream.next_seq)]
            end = next((place for place, raw in enumerate(lines) if _is_last(raw)), len(lines))
            # Remove test files first: on a full disk that makes room for the last line.
            for note in recovery.remove_scratch(self._store.folder(name)):
                log.info("%s: %s", name, note)
            last = lines[end:] or [self._append_last(name, verdict)]
            try:
                session = self._close(name)
            except (KvdeckError, OSError) as error:
                # samples.jsonl is authoritative: session.json is rebuilt from it once it can be written.
                log.error("%s: %s", name, error)
                session = None
        ended = decode_event(last[0])
        assert isinstance(ended, StateChanged)
        return Completed(lines[:end], last, ended, session)

    def _append_last(self, name: str, verdict: Verdict) -> bytes:
        """Append the run's last state: the worker's, which a full disk may have kept from the file, or the verdict."""
        said = self._files[name].last_line
        by_worker = None if said is None else decode_event(said)
        event = by_worker if isinstance(by_worker, StateChanged) else _stamped(verdict)
        return append_event(self._store.samples_path(name), event).rstrip(b"\n")

    def _close(self, name: str) -> Session:
        session = self._store.rebuild(name)
        self._store.write(session)
        recovery.remove_owner(self._store, name)
        return session

    async def _write_left(self, name: str, verdict: Verdict) -> None:
        """Write a last state that could not be written earlier, for example because the disk was full."""
        try:
            await asyncio.to_thread(self._close_with, name, verdict)
        except Exception as error:
            log.warning("%s: its last state can't be written yet: %s", name, error)
            self._handle(run_queue.LeftFailed(name))
        else:
            self._handle(run_queue.LeftWritten(name))

    def _close_with(self, name: str, verdict: Verdict) -> None:
        with self._writing:
            if self._store.rebuild(name).state not in FINAL_STATES:
                append_event(self._store.samples_path(name), _stamped(verdict))
            self._close(name)


async def _raise(error: Exception) -> None:
    raise error


def _reason(name: str, error: Exception) -> str:
    """Log what fails a run, and return it as the run's reason."""
    expected = isinstance(error, (KvdeckError, OSError))
    log.error("%s: %s", name, error, exc_info=None if expected else error)
    return str(error) if expected else f"unexpected {type(error).__name__}: {error}"


def _stamped(verdict: Verdict) -> StateChanged:
    """Return the verdict as an event of this moment."""
    return StateChanged(
        time.monotonic_ns(), time.time(), verdict.state, verdict.reason, verdict.signal, verdict.last_words
    )


def _is_last(raw: bytes) -> bool:
    """True if the line holds a final state."""
    if not raw.startswith(b'{"kind":"state"'):
        return False
    event = decode_event(raw)
    return isinstance(event, StateChanged) and event.state in FINAL_STATES
