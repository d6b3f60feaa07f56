"""A disk that fills under a run: stderr, the report, the session and the deck's queue say that it was that."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvdeck.engine.client.client import Client
from kvdeck.engine.host import host_facts
from kvdeck.engine.spec import spec_from_mapping
from kvdeck.engine.transfer.run import execute
from kvdeck.engine.transfer.trials import plan_trials, room_of
from kvdeck.sessions.model.events import Event, StepFinished
from kvdeck.sessions.store.store import Store
from tests.engine.conftest import eventually

RUN = ("--path", "HostToHost", "--block-size", "4096", "--batch", "64", "--seconds", "30", "--session", "full")


@pytest.fixture
def small_disk(folders: Path) -> Iterator[Path]:
    """A disk of its own of 2 MiB."""
    disk = folders / "small"
    disk.mkdir(mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", "size=2M,mode=0700", "none", str(disk)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    yield disk
    with contextlib.suppress(Exception), Client.connect(start=False, timeout=2) as client:
        client.stop(force=True, timeout=5)
    subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk: Path) -> None:
    with contextlib.suppress(OSError), (disk / "fill").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def kvdeck(*arguments: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "kvdeck.app.cli.main", *arguments]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_the_session_s_own_disk(small_disk: Path, monkeypatch: pytest.MonkeyPatch):
    home = small_disk / "home"
    monkeypatch.setenv("KVDECK_HOME", str(home))
    monkeypatch.delenv("KVDECK_WORKER")
    store = Store(home)
    with kvdeck("run", *RUN) as run:
        samples = store.samples_path("full")
        eventually(lambda: samples.exists() and samples.read_bytes().count(b'"kind":"round"') > 3)
        fill(small_disk)
        out, err = run.communicate(timeout=60)
    assert run.returncode == 1
    for text in (out, err):
        assert "the disk is full · fix: free disk space, or set KVDECK_HOME" in " ".join(text.split()), text
        assert "Errno" not in text
        assert "Traceback" not in text
    with Client.connect(start=False) as client:
        (state,) = client.status()["runs"]
    assert state["state"] == "failed"
    assert "the disk is full" in state["reason"]
    (small_disk / "fill").unlink()
    with kvdeck("run", "--path", "HostToHost", "--block-size", "4096", "--blocks", "64", "--iterations", "8") as again:
        again.communicate(timeout=60)
    assert again.returncode == 0, "the next run starts once there is room"
    kept = store.read("full")
    assert (kept.state, kept.reason) == ("failed", state["reason"]), "its end is written down once there is room"
    assert kept.results[0].iterations > 0


@pytest.mark.parametrize("path", ["HostToDisk", "DiskToHost"])
def test_the_disk_of_the_test_files(small_disk: Path, path: str):
    """Somebody else takes the room after the run has looked how much there is."""
    host = host_facts(small_disk)
    assert host.folder is not None
    room = room_of(dataclasses.replace(host, folder=dataclasses.replace(host.folder, free_bytes=1 << 40)))
    mapping = {"paths": [path], "layers": 4, "page_size": 16, "inner_dim": 512, "blocks": 32, "batch": 4}
    spec = spec_from_mapping({**mapping, "effort": "quick", "seconds": 0.2})
    cores = os.sched_getaffinity(0)
    scratch = small_disk / "scratch"
    scratch.mkdir()
    told: list[Event] = []
    try:
        planned = tuple((spec, trial) for trial in plan_trials(spec, room))
        state = execute(planned, room, str(scratch), told.append, lambda: False)
    finally:
        os.sched_setaffinity(0, cores)
    assert state == "failed"
    reasons = {event.result.reason for event in told if isinstance(event, StepFinished)}
    words = (
        f"can't write test files in {small_disk}: the disk is full · fix: free disk space, lower --blocks, "
        "or give another --folder"
    )
    assert reasons
    assert all(words in (reason or "") for reason in reasons), reasons
    assert list(scratch.iterdir()) == []
