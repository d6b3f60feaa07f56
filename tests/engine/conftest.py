"""A real engine of each test's own, with real worker children."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kvdeck.engine.client.client import Client
from kvdeck.engine.daemon import runtime
from kvdeck.engine.protocol import EventMessage, FromEngine, RunsChanged, SampleMessage
from kvdeck.sessions.host import processes

DEADLINE = 20.0


def eventually(true: Callable[[], bool]) -> None:
    """Wait for something outside this process that sends no message."""
    end = time.monotonic() + DEADLINE
    while not true():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    return processes.process_start(pid) is not None


def is_final(message: FromEngine) -> bool:
    return isinstance(message, EventMessage) and message.event["kind"] == "state"


def lines_until_end(client: Client) -> list[EventMessage | SampleMessage]:
    """Lines of the followed run up to its final state."""
    got = []
    for message in client.messages(DEADLINE):
        if isinstance(message, (EventMessage, SampleMessage)):
            got.append(message)
        if is_final(message):
            return got
    raise AssertionError("the run did not end")


def runs_until(client: Client, true: Callable[[dict[str, str]], bool]) -> RunsChanged:
    """The first picture of the queue of which `true` holds for session to state."""
    for message in client.messages(DEADLINE):
        if isinstance(message, RunsChanged) and true({run.session: run.state for run in message.runs}):
            return message
    raise AssertionError("the queue did not come to look like that")


def submit(client: Client, name: str | None = None, **params: object) -> str:
    return client.submit({"params": {key: str(value) for key, value in params.items()}}, name)


def run_to_end(client: Client, **params: object) -> tuple[str, list[EventMessage | SampleMessage]]:
    """Run a worker and follow every line of it."""
    session = submit(client, **params)
    client.subscribe(session, hz=0)
    return session, lines_until_end(client)


@pytest.fixture
def folders(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home and a runtime folder, and whatever engine and workers live there ended at last."""
    folder = Path(tempfile.mkdtemp(prefix="kd-"))
    monkeypatch.setenv("KVDECK_HOME", str(folder / "home"))
    monkeypatch.setenv("KVDECK_RUNTIME", str(folder / "rt"))
    monkeypatch.setenv(
        "KVDECK_WORKER", f"{sys.executable} {Path(__file__).parents[2] / 'tests' / 'support/programs/fake_worker.py'}"
    )
    monkeypatch.setenv("KVDECK_GRACE", "0.3")
    yield folder
    with contextlib.suppress(Exception), Client.connect(start=False, timeout=2) as client:
        client.stop(force=True, timeout=5)
    record = runtime.read_record(folder / "rt")
    if record is not None and record.process.alive:
        os.kill(record.process.pid, signal.SIGKILL)
    shutil.rmtree(folder)


@pytest.fixture
def client(folders: Path) -> Iterator[Client]:
    """A client of a fresh engine."""
    with Client.connect() as connected:
        yield connected


def kill_engine(client: Client) -> None:
    """kill -9."""
    os.kill(client.hello.engine_pid, signal.SIGKILL)
    eventually(lambda: not alive(client.hello.engine_pid))
