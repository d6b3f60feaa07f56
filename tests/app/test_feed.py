"""The feed against a real engine that moves real bytes."""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from textual.message import Message

from kvdeck.app.tui import session_requests
from kvdeck.app.tui.connection import Feed, followed
from kvdeck.app.tui.messages import (
    CommandRefused,
    DoctorReported,
    RunSubmitted,
    SessionRead,
    SessionsListed,
    SnapshotTaken,
)
from kvdeck.app.tui.state import Snapshot
from kvdeck.engine.client.client import Client
from kvdeck.engine.protocol import RunInfo
from kvdeck.sessions.model.run_state import RunState

PATIENCE_S = 40.0
SHORT = {"paths": ["HostToHost"], "layers": 2, "blocks": 8, "batch": 4, "seconds": 0.5, "reference": False}
LONG = {**SHORT, "seconds": 60.0}


class Watcher:
    """A feed, and the messages that it has posted."""

    def __init__(self, readonly: bool = False) -> None:
        self.messages: queue.Queue[Message] = queue.Queue()
        self.feed = Feed(self.messages.put, readonly=readonly, tick_s=0.05)
        self.feed.start()

    def until(self, true: Callable[[Message], bool]) -> Message:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            with contextlib.suppress(queue.Empty):
                message = self.messages.get(timeout=max(0.01, deadline - time.monotonic()))
                if true(message):
                    return message
        raise AssertionError("no such message came")

    def snapshot(self, true: Callable[[Snapshot], bool]) -> Snapshot:
        found = self.until(lambda m: isinstance(m, SnapshotTaken) and true(m.snapshot))
        assert isinstance(found, SnapshotTaken)
        return found.snapshot

    def of(self, kind: type[Message]) -> Message:
        return self.until(lambda m: isinstance(m, kind))


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="kd-"))
    monkeypatch.setenv("KVDECK_HOME", str(folder / "home"))
    monkeypatch.setenv("KVDECK_RUNTIME", str(folder / "rt"))
    yield folder
    with contextlib.suppress(Exception), Client.connect(start=False, timeout=2) as client:
        client.stop(force=True, timeout=10)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def watch() -> Iterator[Callable[..., Watcher]]:
    made: list[Watcher] = []

    def make(**options: bool) -> Watcher:
        made.append(Watcher(**options))
        return made[-1]

    yield make
    for watcher in made:
        watcher.feed.stop()


def is_live(snapshot: Snapshot) -> bool:
    return snapshot.run is not None and any(len(step.points) > 1 for step in snapshot.run.steps)


def test_a_run_is_launched_left_and_found_again(engine: Path, watch: Callable[..., Watcher]):
    first = watch()
    first.snapshot(lambda s: s.link == "connected")
    first.feed.submit(LONG)
    submitted = first.of(RunSubmitted)
    assert isinstance(submitted, RunSubmitted)
    live = first.snapshot(is_live).run
    assert live is not None
    assert (live.session, live.state) == (submitted.session, "running")
    first.feed.stop()

    second = watch()
    again = second.snapshot(lambda s: is_live(s) and s.run is not None and s.run.next_seq > live.next_seq).run
    assert again is not None
    assert again.session == submitted.session
    assert {point.t for point in live.steps[0].points} <= {point.t for point in again.steps[0].points}
    second.feed.cancel(submitted.session)
    ended = second.snapshot(lambda s: s.run is not None and s.run.state == "cancelled").run
    assert ended is not None
    assert ended.steps[0].values


def test_a_run_ends_with_results_that_are_kept(engine: Path, watch: Callable[..., Watcher]):
    watcher = watch()
    watcher.feed.submit(SHORT)
    submitted = watcher.of(RunSubmitted)
    assert isinstance(submitted, RunSubmitted)
    done = watcher.snapshot(lambda s: s.run is not None and s.run.state == "done").run
    assert done is not None
    assert [step.state for step in done.steps] == ["ok", "ok"]
    assert all(step.result is not None and step.result.verified for step in done.steps)
    assert done.comparisons
    watcher.feed.do(lambda: session_requests.listed(watcher.messages.put))
    listed = watcher.of(SessionsListed)
    assert isinstance(listed, SessionsListed)
    assert submitted.session in [row.name for row in listed.rows]
    watcher.feed.do(lambda: session_requests.read(watcher.messages.put, submitted.session))
    read = watcher.of(SessionRead)
    assert isinstance(read, SessionRead)
    assert read.session is not None
    assert len(read.session.results) == 2


def test_an_engine_that_dies_is_a_state_and_a_new_one_is_found(engine: Path, watch: Callable[..., Watcher]):
    watcher = watch()
    before = watcher.snapshot(lambda s: s.link == "connected")
    assert before.engine_pid is not None
    os.kill(before.engine_pid, signal.SIGKILL)
    lost = watcher.snapshot(lambda s: s.link == "lost")
    assert lost.detail
    with Client.connect(start=True):
        after = watcher.snapshot(lambda s: s.link == "connected")
    assert after.restarts == 1
    assert after.engine_pid != before.engine_pid


def test_what_the_engine_refuses_is_said(engine: Path, watch: Callable[..., Watcher]):
    watcher = watch()
    watcher.snapshot(lambda s: s.link == "connected")
    watcher.feed.submit({"paths": ["NoSuchPath"]})
    refused = watcher.of(CommandRefused)
    assert isinstance(refused, CommandRefused)
    assert "NoSuchPath" in refused.what
    watcher.feed.cancel("no-such-run")
    watcher.of(CommandRefused)


def test_doctor_looks_in_the_background(engine: Path, watch: Callable[..., Watcher]):
    watcher = watch(readonly=True)
    looking = watcher.of(DoctorReported)
    assert isinstance(looking, DoctorReported)
    assert looking.doctor.looking
    told = watcher.until(lambda m: isinstance(m, DoctorReported) and not m.doctor.looking)
    assert isinstance(told, DoctorReported)
    assert told.doctor.error == ""
    ready = told.doctor.best("HostToHost")
    assert ready is not None
    assert ready.state == "ready"
    assert told.doctor.host


def info(session: str, state: str) -> RunInfo:
    return RunInfo(session, state, 0.0)  # type: ignore[arg-type]


def test_who_is_followed():
    runs = (info("a", "running"), info("b", "queued"))
    assert followed((), None, None) is None
    assert followed(runs, None, None) == "a"
    assert followed(runs, None, "b") == "b"
    assert followed(runs[1:], None, None) == "b"
    assert followed(runs, RunState("old", "done"), None) == "a"
    assert followed(runs[1:], RunState("old", "done"), None) == "old"
    assert followed(runs, RunState("b", "running"), None) == "b"
