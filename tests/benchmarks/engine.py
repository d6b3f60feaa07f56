"""What the engine costs when nothing happens and when it is watched, and how fast sessions are listed."""

from __future__ import annotations

import os
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from kvdeck.engine.client.client import Client
from kvdeck.engine.protocol import RunsChanged
from kvdeck.engine.spec import RunSpec
from kvdeck.sessions.model.records import FINAL_STATES, Session
from kvdeck.sessions.store.store import Store, encode_session
from tests.benchmarks.table import Row

IDLE_SECONDS = 10.0
WATCHED_SECONDS = 10.0
WATCHERS = 3
SESSIONS = 10_000


def measure() -> list[Row]:
    """Every row about the engine and the store."""
    with own_engine():
        rows = [_idle(), _watched()]
    return [*rows, _listing()]


@contextmanager
def own_engine() -> Iterator[Path]:
    """An engine with a home and a runtime folder of its own, ended afterwards."""
    before = {name: os.environ.get(name) for name in ("KVDECK_HOME", "KVDECK_RUNTIME")}
    with tempfile.TemporaryDirectory(prefix="kvd") as folder:
        os.environ["KVDECK_HOME"], os.environ["KVDECK_RUNTIME"] = f"{folder}/home", f"{folder}/run"
        try:
            yield Path(folder)
        finally:
            with Client.connect(start=True) as client:
                client.stop(force=True)
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value


def _cpu_share(pid: int, seconds: float) -> float:
    """Percent of one core that a process used while this slept."""
    process = psutil.Process(pid)
    before, begin = sum(process.cpu_times()[:2]), time.monotonic()
    time.sleep(seconds)
    return 100 * (sum(process.cpu_times()[:2]) - before) / (time.monotonic() - begin)


def _idle() -> Row:
    with Client.connect() as client:
        share = _cpu_share(client.hello.engine_pid, IDLE_SECONDS)
    return Row("engine, idle, one client attached", f"{share:.1f} % of a core", "0 %")


def _watched() -> Row:
    """A real run, followed by three clients at 10 Hz each."""
    spec = RunSpec(paths=("HostToHost",), seconds=WATCHED_SECONDS + 4)
    with Client.connect() as client:
        session = client.submit(spec)
        stop = threading.Event()
        watchers = [threading.Thread(target=_watch, args=(session, stop)) for _ in range(WATCHERS)]
        for watcher in watchers:
            watcher.start()
        time.sleep(2.5)
        share = _cpu_share(client.hello.engine_pid, WATCHED_SECONDS)
        stop.set()
        client.cancel(session)
        client.subscribe()
        for message in client.messages(timeout=30):
            if isinstance(message, RunsChanged) and all(run.state in FINAL_STATES for run in message.runs):
                break
        for watcher in watchers:
            watcher.join()
    return Row("engine, a run watched by three clients at 10 Hz", f"{share:.1f} % of a core", "≤ 1 %")


def _watch(session: str, stop: threading.Event) -> None:
    with Client.connect() as client:
        client.subscribe(session, hz=10)
        while not stop.is_set():
            client.receive(timeout=0.2)


def _listing() -> Row:
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        for number in range(SESSIONS):
            session = Session(f"s{number:05d}", "done", float(number))
            place = store.folder(session.name)
            place.mkdir(parents=True)
            (place / "session.json").write_bytes(encode_session(session))
        times = []
        for _ in range(5):
            begin = time.perf_counter()
            found = store.summaries()
            times.append(time.perf_counter() - begin)
        assert len(found) == SESSIONS
    return Row("10,000 sessions listed", f"{statistics.median(times):.2f} s", "< 0.3 s")
