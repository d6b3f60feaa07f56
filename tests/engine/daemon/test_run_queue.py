"""The run queue's decisions, by events alone: no process, no file, no clock."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kvdeck.engine.daemon.run_queue import (
    KEPT_RUNS,
    Adopted,
    CancelRun,
    CompleteFiles,
    Event,
    FilesCompleted,
    FilesFailed,
    Forget,
    Hurry,
    HurryWorker,
    Instruction,
    LastLine,
    LeftFailed,
    LeftWritten,
    LetWorkerEnd,
    RunQueue,
    Settled,
    ShowVerdict,
    StartWorker,
    StopQueue,
    StopWorker,
    Submitted,
    TellClients,
    Verdict,
    WorkerEnded,
    WorkerFailed,
    WorkerNotStarted,
    WorkerStarted,
    WriteLeft,
)
from kvdeck.sessions.model.records import FINAL_STATES


def orders(queue: RunQueue, *events: Event) -> list[Instruction]:
    """What the last of some events leads to, without the messages to clients."""
    found: list[Instruction] = []
    for event in events:
        found = queue.handle(event)
    return [order for order in found if not isinstance(order, TellClients)]


def working(*names: str) -> RunQueue:
    """A queue whose first run has a worker."""
    queue = RunQueue()
    for name in names:
        queue.handle(Submitted(name))
    queue.handle(WorkerStarted(names[0], 7))
    return queue


KILLED = "the worker was killed (SIGKILL) by a user, or by the kernel because memory ran out"


def test_runs_go_one_after_the_other():
    queue = RunQueue()
    assert orders(queue, Submitted("a")) == [StartWorker("a")]
    assert orders(queue, Submitted("b")) == []
    assert orders(queue, WorkerStarted("a", 7)) == []
    assert [(run.name, run.state, run.pid) for run in queue.ordered()] == [("a", "running", 7), ("b", "queued", None)]
    assert orders(queue, LastLine("a")) == [LetWorkerEnd("a")]
    (complete,) = orders(queue, WorkerEnded("a", 0, False))
    assert isinstance(complete, CompleteFiles)
    assert queue.runs["a"].state == "running", "what is shown is in the files first"
    assert orders(queue, FilesCompleted("a", "done", None)) == [StartWorker("b")]
    assert [(run.name, run.state) for run in queue.ordered()] == [("b", "running"), ("a", "done")]


@pytest.mark.parametrize(
    ("ended", "verdict"),
    [
        ((7, False), Verdict("crashed", "the worker exited with status 7 before it finished")),
        ((-11, False), Verdict("crashed", "the worker died of SIGSEGV", "SIGSEGV")),
        ((-35, False), Verdict("crashed", "the worker died of SIGRTMIN+1", "SIGRTMIN+1")),
        (
            (-9, False),
            Verdict(
                "crashed",
                "the worker was killed (SIGKILL) by a user, or by the kernel because memory ran out",
                "SIGKILL",
            ),
        ),
    ],
)
def test_a_worker_that_ends_without_its_last_line_has_crashed(ended: tuple[int, bool], verdict: Verdict):
    assert orders(working("a"), WorkerEnded("a", *ended)) == [CompleteFiles("a", verdict)]


@pytest.mark.parametrize(
    ("ended", "reason", "died_of"),
    [
        ((0, False), "why", None),
        ((-15, False), "why", "SIGTERM"),
        ((-11, False), "it died of SIGSEGV while stopping", "SIGSEGV"),
        ((-9, True), "it did not react to SIGTERM and was killed", "SIGKILL"),
    ],
)
def test_a_cancelled_run_is_cancelled_however_its_worker_ends(
    ended: tuple[int, bool], reason: str, died_of: str | None
):
    queue = working("a")
    assert orders(queue, CancelRun("a", "why")) == [StopWorker("a")]
    complete = CompleteFiles("a", Verdict("cancelled", reason, died_of, ("last",)))
    assert orders(queue, WorkerEnded("a", *ended, ("last",))) == [complete]


def test_a_queued_run_is_cancelled_at_once_beside_the_running_one():
    queue = working("a", "b", "c")
    assert orders(queue, CancelRun("b")) == [CompleteFiles("b", Verdict("cancelled"))]
    assert (queue.runs["b"].state, queue.active) == ("cancelled", queue.runs["a"])
    assert orders(queue, CancelRun("b")) == []
    assert not queue.settled
    assert orders(queue, FilesCompleted("b", "cancelled", None)) == [], "no worker is started beside the running one"
    assert orders(queue, WorkerFailed("a", "broken"), FilesCompleted("a", "failed", "broken")) == [StartWorker("c")]


def test_a_run_that_is_cancelled_while_its_worker_starts_is_stopped():
    queue = RunQueue()
    queue.handle(Submitted("a"))
    assert orders(queue, CancelRun("a")) == [StopWorker("a")]
    assert orders(queue, WorkerStarted("a", 7)) == []
    (complete,) = orders(queue, WorkerEnded("a", -15, False))
    assert isinstance(complete, CompleteFiles)
    assert complete.verdict.state == "cancelled"


def test_a_worker_that_cannot_be_started_fails_its_run_only():
    queue = RunQueue()
    queue.handle(Submitted("a"))
    queue.handle(Submitted("b"))
    verdict = Verdict("failed", "the worker can't be started: no such file")
    assert orders(queue, WorkerNotStarted("a", "no such file")) == [CompleteFiles("a", verdict)]
    assert orders(queue, FilesCompleted("a", "failed", verdict.reason)) == [StartWorker("b")]


def test_a_full_disk_fails_the_run_and_its_end_is_written_later():
    queue = working("a", "b")
    full = Verdict("failed", "the disk is full")
    assert orders(queue, WorkerEnded("a", 0, False), FilesFailed("a", "the disk is full")) == [CompleteFiles("a", full)]
    assert orders(queue, FilesFailed("a", "the disk is full")) == [
        WriteLeft("a", full),
        StartWorker("b"),
        ShowVerdict("a", full),
    ]
    assert queue.runs["a"].state == "failed"
    assert orders(queue, WorkerStarted("b", 8), LeftFailed("a")) == []
    assert queue.unclosed == {"a": full}
    assert orders(queue, WorkerEnded("b", 0, False), FilesCompleted("b", "done", None)) == [WriteLeft("a", full)]
    assert orders(queue, Settled()) == [], "one attempt at a time"
    assert orders(queue, LeftWritten("a"), Settled()) == []
    assert queue.settled


def test_a_session_file_that_cannot_be_written_yet_is_written_later():
    queue = working("a")
    left = [WriteLeft("a", Verdict("done"))]
    assert orders(queue, WorkerEnded("a", 0, False), FilesCompleted("a", "done", None, closed=False)) == left


def test_a_name_that_is_used_again_is_not_closed_with_an_old_end():
    queue = working("a")
    for event in (WorkerFailed("a", "full"), FilesFailed("a", "full"), LeftFailed("a")):
        queue.handle(event)
    assert "a" in queue.unclosed
    assert orders(queue, Submitted("a")) == [StartWorker("a")]
    assert queue.unclosed == {}


def test_stopping_cancels_all_and_starts_none():
    queue = working("a", "b")
    cancelled = Verdict("cancelled", "stopped")
    assert orders(queue, StopQueue("stopped", hurry=True)) == [
        StopWorker("a"),
        CompleteFiles("b", cancelled),
        HurryWorker("a"),
    ]
    assert orders(queue, Submitted("c")) == [CompleteFiles("c", cancelled)], "it was being created when the stop came"
    assert orders(queue, Hurry()) == [HurryWorker("a")]
    for name in ("a", "b", "c"):
        queue.handle(WorkerEnded(name, 0, False))
        assert orders(queue, FilesCompleted(name, "cancelled", "stopped")) == []
    assert queue.settled
    assert not queue.busy


def test_only_the_newest_finished_runs_are_kept():
    queue = RunQueue()
    for number in range(KEPT_RUNS):
        queue.handle(Adopted(f"old{number}", "interrupted", None))
    queue.handle(Submitted("a"))
    queue.handle(WorkerNotStarted("a", "no"))
    assert orders(queue, FilesCompleted("a", "failed", "no")) == [Forget("old0")]
    assert [run.name for run in queue.ordered()][:2] == ["a", f"old{KEPT_RUNS - 1}"]


NAMES = st.sampled_from("abcdef")
REASONS = st.sampled_from([None, "why"])


class AnyOrder(RuleBasedStateMachine):
    """An executor that answers its instructions at any time and in any order, beside clients who do what they like."""

    @initialize()
    def begin(self) -> None:
        self.queue = RunQueue()
        self.worker: str | None = None
        """The run whose worker is being started, or runs."""
        self.completing: dict[str, Verdict] = {}
        self.writing: set[str] = set()
        self.final: dict[str, tuple[str, str | None]] = {}
        self.stopped = False

    def tell(self, event: Event) -> None:
        for order in self.queue.handle(event):
            if isinstance(order, StartWorker):
                assert self.worker is None, "two workers at once"
                assert not self.stopped
                self.worker = order.name
            elif isinstance(order, (StopWorker, HurryWorker, LetWorkerEnd)):
                assert order.name == self.worker
            elif isinstance(order, CompleteFiles):
                assert order.name not in self.completing
                assert order.name != self.worker, "its worker still writes"
                self.completing[order.name] = order.verdict
            elif isinstance(order, WriteLeft):
                assert order.name not in self.writing
                self.writing.add(order.name)
            elif isinstance(order, Forget):
                assert order.name not in self.queue.runs
                self.final.pop(order.name, None)

    def phase(self, name: str) -> str | None:
        run = self.queue.runs.get(name)
        return None if run is None else run.phase

    @rule(name=NAMES)
    def submit(self, name: str) -> None:
        if self.phase(name) in (None, "over"):
            self.final.pop(name, None)
        self.tell(Submitted(name))

    @rule(name=NAMES, reason=REASONS)
    def cancel(self, name: str, reason: str | None) -> None:
        self.tell(CancelRun(name, reason))

    @rule(hurry=st.booleans())
    def stop(self, hurry: bool) -> None:
        self.stopped = True
        self.tell(StopQueue("the engine was stopped", hurry))

    @rule(event=st.sampled_from([Hurry(), Settled()]))
    def hurry(self, event: Event) -> None:
        self.tell(event)

    @precondition(lambda self: self.worker is not None)
    @rule(end=st.sampled_from(["started", "not started", "failed", "last line", "ended", "killed"]))
    def worker_goes_on(self, end: str) -> None:
        name = self.worker
        assert name is not None
        starting = self.phase(name) == "starting"
        if end == "started" and starting:
            self.tell(WorkerStarted(name, 7))
        elif end == "last line" and not starting:
            self.tell(LastLine(name))
        elif end == "failed" or (end == "not started" and starting):
            self.worker = None
            self.tell(WorkerFailed(name, "failed") if end == "failed" else WorkerNotStarted(name, "no"))
        elif end in ("ended", "killed") and not starting:
            self.worker = None
            self.tell(WorkerEnded(name, -9 if end == "killed" else 0, end == "killed"))

    @precondition(lambda self: self.completing)
    @rule(data=st.data(), how=st.sampled_from(["by verdict", "by worker", "unclosed", "failed"]))
    def files(self, data: st.DataObject, how: str) -> None:
        name = data.draw(st.sampled_from(sorted(self.completing)))
        verdict = self.completing.pop(name)
        if how == "failed":
            self.tell(FilesFailed(name, "the disk is full"))
        else:
            state = "done" if how == "by worker" else verdict.state
            self.tell(FilesCompleted(name, state, verdict.reason, closed=how != "unclosed"))

    @precondition(lambda self: self.writing)
    @rule(data=st.data(), written=st.booleans())
    def left(self, data: st.DataObject, written: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.writing)))
        self.writing.discard(name)
        self.tell(LeftWritten(name) if written else LeftFailed(name))

    @rule(name=NAMES, kind=st.sampled_from([WorkerStarted, WorkerNotStarted, WorkerEnded, WorkerFailed, LastLine]))
    def late_word_of_a_worker(self, name: str, kind: type) -> None:
        if name == self.worker:
            return
        more = {WorkerStarted: (7,), WorkerEnded: (0, False), LastLine: ()}.get(kind, ("late",))
        assert self.queue.handle(kind(name, *more)) == []

    @rule(name=NAMES)
    def late_word_of_files(self, name: str) -> None:
        if name not in self.completing:
            assert self.queue.handle(FilesCompleted(name, "done", None)) == []
            assert self.queue.handle(FilesFailed(name, "late")) == []

    @invariant()
    def each_run_has_one_final_state(self) -> None:
        for run in self.queue.runs.values():
            if run.over:
                assert self.final.setdefault(run.name, (run.state, run.reason)) == (run.state, run.reason)
            else:
                assert run.name not in self.final
            assert (run.phase != "over") or run.state in FINAL_STATES

    @invariant()
    def it_is_never_stuck(self) -> None:
        active = self.queue.active
        waiting = [run.name for run in self.queue.runs.values() if run.phase == "queued"]
        assert active is not None or not waiting
        if active is not None:
            assert active.name in ({self.worker} | set(self.completing))
        for run in self.queue.runs.values():
            if run.phase == "closing":
                assert run.name in self.completing

    def teardown(self) -> None:
        if not hasattr(self, "queue"):
            return
        for _ in range(100):
            if self.worker is not None:
                self.worker_goes_on("started" if self.phase(self.worker) == "starting" else "ended")
            for name, verdict in list(self.completing.items()):
                del self.completing[name]
                self.tell(FilesCompleted(name, verdict.state, verdict.reason))
            for name in list(self.writing):
                self.writing.discard(name)
                self.tell(LeftWritten(name))
        assert self.queue.settled
        assert not self.queue.busy
        assert all(run.phase == "over" for run in self.queue.runs.values())


TestAnyOrder = AnyOrder.TestCase
