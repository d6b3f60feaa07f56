"""The run queue as a state machine without I/O: one worker at a time, in order of submission.

`RunQueue.handle` takes an event, something that happened, and returns instructions, what is to be done now. It knows no
process, file or clock, so any order of events can be tried without them; `run_executor` executes the instructions and
reports each outcome as an event. Events that don't fit a run's phase, such as a late one, change nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from kvdeck.sessions.host.processes import signal_name
from kvdeck.sessions.model.records import FINAL_STATES, RunState

KEPT_RUNS = 20
"""Number of finished runs still shown in the queue."""

Phase = Literal["queued", "starting", "working", "closing", "over"]
"""`closing`: its files are being completed. The worker, if there was one, has ended."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A run's last state, decided by the queue if the worker wrote none."""

    state: RunState
    reason: str | None = None
    signal: str | None = None
    """Name of the signal that ended the worker."""
    last_words: tuple[str, ...] = ()
    """Last lines of the worker's log."""


# --- events ---


@dataclass(frozen=True, slots=True)
class Submitted:
    """The run's session was created; it waits for its turn."""

    name: str


@dataclass(frozen=True, slots=True)
class Adopted:
    """A run of a dead engine, which recovery has ended."""

    name: str
    state: RunState
    reason: str | None


@dataclass(frozen=True, slots=True)
class WorkerStarted:
    """The run's worker process runs."""

    name: str
    pid: int


@dataclass(frozen=True, slots=True)
class WorkerNotStarted:
    """The worker's process can't be started."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class LastLine:
    """The worker has written the run's last state; it ends by itself now."""

    name: str


@dataclass(frozen=True, slots=True)
class WorkerEnded:
    """The worker and its ranks have ended."""

    name: str
    status: int
    """Exit status; minus the signal's number if a signal ended it."""
    killed: bool
    """True if the engine killed it, because it did not end in time."""
    last_words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WorkerFailed:
    """An error in running the worker or in reading its lines; no process of it is left."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class FilesCompleted:
    """The run's event log holds its last state."""

    name: str
    state: RunState
    reason: str | None
    closed: bool = True
    """False if session.json can't be written yet; it is rebuilt from the event log once it can."""


@dataclass(frozen=True, slots=True)
class FilesFailed:
    """The run's files can't be completed, for example because the disk is full."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class LeftWritten:
    """A last state that could not be written earlier is written now."""

    name: str


@dataclass(frozen=True, slots=True)
class LeftFailed:
    """A last state that could not be written earlier still can't be."""

    name: str


@dataclass(frozen=True, slots=True)
class CancelRun:
    """A client cancels a run."""

    name: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Hurry:
    """Workers have less time to end from now on."""


@dataclass(frozen=True, slots=True)
class StopQueue:
    """The engine ends: cancel every run, and start none."""

    reason: str
    hurry: bool = False


@dataclass(frozen=True, slots=True)
class Settled:
    """All runs are over, and the engine is about to end: the last chance to write what is left."""


Event = (
    Submitted
    | Adopted
    | WorkerStarted
    | WorkerNotStarted
    | LastLine
    | WorkerEnded
    | WorkerFailed
    | FilesCompleted
    | FilesFailed
    | LeftWritten
    | LeftFailed
    | CancelRun
    | Hurry
    | StopQueue
    | Settled
)


# --- instructions ---


@dataclass(frozen=True, slots=True)
class StartWorker:
    """Mark the session as running and start its worker; answered by `WorkerStarted`, `…NotStarted` or `…Failed`."""

    name: str


@dataclass(frozen=True, slots=True)
class StopWorker:
    """Request the worker to end, and kill it after its time limit; answered by `WorkerEnded` or `WorkerFailed`."""

    name: str


@dataclass(frozen=True, slots=True)
class HurryWorker:
    """Shorten the time that the worker has to end."""

    name: str


@dataclass(frozen=True, slots=True)
class LetWorkerEnd:
    """Give the worker time to end by itself after its last line."""

    name: str


@dataclass(frozen=True, slots=True)
class CompleteFiles:
    """Read what the worker wrote, remove its test files, write the last state; answered by `Files…`.

    The verdict counts if the worker wrote no last state itself.
    """

    name: str
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class ShowVerdict:
    """Send clients a last state that is in no file yet."""

    name: str
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class WriteLeft:
    """Try again to write a last state; answered by `LeftWritten` or `LeftFailed`."""

    name: str
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Forget:
    """Drop a finished run from the queue; its session stays."""

    name: str


@dataclass(frozen=True, slots=True)
class TellClients:
    """The queue that clients see has changed."""


Instruction = (
    StartWorker
    | StopWorker
    | HurryWorker
    | LetWorkerEnd
    | CompleteFiles
    | ShowVerdict
    | WriteLeft
    | Forget
    | TellClients
)


# --- the machine ---


@dataclass(slots=True)
class Run:
    """One run, from submission to its end."""

    name: str
    phase: Phase = "queued"
    state: RunState = "queued"
    """What clients see; `cancelled` at once for a queued run, though its files are still to be completed."""
    reason: str | None = None
    pid: int | None = None
    """The worker's, while it runs."""
    cancelled: bool = False
    cancel_reason: str | None = None
    gives_up: bool = False
    """True if completing its files failed before, and once more is enough."""

    @property
    def over(self) -> bool:
        return self.state in FINAL_STATES


class RunQueue:
    """The runs in order of submission; `active` is the only one that may have a worker."""

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.active: Run | None = None
        self.unclosed: dict[str, Verdict] = {}
        """Last states that could not be written yet, by session name."""
        self._writing: set[str] = set()
        """Names in `unclosed` of which an attempt to write is on its way."""
        self._stop: StopQueue | None = None
        self._handlers: dict[type, Callable[[Any], list[Instruction]]] = {
            Submitted: self._submitted,
            Adopted: self._adopted,
            WorkerStarted: self._worker_started,
            WorkerNotStarted: self._worker_not_started,
            LastLine: self._last_line,
            WorkerEnded: self._worker_ended,
            WorkerFailed: self._worker_failed,
            FilesCompleted: self._files_completed,
            FilesFailed: self._files_failed,
            LeftWritten: self._left_written,
            LeftFailed: self._left_failed,
            CancelRun: self._cancel,
            Hurry: self._hurry,
            StopQueue: self._stopped,
            Settled: self._settled,
        }

    @property
    def busy(self) -> bool:
        """True if a run is queued or running."""
        return any(not run.over for run in self.runs.values())

    @property
    def settled(self) -> bool:
        """True if no run is queued or running, and no answer to an instruction is due."""
        return not self._writing and all(run.phase == "over" for run in self.runs.values())

    def ordered(self) -> list[Run]:
        """Return the running run, the queued ones in order, then the finished ones, newest first."""
        runs = list(self.runs.values())
        shown = [run for state in ("running", "queued") for run in runs if run.state == state]
        return [*shown, *(run for run in reversed(runs) if run.over)]

    def handle(self, event: Event) -> list[Instruction]:
        """Return what is to be done after an event, in order."""
        return self._handlers[type(event)](event)

    # --- from submission to the worker's end ---

    def _submitted(self, event: Submitted) -> list[Instruction]:
        known = self.runs.get(event.name)
        if known is not None and known.phase != "over":
            return []
        self.runs.pop(event.name, None)  # its session was deleted, and the name is free again
        self.unclosed.pop(event.name, None)
        run = self.runs[event.name] = Run(event.name)
        if self._stop is not None:
            return self._cancel_run(run, self._stop.reason)
        return [TellClients(), *self._start_next()]

    def _adopted(self, event: Adopted) -> list[Instruction]:
        if event.name in self.runs or event.state not in FINAL_STATES:
            return []
        self.runs[event.name] = Run(event.name, "over", event.state, event.reason)
        return []

    def _start_next(self) -> list[Instruction]:
        if self.active is not None or self._stop is not None:
            return []
        run = next((run for run in self.runs.values() if run.phase == "queued"), None)
        if run is None:
            return []
        self.active = run
        run.phase, run.state, run.reason = "starting", "running", None
        return [TellClients(), StartWorker(run.name)]

    def _worker_started(self, event: WorkerStarted) -> list[Instruction]:
        run = self._in(event.name, "starting")
        if run is None:
            return []
        run.phase, run.pid = "working", event.pid
        return [TellClients()]

    def _last_line(self, event: LastLine) -> list[Instruction]:
        run = self._in(event.name, "working")
        return [] if run is None else [LetWorkerEnd(run.name)]

    def _worker_not_started(self, event: WorkerNotStarted) -> list[Instruction]:
        run = self._in(event.name, "starting")
        verdict = Verdict("failed", f"the worker can't be started: {event.reason}")
        return [] if run is None else self._complete(run, verdict)

    def _worker_ended(self, event: WorkerEnded) -> list[Instruction]:
        run = self._in(event.name, "working")
        return [] if run is None else self._complete(run, _verdict(run, event))

    def _worker_failed(self, event: WorkerFailed) -> list[Instruction]:
        run = self._in(event.name, "starting", "working")
        if run is None:
            return []
        run.gives_up = True
        return self._complete(run, Verdict("failed", event.reason))

    # --- cancellation ---

    def _cancel(self, event: CancelRun) -> list[Instruction]:
        run = self.runs.get(event.name)
        return [] if run is None or run.over else self._cancel_run(run, event.reason)

    def _cancel_run(self, run: Run, reason: str | None) -> list[Instruction]:
        run.cancelled, run.cancel_reason = True, reason
        if run.phase == "queued":
            # Clients see it now: completing the files of a run on a dead disk can take minutes.
            run.state, run.reason = "cancelled", reason
            return [TellClients(), *self._complete(run, Verdict("cancelled", reason))]
        return [StopWorker(run.name)] if run.phase in ("starting", "working") else []

    def _hurry(self, _event: Hurry | StopQueue) -> list[Instruction]:
        run = self.active
        return [] if run is None or run.phase == "closing" else [HurryWorker(run.name)]

    def _stopped(self, event: StopQueue) -> list[Instruction]:
        self._stop = event
        stops = [one for run in self.runs.values() if not run.over for one in self._cancel_run(run, event.reason)]
        return stops + (self._hurry(event) if event.hurry else [])

    def _settled(self, _event: Settled) -> list[Instruction]:
        return self._write_left()

    # --- the end of a run ---

    def _complete(self, run: Run, verdict: Verdict) -> list[Instruction]:
        run.phase, run.pid = "closing", None
        return [CompleteFiles(run.name, verdict)]

    def _files_completed(self, event: FilesCompleted) -> list[Instruction]:
        run = self._in(event.name, "closing")
        if run is None:
            return []
        verdict = Verdict(run.state, run.reason) if run.over else Verdict(event.state, event.reason)
        if not event.closed:
            self.unclosed[run.name] = verdict
        return self._end(run, verdict)

    def _files_failed(self, event: FilesFailed) -> list[Instruction]:
        run = self._in(event.name, "closing")
        if run is None:
            return []
        if run.over:  # a queued run that was cancelled
            self.unclosed[run.name] = Verdict(run.state, run.reason)
            return self._end(run, Verdict(run.state, run.reason))
        verdict = Verdict("failed", event.reason)
        if not run.gives_up:
            run.gives_up = True
            return self._complete(run, verdict)
        self.unclosed[run.name] = verdict
        return [*self._end(run, verdict), ShowVerdict(run.name, verdict)]

    def _end(self, run: Run, verdict: Verdict) -> list[Instruction]:
        run.phase, run.state, run.reason = "over", verdict.state, verdict.reason
        if self.active is not run:
            return [TellClients()]
        self.active = None
        # With each end: the run that ended may have freed the disk space that the writes lacked.
        return [TellClients(), *self._write_left(), *self._forget_old(), *self._start_next()]

    def _forget_old(self) -> list[Instruction]:
        over = [run.name for run in self.runs.values() if run.phase == "over"][:-KEPT_RUNS]
        for name in over:
            del self.runs[name]
        return [Forget(name) for name in over]

    def _write_left(self) -> list[Instruction]:
        due = [name for name in self.unclosed if name not in self._writing]
        self._writing.update(due)
        return [WriteLeft(name, self.unclosed[name]) for name in due]

    def _left_written(self, event: LeftWritten) -> list[Instruction]:
        if event.name in self._writing:
            self._writing.discard(event.name)
            self.unclosed.pop(event.name, None)
        return []

    def _left_failed(self, event: LeftFailed) -> list[Instruction]:
        self._writing.discard(event.name)
        return []

    def _in(self, name: str, *phases: Phase) -> Run | None:
        run = self.runs.get(name)
        return run if run is not None and run.phase in phases else None


def _verdict(run: Run, ended: WorkerEnded) -> Verdict:
    """Return the last state of a run whose worker ended without writing one."""
    died_of = signal_name(-ended.status) if ended.status < 0 else None
    if run.cancelled:
        reason = run.cancel_reason
        if ended.killed:
            reason = "it did not react to SIGTERM and was killed"
        elif died_of not in (None, "SIGTERM"):
            reason = f"it died of {died_of} while stopping"
        return Verdict("cancelled", reason, died_of, ended.last_words)
    if died_of is None:
        reason = f"the worker exited with status {ended.status} before it finished"
    elif died_of == "SIGKILL":
        reason = "the worker was killed (SIGKILL) by a user, or by the kernel because memory ran out"
    else:
        reason = f"the worker died of {died_of}"
    return Verdict("crashed", reason, died_of, ended.last_words)
