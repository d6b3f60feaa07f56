"""Ranks that die at any moment fail their run at once, with the reason; so does a disk that takes no more."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kvdeck.engine.client.client import Client
from kvdeck.engine.protocol import EventMessage
from kvdeck.sessions.host.processes import process_start
from tests.engine.conftest import DEADLINE, eventually, lines_until_end

RUN = {"paths": ["HostToHost"], "layouts": ["FullyContiguous"], "block_size": 65536, "batch": 4, "seconds": 20,
       "verify": False, "reference": False}  # fmt: skip
SOON_S = 10.0
"""It is within two seconds where the host is quiet; it was 120."""


@pytest.fixture
def real(folders: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.delenv("KVDECK_WORKER")
    monkeypatch.delenv("KVDECK_GRACE")
    with Client.connect() as client:
        yield client


def ranks_of(client: Client, session: str) -> list[int]:
    """Pids of a run's ranks, nearest first."""
    for run in client.status()["runs"]:
        if run["session"] == session and run["pid"]:
            children = Path(f"/proc/{run['pid']}/task/{run['pid']}/children")
            return [int(pid) for pid in children.read_text().split()] if children.exists() else []
    return []


@pytest.mark.parametrize("after", [0.0, 0.3, 2.0])
@pytest.mark.parametrize(
    "shape", [{}, {"threads": 2}, {"scheme": "manytoone", "initiators": 2, "targets": 1}], ids=["one", "two", "many"]
)
def test_a_rank_that_dies_fails_the_run_at_once(real: Client, shape: dict[str, object], after: float):
    session = real.submit({**RUN, **shape})
    real.subscribe(session, hz=1)
    eventually(lambda: bool(ranks_of(real, session)))
    time.sleep(after)
    victim = ranks_of(real, session)[-1]
    os.kill(victim, signal.SIGKILL)
    killed = time.monotonic()
    lines_until_end(real)
    took = time.monotonic() - killed
    kept = real.store.load(session)
    assert kept.state == "failed"
    assert "died of SIGKILL" in (kept.reason or "")
    assert f"(process {victim})" in kept.reason
    assert [result.status for result in kept.results] in (["failed"], ["cancelled"])
    rounds = real.store.samples_path(session).read_bytes().count(b'"kind":"round"')
    assert (kept.results[0].iterations > 0) == (rounds > 0), "what was measured before is kept"
    assert took < SOON_S, f"{took:.1f} s"


def test_a_rank_s_last_words_are_in_the_reason(folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A target that aborts in native code, as UCX does."""
    monkeypatch.delenv("KVDECK_WORKER")
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        "if any('ranks.target' in word for word in sys.orig_argv):\n"
        "    os.write(2, b'Assertion `ep != NULL` failed\\n')\n"
        "    os._exit(7)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with Client.connect() as client:
        session = client.submit(RUN)
        client.subscribe(session, hz=1)
        lines_until_end(client)
        kept = client.store.load(session)
        assert kept.state == "failed"
        assert "ended with status 7 (Assertion `ep != NULL` failed)" in (kept.reason or "")
        assert "Assertion" in client.store.log_path(session).read_text()


def test_a_disk_that_is_full_is_said_everywhere(real: Client):
    """A worker whose files may grow no further, from some moment of its run on, stands for a full disk."""
    argv = [sys.executable, "-m", "kvdeck.app.cli.main", "run", "--path", "HostToHost", "--block-size", "4096",
            "--batch", "64", "--seconds", "20", "--session", "full"]  # fmt: skip
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        eventually(lambda: bool(ranks_of(real, "full")))
        samples = real.store.samples_path("full")
        eventually(lambda: samples.read_bytes().count(b'"kind":"round"') > 3)
        worker = next(run["pid"] for run in real.status()["runs"])
        resource.prlimit(worker, resource.RLIMIT_FSIZE, (samples.stat().st_size, resource.RLIM_INFINITY))
        out, err = run.communicate(timeout=60)
    assert run.returncode == 1
    for text in (err, out):
        words = " ".join(text.split())  # lines break where the folder's name is long
        assert "full: the file size limit is reached · fix: run `ulimit -f unlimited` where the engine" in words, text
        assert "Errno" not in words
    (state,) = real.status()["runs"]
    assert state["state"] == "failed"
    assert "size limit" in state["reason"]
    kept = real.store.load("full")
    assert kept.state == "failed"
    assert kept.results[0].iterations > 0, "what was measured is kept"
    assert samples.read_bytes().count(b'"kind":"round"') > 3


@pytest.mark.parametrize("module", ["rank", "target"])
def test_ranks_leave_without_a_crash(real: Client, module: str):
    session = real.submit({**RUN, "seconds": 0.3, "threads": 2})
    real.subscribe(session, hz=1)
    lines_until_end(real)
    assert real.store.load(session).state == "done"
    log = real.store.log_path(session).read_text(errors="replace")
    assert "Segmentation fault" not in log, module
    assert "Fatal Python error" not in log


ENDING = """
import sys
from kvdeck.engine.io.exit import run_and_exit
def main():
    from kvdeck.engine.io import nixl
    agent = nixl.make_agent("leaving")
    nixl.create_backend(agent, "UCX", {})
    print("made")
    how = sys.argv[1]
    if how == "raise":
        raise LookupError("its own reason")
    if how == "exit":
        raise SystemExit(7)
    return int(how)
run_and_exit(main)
"""


@pytest.mark.parametrize(("how", "status"), [("0", 0), ("5", 5), ("exit", 7), ("raise", 1)])
def test_a_process_with_ucx_ends_with_its_own_status(how: str, status: int):
    done = subprocess.run([sys.executable, "-c", ENDING, how], capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == status, done.stderr
    assert "made" in done.stdout
    assert ("LookupError: its own reason" in done.stderr) == (how == "raise")


def test_workers_end_with_0(real: Client):
    session = real.submit({**RUN, "seconds": 0.3})
    real.subscribe(session, hz=1)
    lines = lines_until_end(real)
    assert isinstance(lines[-1], EventMessage)
    eventually(lambda: "ended with 0" in (real.home / "engine.log").read_text())
    assert all(process_start(pid) is None for pid in ranks_of(real, session))
