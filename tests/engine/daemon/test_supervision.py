"""The queue outlives every run, the engine ends by force in any state, and no session stays behind as `running`."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvdeck.engine.client.client import Client, EngineGone, stop_engine
from kvdeck.engine.client.launch import attach
from kvdeck.engine.daemon import runtime
from kvdeck.sessions.errors import EngineError
from kvdeck.sessions.host.processes import signal_name
from kvdeck.sessions.model.records import Session
from kvdeck.sessions.store.store import Store
from tests.engine.conftest import DEADLINE, alive, eventually, lines_until_end, run_to_end, submit
from tests.engine.daemon.test_crashes import first_sample, last_event

FORCED_S = 5.0
FAKE = Path(__file__).parents[3] / "tests" / "support/programs/fake_worker.py"


@contextlib.contextmanager
def engine_of(folders: Path, changes: str) -> Iterator[subprocess.Popen[bytes]]:
    """A real engine, in which a part was changed so that it fails."""
    program = f"import sys\nimport kvdeck.engine.daemon.server as server\n{changes}\nsys.exit(server.main())"
    with (folders / "changed.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def listens(folders: Path) -> bool:
    connected = attach(folders / "rt")
    if connected is not None:
        connected.close()
    return connected is not None


def read_on(client: Client) -> None:
    """Read messages until the engine has gone."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        client.receive(DEADLINE)


def running_worker(client: Client, session: str) -> int:
    first_sample(client, session)
    pid = next(run["pid"] for run in client.status()["runs"] if run["session"] == session)
    assert isinstance(pid, int)
    return pid


@pytest.mark.parametrize("number", [35, 64, signal.SIGUSR1])
def test_a_worker_that_ends_by_any_signal_is_a_crash_and_the_next_run_starts(client: Client, number: int):
    session = submit(client, rounds=100_000, every=0.01)
    os.kill(running_worker(client, session), number)
    event = last_event(lines_until_end(client))
    assert event["state"] == "crashed"
    assert signal_name(number) in str(event["reason"])
    assert last_event(run_to_end(client)[1])["state"] == "done"


def test_every_signal_has_a_name():
    assert [signal_name(number) for number in (9, 34, 35, 64)] == ["SIGKILL", "SIGRTMIN", "SIGRTMIN+1", "SIGRTMAX"]
    assert all(signal_name(number) for number in range(200))


@pytest.mark.parametrize(
    "line", ['{"kind":"run_started","steps":[1]}', '{"kind":"run_started","steps":5}', '{"kind":["state"]}']
)
def test_lines_that_nobody_expects_fail_the_run_and_not_the_queue(
    folders: Path, monkeypatch: pytest.MonkeyPatch, line: str
):
    odd = folders / "odd.py"
    odd.write_text(
        "import os, pathlib, sys, time\n"
        f"if not pathlib.Path({str(folders / 'second')!r}).exists():\n"
        f"    print({line!r}, flush=True); time.sleep(1); sys.exit(3)\n"
        f"os.execv(sys.executable, [sys.executable, {str(FAKE)!r}, *sys.argv[1:]])\n"
    )
    monkeypatch.setenv("KVDECK_WORKER", f"{sys.executable} {odd}")
    with Client.connect() as client:
        session, lines = run_to_end(client)
        assert last_event(lines)["state"] in ("failed", "crashed")
        assert client.store.load(session).state in ("failed", "crashed")
        (folders / "second").touch()
        assert last_event(run_to_end(client)[1])["state"] == "done"


def test_without_threads_or_memory_to_be_had_runs_still_end(client: Client):
    engine = client.hello.engine_pid
    size = int(Path(f"/proc/{engine}/statm").read_text().split()[0]) * resource.getpagesize()
    limits = resource.prlimit(engine, resource.RLIMIT_AS)
    # Too little for a thread's stack (8 MiB), and enough for what the engine's loop itself allocates meanwhile.
    resource.prlimit(engine, resource.RLIMIT_AS, (size + (4 << 20), limits[1]))
    assert last_event(run_to_end(client)[1])["state"] in ("done", "failed")
    resource.prlimit(engine, resource.RLIMIT_AS, limits)
    assert last_event(run_to_end(client)[1])["state"] == "done"


BROKEN = {
    "queue": """
from kvdeck.engine.daemon.run_queue import RunQueue, Submitted
handle = RunQueue.handle
def broken(self, event):
    if isinstance(event, Submitted):
        fail()
    return handle(self, event)
RunQueue.handle = broken
""",
    "timer": """
changed = server.Server._runs_changed
def broken(self, urgent):
    if not urgent:
        import asyncio
        asyncio.get_running_loop().call_later(0.0, fail)
    changed(self, urgent)
server.Server._runs_changed = broken
""",
    "sampler": """
from kvdeck.engine.daemon import samplers
take = samplers.Sampling._take
def broken(self, lines):
    fail()
    take(self, lines)
samplers.Sampling._take = broken
""",
    "accept": """
peer = server.runtime.peer
def broken(connected):
    fail()
    return peer(connected)
server.runtime.peer = broken
""",
}
"""A change of a part, which calls `fail`; that raises an error once the file `break` is there."""


@pytest.mark.parametrize("part", list(BROKEN))
def test_an_engine_of_which_a_part_dies_says_so_and_ends(folders: Path, part: str):
    flag = folders / "break"
    changes = f"""
from pathlib import Path
def fail():
    if Path({str(flag)!r}).exists():
        raise LookupError("no such thing")
{BROKEN[part]}"""
    named = {"queue": "queue", "sampler": "sampling of disks"}.get(part, "event loop")
    with engine_of(folders, changes) as process:
        eventually(lambda: listens(folders))
        with Client.connect(start=False) as client:
            session = submit(client, rounds=100_000, every=0.01)
            worker = running_worker(client, session)
            client.record("telemetry", hz=10, sources=("disks",))
            samples = client.store.samples_path(session)
            eventually(lambda: samples.read_bytes().count(b'"kind":"round"') > 10)
            eventually(lambda: bool(client.store.load("telemetry").telemetry.moments))  # type: ignore[union-attr]
            flag.touch()
            if part == "queue":
                with pytest.raises(EngineError, match="submit failed in the engine"):
                    submit(client)
            if part == "accept":
                with contextlib.suppress(EngineError), Client.connect(start=False, timeout=5):
                    pass
            with pytest.raises(EngineGone, match=f"its {named} failed: LookupError: no such thing"):
                read_on(client)
        assert process.wait(DEADLINE) == 1
        assert not alive(worker)
    assert f"the engine ends: its {named} failed" in (folders / "home" / "engine.log").read_text()
    kept = Store(folders / "home").read(session)
    assert (kept.state, kept.results[0].status) == ("interrupted", "failed")
    assert kept.results[0].iterations > 10
    assert "no such thing" in str(kept.reason)
    assert Store(folders / "home").load("telemetry").state == "interrupted"
    with Client.connect() as client:
        assert last_event(run_to_end(client)[1])["state"] == "done"


def forced() -> float:
    begun = time.monotonic()
    stop_engine(force=True)
    return time.monotonic() - begun


@pytest.mark.parametrize("state", ["works", "deaf worker", "stopped", "no socket", "no record"])
def test_force_ends_an_engine_in_any_state(folders: Path, monkeypatch: pytest.MonkeyPatch, state: str):
    monkeypatch.setenv("KVDECK_GRACE", "10")
    rank = folders / "rank"
    with Client.connect() as client:
        engine = client.hello.engine_pid
        end = "deaf" if state == "deaf worker" else "done"
        session = submit(client, rounds=100_000, every=0.01, end=end, rank=rank)
        worker = running_worker(client, session)
    if state == "stopped":
        os.kill(engine, signal.SIGSTOP)
    if state in ("no socket", "no record"):
        runtime.socket_path(folders / "rt").unlink()
    if state == "no record":
        (folders / "rt" / "engine.json").unlink()
    assert forced() < FORCED_S
    assert not alive(engine)
    eventually(lambda: not alive(worker) and not alive(int(rank.read_text())))
    store = Store(folders / "home")
    assert store.load(session).state in ("cancelled", "interrupted")
    assert store.samples_path(session).read_bytes().count(b'"kind":"round"') > 0
    with Client.connect() as client:
        assert client.hello.engine_pid != engine
        assert last_event(run_to_end(client)[1])["state"] == "done"


def test_force_ends_an_engine_that_has_only_half_started(folders: Path):
    with engine_of(folders, "import time\nserver.runtime.write_record = lambda *_: time.sleep(600)") as process:
        eventually(lambda: runtime.lock_holder(folders / "rt") == process.pid)
        assert forced() < FORCED_S
        process.wait(DEADLINE)
    with Client.connect() as client:
        assert client.status()["runs"] == []


@pytest.mark.parametrize("force", [False, True])
def test_an_engine_of_another_protocol_is_stopped(folders: Path, force: bool):
    changes = "import kvdeck.engine.protocol as p\np.VERSION = server.VERSION = 99"
    with engine_of(folders, changes) as process:
        eventually(lambda: runtime.socket_path(folders / "rt").exists())
        argv = [sys.executable, "-m", "kvdeck.app.cli.main", "engine", "stop", *(["--force"] if force else [])]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=DEADLINE)
        assert (done.returncode, done.stdout) == (0, f"engine {process.pid} has ended\n"), done.stderr
        assert process.wait(DEADLINE) == 0


def test_a_hanging_engine_is_not_waited_for_without_force(client: Client):
    os.kill(client.hello.engine_pid, signal.SIGSTOP)
    argv = [sys.executable, "-m", "kvdeck.app.cli.main", "engine", "stop"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 1
    assert "does not answer" in done.stderr
    assert "engine stop --force" in done.stderr


MAKER = """
import os, signal, sys
from pathlib import Path
from kvdeck.sessions.model.records import Session
from kvdeck.sessions.store.store import Store
store = Store(Path(sys.argv[1]))
if sys.argv[2] == "run":
    store.create("left", {}, "{}")
else:
    store.keep(Session("left", "queued", 1.0, kind=sys.argv[2]))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("kind", ["run", "telemetry"])
def test_a_session_whose_maker_was_killed_at_once_is_interrupted_and_can_be_ended(folders: Path, kind: str):
    home = folders / "home"
    (home / "sessions").mkdir(parents=True)

    def kvdeck(*arguments: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "kvdeck.app.cli.main", *arguments]
        return subprocess.run(argv, capture_output=True, text=True, timeout=DEADLINE)

    def make() -> Store:
        subprocess.run([sys.executable, "-c", MAKER, str(home), kind], timeout=DEADLINE)
        return Store(home)

    store = make()
    assert store.read("left").state == "queued"
    (summary,) = store.summaries()
    assert (summary.state, store.load("left").state) == ("interrupted", "interrupted")
    assert "killed" in str(summary.reason)
    attached = kvdeck("attach", "left")
    assert attached.returncode == 1, attached.stderr
    cancelled = kvdeck("cancel", "left")
    assert cancelled.returncode == 0, cancelled.stderr
    assert "left is interrupted" in cancelled.stdout
    assert store.read("left").state == "interrupted"
    assert kvdeck("session", "delete", "left", "--yes").returncode == 0
    make()
    assert kvdeck("session", "tag", "left", "odd").returncode == 0
    assert kvdeck("session", "rename", "left", "right").returncode == 0
    assert store.read("right").tags == ("odd",)


def test_a_session_that_its_maker_still_works_on_is_left_alone(folders: Path):
    store = Store(folders / "home")
    store.create("mine", {}, "{}")
    assert store.load("mine").state == "queued"
    (summary,) = store.summaries()
    assert summary.state == "queued"
    store.write(Session("mine", "running", 1.0))
    assert store.load("mine").state in ("queued", "running")


def test_a_recording_that_is_told_to_end_while_its_child_is_dead_ends(client: Client):
    client.record("telemetry", hz=5, sources=("http://127.0.0.1:9/metrics",))
    engine = client.hello.engine_pid

    def children() -> list[int]:
        threads = Path(f"/proc/{engine}/task").glob("*/children")
        return [int(pid) for thread in threads for pid in thread.read_text().split()]

    eventually(lambda: bool(children()))
    for child in children():
        os.kill(child, signal.SIGKILL)
    client.cancel("telemetry")
    eventually(lambda: client.store.load("telemetry").state in ("done", "interrupted", "cancelled"))
    eventually(lambda: not list((client.home / "active").glob("*")))


def test_a_runtime_folder_that_hangs_holds_up_neither_the_end_nor_the_worker(folders: Path):
    """Removing files on a dead disk blocks for good: the worker is ended all the same, and the session written."""
    hangs = "import threading\nserver.runtime.remove_runtime_files = lambda *_: threading.Event().wait()"
    with engine_of(folders, hangs) as engine:
        eventually(lambda: listens(folders))
        with Client.connect(start=False) as client:
            session = submit(client, rounds=100_000, every=0.01)
            worker = running_worker(client, session)
        assert stop_engine(force=True) == engine.pid
        assert engine.wait(DEADLINE) == 0, "it was not killed"
        assert not alive(worker)
    assert Store(folders / "home").load(session).state == "cancelled"
