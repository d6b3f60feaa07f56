"""The run queue: one worker at a time, in order of submission."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kvdeck.engine.children.child import Ending, Limits, Worker, last_words
from kvdeck.engine.daemon import recovery
from kvdeck.engine.daemon.stream import Feed, Line, event_data, sample_values
from kvdeck.engine.protocol import RunInfo
from kvdeck.engine.spec import RunSpec
from kvdeck.sessions.errors import EngineError, KvdeckError
from kvdeck.sessions.host.processes import identity, own_identity, signal_name
from kvdeck.sessions.model.events import COUNTER_INDEX, StateChanged
from kvdeck.sessions.model.records import FINAL_STATES, RunState, Session
from kvdeck.sessions.store.event_log import append_event, decode_event, encode_event, read_lines, truncate_torn_tail
from kvdeck.sessions.store.store import Store

KEPT_RUNS = 20
"""Number of finished runs still shown in the queue."""

log = logging.getLogger("kvdeck.engine")


@dataclass(slots=True)
class Job:
    """One run, from submission to its end."""

    session: Session
    feed: Feed
    state: RunState = "queued"
    reason: str | None = None
    pid: int | None = None
    cancel: asyncio.Event = field(default_factory=asyncio.Event)
    hurry: asyncio.Event = field(default_factory=asyncio.Event)
    """Set if the engine is stopped by force: the worker gets only `child.HURRY_SECONDS`."""
    cancel_reason: str | None = None
    paths: tuple[str, ...] = ()
    newest: Line | None = None
    last_line: bytes | None = None
    """The worker's line with the run's last state, once received."""

    @property
    def name(self) -> str:
        return self.session.name

    @property
    def over(self) -> bool:
        return self.state in FINAL_STATES

    def info(self, position: int | None) -> RunInfo:
        """Return the run's queue entry."""
        values: list[Any] = sample_values(self.newest) if self.newest is not None else []
        fraction = _value(values, "fraction")
        return RunInfo(
            session=self.name,
            state=self.state,
            created=self.session.created,
            position=position,
            pid=self.pid,
            fraction=1.0 if self.state == "done" else fraction or 0.0,
            eta_s=None if self.over else _value(values, "eta_s"),
            seq=self.feed.next_seq,
            paths=self.paths,
            reason=self.reason,
        )


def _value(values: list[Any], counter: str) -> float | None:
    index = COUNTER_INDEX[counter]
    value = values[index] if len(values) > index else None
    return value if isinstance(value, (int, float)) else None  # a damaged line may hold anything


def _paths(steps: Any) -> tuple[str, ...]:
    """Return the distinct paths of a `run_started` line's steps."""
    found = (step.get("path") for step in (steps if isinstance(steps, list) else ()) if isinstance(step, dict))
    return tuple(dict.fromkeys(path for path in found if isinstance(path, str)))


class Jobs:
    """The runs in order. Calls `changed(urgent)` after each change; `urgent` is False for mere progress."""

    def __init__(
        self, store: Store, argv: Sequence[str], limits: Limits, kvdeck: str, changed: Callable[[bool], None]
    ) -> None:
        self._store, self._argv, self._limits, self._kvdeck = store, argv, limits, kvdeck
        self._changed = changed
        self._engine = own_identity()
        self._jobs: dict[str, Job] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._more = asyncio.Event()
        self._idle = asyncio.Event()
        self._unclosed: dict[str, StateChanged] = {}
        """Last states that could not be written yet, by session name."""

    @property
    def busy(self) -> bool:
        """True if a run is queued or running."""
        return any(not job.over for job in self._jobs.values())

    def infos(self) -> tuple[RunInfo, ...]:
        """Return the running run, the queued ones in order, then the finished ones, newest first."""
        jobs = list(self._jobs.values())
        running = [job.info(None) for job in jobs if job.state == "running"]
        queued = [job.info(place) for place, job in enumerate((j for j in jobs if j.state == "queued"), 1)]
        return (*running, *queued, *(job.info(None) for job in reversed(jobs) if job.over))

    def feed(self, name: str) -> Feed | None:
        """Return the stream of a run in this engine's queue; None if there is no such run."""
        job = self._jobs.get(name)
        return None if job is None else job.feed

    def adopt(self, session: Session, lines: int) -> None:
        """Add a run that recovery set to interrupted; `lines` is the length of its samples.jsonl."""
        job = Job(session, Feed(session.name, self._store.samples_path(session.name), lines), session.state)
        job.reason = session.reason
        job.paths = tuple(dict.fromkeys(result.path for result in session.results))
        self._jobs[session.name] = job

    async def submit(self, spec: RunSpec, name: str | None) -> str:
        """Queue a run.

        Returns:
            The session's name.

        Raises:
            UsageError: The name is invalid or taken.
            SessionError: The session can't be written.
        """
        session = await asyncio.to_thread(self._create, spec, name)
        job = Job(session, Feed(session.name, self._store.samples_path(session.name)), paths=spec.paths or ())
        self._jobs[job.name] = job
        self._more.set()
        self._changed(True)
        return job.name

    def _create(self, spec: RunSpec, name: str | None) -> Session:
        label = spec.paths[0] if spec.paths is not None and len(spec.paths) == 1 else "run"
        session = self._store.create(name, spec.to_mapping(), spec.to_yaml(), label=label, kvdeck=self._kvdeck)
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
        job = self._jobs.get(name)
        if job is None:
            raise EngineError(f"no run {name!r} is queued or running", "see `kvdeck engine status`")
        if job.over:
            raise EngineError(f"run {name!r} is already {job.state}", "nothing to cancel")
        job.cancel_reason = reason
        job.cancel.set()
        if job.state == "queued":
            self._set_state(job, "cancelled", reason)
            self._spawn(self._guarded(job, self._finish(job, StateChanged(*_now(), "cancelled", reason))))

    def cancel_all(self, reason: str, hurry: bool = False) -> None:
        """Cancel all runs.

        Args:
            hurry: Kill a worker that does not end within `child.HURRY_SECONDS`.
        """
        for job in list(self._jobs.values()):
            if not job.over:
                self.cancel(job.name, reason)
                if hurry:
                    job.hurry.set()

    def hurry(self) -> None:
        """Shorten the time for workers to end to `child.HURRY_SECONDS`."""
        for job in self._jobs.values():
            job.hurry.set()

    async def settle(self) -> None:
        """Wait until all runs are over and written."""
        while self.busy or self._tasks:
            self._idle.clear()
            await self._idle.wait()
        await self._close_left()

    async def interrupt(self, reason: str) -> None:
        """Set all unfinished runs to `interrupted`, after the queue's own task failed."""
        for job in [job for job in self._jobs.values() if not job.over]:
            await self._fail(job, StateChanged(*_now(), "interrupted", reason))

    async def work(self) -> None:
        """Execute queued runs, one after the other; never returns."""
        while True:
            await self._more.wait()
            self._more.clear()
            while (job := self._next()) is not None:
                await self._guarded(job, self._run(job))
                await self._close_left()
                self._forget_old()
                self._idle.set()

    def _next(self) -> Job | None:
        return next((job for job in self._jobs.values() if job.state == "queued"), None)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        def done(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            self._idle.set()

        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(done)

    async def _guarded(self, job: Job, work: Coroutine[Any, Any, None]) -> None:
        """Await `work`; an error fails the run, not the queue."""
        try:
            await work
        except Exception as error:
            expected = isinstance(error, (KvdeckError, OSError))
            log.error("%s: %s", job.name, error, exc_info=None if expected else error)
            reason = str(error) if expected else f"unexpected {type(error).__name__}: {error}"
            await self._fail(job, StateChanged(*_now(), "failed", reason))

    async def _fail(self, job: Job, verdict: StateChanged) -> None:
        """End a run whose normal end failed; write its last state, now or once that is possible."""
        job.pid = None
        if job.over:
            self._unclosed[job.name] = StateChanged(*_now(), job.state, job.reason)
            return
        try:
            await self._finish(job, verdict)
        except Exception as error:
            log.error("%s: %s", job.name, error, exc_info=None if isinstance(error, OSError) else error)
            self._unclosed[job.name] = verdict
            await self._close_left()
            self._set_state(job, verdict.state, verdict.reason)
            job.feed.push([encode_event(verdict).rstrip(b"\n")])

    async def _close_left(self) -> None:
        """Write the last states that could not be written earlier, for example because the disk was full."""
        for name, verdict in list(self._unclosed.items()):
            try:
                await asyncio.to_thread(self._close_with, name, verdict)
            except Exception as error:
                log.warning("%s: its last state can't be written yet: %s", name, error)
            else:
                del self._unclosed[name]

    def _close_with(self, name: str, verdict: StateChanged) -> None:
        session = self._store.rebuild(name)
        if session.state not in FINAL_STATES:
            append_event(self._store.samples_path(name), verdict)
        self._close(name)

    async def _run(self, job: Job) -> None:
        folder = self._store.folder(job.name)
        self._set_state(job, "running", None)
        running = dataclasses.replace(job.session, state="running", started=time.time())
        await asyncio.to_thread(self._store.write, running)
        try:
            worker = Worker(self._argv, folder)
        except OSError as error:
            await self._finish(job, StateChanged(*_now(), "failed", f"the worker can't be started: {error}"))
            return
        job.pid = worker.pid
        log.info("%s: worker %d", job.name, worker.pid)
        self._changed(True)
        await asyncio.to_thread(self._note_owner, job.name, worker.pid)
        ending = await worker.run(lambda lines: self._take(job, worker, lines), job.cancel, self._limits, job.hurry)
        job.pid = None
        log.info("%s: worker %d ended with %d", job.name, worker.pid, ending.returncode)
        await self._finish(job, _verdict(job, ending, last_words(self._store.log_path(job.name))))

    def _take(self, job: Job, worker: Worker | None, lines: list[bytes]) -> None:
        """Stream lines up to the run's last one; `_finish` streams that one after the files are complete."""
        end = next((place for place, raw in enumerate(lines) if _is_last(raw)), None)
        if end is not None and worker is not None:
            worker.ending.set()
        if job.last_line is None:
            self._pass_on(job, lines[:end])
            job.last_line = None if end is None else lines[end]

    def _pass_on(self, job: Job, lines: list[bytes]) -> None:
        urgent = False
        for line in job.feed.push(lines):
            if line.is_sample:
                job.newest = line
            elif (event := event_data(line)).get("kind") == "run_started":
                job.paths = _paths(event.get("steps"))
                urgent = True
        self._changed(urgent)

    async def _finish(self, job: Job, verdict: StateChanged) -> None:
        """Complete a run's files and set its state; `verdict` is its last line if the worker wrote none."""
        path = self._store.samples_path(job.name)
        # A killed worker may have written lines to the file that never arrived through the pipe.
        lines = await asyncio.to_thread(_unseen, path, job.feed.next_seq)
        end = next((place for place, raw in enumerate(lines) if _is_last(raw)), len(lines))
        self._pass_on(job, lines[:end])
        # Remove test files first: on a full disk that makes room for the last line.
        for note in await asyncio.to_thread(recovery.remove_scratch, self._store.folder(job.name)):
            log.info("%s: %s", job.name, note)
        said = None if job.last_line is None else decode_event(job.last_line)
        if isinstance(said, StateChanged):
            verdict = said  # it arrived through the pipe, but may be missing in the file (full disk)
        last = lines[end:] or [(await asyncio.to_thread(append_event, path, verdict)).rstrip(b"\n")]
        try:
            job.session = await asyncio.to_thread(self._close, job.name)
        except (KvdeckError, OSError) as error:
            # samples.jsonl is authoritative: session.json is rebuilt from it once it can be written.
            log.error("%s: %s", job.name, error)
            self._unclosed[job.name] = verdict
        ended = decode_event(last[0])
        assert isinstance(ended, StateChanged)
        self._set_state(job, ended.state, ended.reason)
        job.feed.push(last)

    def _close(self, name: str) -> Session:
        session = self._store.rebuild(name)
        self._store.write(session)
        recovery.remove_owner(self._store, name)
        return session

    def _set_state(self, job: Job, state: RunState, reason: str | None) -> None:
        job.state, job.reason = state, reason
        self._changed(True)

    def _forget_old(self) -> None:
        over = [name for name, job in self._jobs.items() if job.over]
        for name in over[:-KEPT_RUNS]:
            del self._jobs[name]


def _now() -> tuple[int, float]:
    return time.monotonic_ns(), time.time()


def _is_last(raw: bytes) -> bool:
    """True if the line holds a final state."""
    if not raw.startswith(b'{"kind":"state"'):
        return False
    event = decode_event(raw)
    return isinstance(event, StateChanged) and event.state in FINAL_STATES


def _unseen(path: Path, from_seq: int) -> list[bytes]:
    truncate_torn_tail(path)
    return [line for _, line in read_lines(path, from_seq)]


def _verdict(job: Job, ending: Ending, words: tuple[str, ...]) -> StateChanged:
    """Return the last state of a run whose worker ended without writing one."""
    died_of = signal_name(-ending.returncode) if ending.returncode < 0 else None
    if job.cancel.is_set():
        reason = job.cancel_reason
        if ending.killed:
            reason = "it did not react to SIGTERM and was killed"
        elif died_of not in (None, "SIGTERM"):
            reason = f"it died of {died_of} while stopping"
        return StateChanged(*_now(), "cancelled", reason, died_of, words)
    if died_of is None:
        reason = f"the worker exited with status {ending.returncode} before it finished"
    elif died_of == "SIGKILL":
        reason = "the worker was killed (SIGKILL) by a user, or by the kernel because memory ran out"
    else:
        reason = f"the worker died of {died_of}"
    return StateChanged(*_now(), "crashed", reason, died_of, words)
