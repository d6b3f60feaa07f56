"""The process of a traffic test: refusals before anything starts, and a rank that is killed in the middle."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from kvdeck.engine.traffic.perftest import PerftestOptions, checked_config, run_perftest
from kvdeck.sessions.errors import UsageError


def config(folder: Path, text: str) -> str:
    path = folder / "traffic.yaml"
    path.write_text(text)
    return str(path)


def refused(options: PerftestOptions, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        run_perftest(options, lambda _: pytest.fail("it has started"))


def test_a_matrix_larger_than_the_memory_is_refused_with_the_sum(tmp_path: Path) -> None:
    path = config(tmp_path, 'traffic_pattern: {matrix: "0 900T\\n900T 0"}')
    refused(PerftestOptions(path, sequential=False), "2 ranks need 3,958,241,859,993,600 B")


def test_other_numbers_of_ranks_and_patterns_are_refused(tmp_path: Path) -> None:
    path = config(tmp_path, "traffic_patterns: [{matrix: [[1]]}, {matrix: [[1]]}]")
    refused(PerftestOptions(path, sequential=False), "ct-perftest runs one")
    refused(PerftestOptions(path, sequential=True, ranks=2), "--ranks is 2, and the matrices have 1 rank")


def test_gpu_memory_is_refused_with_its_reason_unless_replaced(tmp_path: Path) -> None:
    path = config(tmp_path, "traffic_pattern: {matrix: [[1]], mem_type: cuda}")
    refused(PerftestOptions(path, sequential=False), "pattern 0 needs GPU memory: ")
    replaced = PerftestOptions(path, sequential=False, memory="DRAM")
    assert checked_config(replaced).patterns[0].memory == "DRAM"


def test_no_patterns_end_at_once(tmp_path: Path) -> None:
    options = PerftestOptions(config(tmp_path, "traffic_patterns: []"), sequential=True)
    result = run_perftest(options, lambda _: pytest.fail("it has started"))
    assert (result["status"], result["json"]["iterations_results"]) == (0, [[], [], []])


def test_a_killed_rank_ends_all_others_by_name(tmp_path: Path) -> None:
    path = config(tmp_path, "traffic_patterns: [{matrix: [[0, 1000, 1000], [9, 0, 0], [0, 0, 0]]}]")
    options = {"config": path, "sequential": True, "processes": 3, "iterations": 1_000_000, "warmup": 0, "isolation": 1}
    process = subprocess.Popen(
        [sys.executable, "-m", "kvdeck.engine.traffic.perftest"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(options).encode())
    process.stdin.close()
    next(line for line in process.stdout if b"workload 3 of" in line)
    ranks = psutil.Process(process.pid).children(recursive=True)
    killed = next(rank for rank in ranks if "rank1" in rank.cmdline())
    killed.send_signal(signal.SIGKILL)
    last = json.loads(list(process.stdout)[-1])
    assert f"rank1 (process {killed.pid}) died of SIGKILL" in last["error"]
    assert process.wait() == last["status"] == 1
    assert len(ranks) == 3
    assert psutil.wait_procs(ranks, timeout=60)[1] == []
