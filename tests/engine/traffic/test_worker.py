"""The worker of a traffic test: no patterns, a cancelled test, and a rank that is killed in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from kvdeck.engine.traffic.config import TrafficPattern
from kvdeck.engine.traffic.matrix import Matrix
from kvdeck.engine.traffic.spec import TrafficSpec

PATTERN = TrafficPattern(Matrix(((0, 1000, 1000), (9, 0, 0), (0, 0, 0))))
ENDLESS = TrafficSpec((PATTERN,), processes=3, iterations=1_000_000, warmup=0, isolation=1)


@contextmanager
def working(folder: Path, spec: TrafficSpec) -> Iterator[subprocess.Popen[bytes]]:
    (folder / "run.yaml").write_text(spec.to_yaml())
    argv = [sys.executable, "-m", "kvdeck.engine.traffic.worker", "--session-dir", str(folder)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def told(process: subprocess.Popen[bytes], until: str) -> list[dict[str, Any]]:
    """Return the events up to the first of that kind that is about visits together."""
    found = []
    assert process.stdout is not None
    for line in process.stdout:
        found.append(json.loads(line))
        if found[-1]["kind"] == until and found[-1].get("phase", "together") == "together":
            break
    return found


def test_no_patterns_end_at_once(tmp_path: Path) -> None:
    with working(tmp_path, TrafficSpec()) as process:
        found = told(process, "state")
    assert [one["kind"] for one in found] == ["run_started", "traffic_planned", "traffic_ended", "state"]
    assert found[2]["upstream"]["iterations_results"] == [[], [], []]
    assert found[3]["state"] == "done"
    assert [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()] == found


def test_a_killed_rank_ends_all_others_by_name(tmp_path: Path) -> None:
    with working(tmp_path, ENDLESS) as process:
        told(process, "pattern_begun")
        ranks = psutil.Process(process.pid).children(recursive=True)
        assert len(ranks) == 3
        killed = next(rank for rank in ranks if "rank1" in rank.cmdline())
        killed.send_signal(signal.SIGKILL)
        last = told(process, "state")[-1]
        assert last["state"] == "failed"
        assert f"rank1 (process {killed.pid}) died of SIGKILL" in last["reason"]
        assert process.wait() == 0
        assert psutil.wait_procs(ranks, timeout=60)[1] == []


def test_a_test_is_cancelled_while_a_peer_doesn_t_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ssh = tmp_path / "bin" / "ssh"
    ssh.parent.mkdir()
    ssh.write_text("#!/bin/sh\nexec sleep 3600\n")
    ssh.chmod(0o700)
    monkeypatch.setenv("PATH", str(ssh.parent), prepend=os.pathsep)
    with working(tmp_path, TrafficSpec((PATTERN,), processes=1, peer=("a", "b"))) as process:
        started: list[psutil.Process] = []
        while not any(one.name() == "sleep" for one in started):
            started = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        assert told(process, "state")[-1]["state"] == "cancelled"
        process.wait()
        assert psutil.wait_procs(started, timeout=60)[1] == []


def test_a_cancelled_test_keeps_what_it_has(tmp_path: Path) -> None:
    with working(tmp_path, ENDLESS) as process:
        told(process, "pattern_begun")
        moved = told(process, "patterns_moved")[-1]  # told from time to time while patterns follow one another
        ranks = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        assert told(process, "state")[-1]["state"] == "cancelled"
        process.wait()
        assert psutil.wait_procs(ranks, timeout=60)[1] == []
    assert moved in [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
