"""`kvdeck ct-perftest` and `kvdeck sequential-ct-perftest` over real UCX: tables, JSON, verification, exit statuses."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from kvdeck.app.cli.main import main

SEED = "0 0 1M 1M\n0 0 1M 1M\n0 0 0 5K\n0 0 0 5K\n"
ROW = ["size", "latency", "isolated_latency", "num_senders", "mean_bw", "min_start_ts", "max_end_ts"]


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err


def test_the_seed_s_matrix_on_four_processes_verified_to_the_byte(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "matrix.txt").write_text(SEED)
    file = tmp_path / "traffic.yaml"
    file.write_text(
        "traffic_patterns:\n"
        "- {matrix_file: matrix.txt, mem_type: dram, sleep_before_launch_sec: 0.01, metadata: {isl: 38328}}\n"
        "- {matrix: [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]}\n"
        "- {matrix_file: matrix.txt, xfer_op: READ, shards: 3}\n"
        "- {matrix: [[7, 0, 0, 0], [0, 0, 0, 0], [0, 0, 9000, 0], [0, 0, 0, 0]], sleep_after_launch_sec: 0.01}\n"
    )
    out = tmp_path / "out.json"
    status, said, _ = call(
        capsys, "sequential-ct-perftest", str(file), "--verify-buffers", "--print-recv-buffers", "--processes", "4",
        "--foreground", "--iterations", "2", "--warmup", "1", "--isolation-iterations", "3",
        "--json-output-path", str(out),
    )  # fmt: skip
    assert status == 0, said
    assert "Verified: all 8418095 bytes of 4 patterns are right" in said
    assert "4 ranks in 4 processes" in said
    lines = said.splitlines()
    begin = lines.index("Iteration 2")
    assert lines[begin + 1].split("  ")[0] == "Transfer size (GB)"
    assert lines[begin + 4].split() == ["0.000", "-", "-", "0", "-"]
    document = json.loads(out.read_text())
    assert list(document) == ["iterations_results", "metadata"]
    assert [len(one) for one in document["iterations_results"]] == [4, 4]
    for rows in document["iterations_results"]:
        assert all(list(row) == ROW for row in rows)
        assert [row["num_senders"] for row in rows] == [4, 0, 4, 2]
        assert rows[0]["size"] == 0.004204544
        assert rows[1]["latency"] is None
        assert len({row["mean_bw"] for row in rows}) == 4
        assert rows[0]["max_end_ts"] - rows[0]["min_start_ts"] == pytest.approx(rows[0]["latency"] / 1e3, abs=1e-6)
    metadata = document["metadata"]
    assert list(metadata) == ["ts", "iters", "prepare_tp_time", "sol_calculation_ts", "finished_ts"]
    assert metadata["iters"][0]["tps_start_ts"][1:3] == [None, None]  # rank 0 reads nothing
    assert metadata["iters"][0]["start_ts"] + 0.01 <= metadata["iters"][0]["tps_start_ts"][0]


def test_one_rank_that_sends_to_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "ct.yaml"
    file.write_text("iters: 5\nwarmup_iters: 2\ntraffic_pattern: {matrix: [[5000]]}\n")
    status, said, _ = call(capsys, "ct-perftest", str(file), "--verify-buffers", "--foreground")
    assert status == 0
    assert "1 rank in 1 process" in said
    assert "Verified: all 5000 bytes of 1 pattern are right" in said
    heads = said.splitlines().index("Iters  Total time (s)  Avg latency/iter (s)  Total size (GB)")
    iterations, total, each, size = said.splitlines()[heads + 2].split()
    assert (iterations, size) == ("5", "0.000005")
    assert float(total) == pytest.approx(5 * float(each), abs=5e-6)


def test_what_is_wrong_ends_with_2_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = call(capsys, "ct-perftest", str(tmp_path / "none.yaml"))
    assert (status, len(err.splitlines())) == (2, 1)
    assert "none.yaml" in err
    status, _, err = call(capsys, "ct-perftest", str(tmp_path), "--json-output-path", "/nowhere/at/all.json")
    assert (status, len(err.splitlines())) == (2, 1)


def test_what_no_test_can_hold_is_refused_before_there_is_a_session(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KVDECK_HOME", str(tmp_path / "home"))
    file = tmp_path / "ct.yaml"
    file.write_text("traffic_pattern: {matrix: [[0, 1], [0, 0]], metadata: {a: {1: 2}}}")
    plain = tmp_path / "plain.yaml"
    plain.write_text("traffic_pattern: {matrix: [[0, 1], [0, 0]]}")
    monkeypatch.setenv("KVDECK_RENDEZVOUS_SECRET", "0123456789abcdef" * 2)
    for named, *arguments in (
        ("the key 1 is not a string", str(file)),
        ("2 ranks can't be on this host and 2 peers", str(plain), "--peer", "a", "--peer", "b"),
        ("--processes is not for ranks", str(plain), "--processes", "2", "--rendezvous", "127.0.0.1:1"),
    ):
        status, _, err = call(capsys, "ct-perftest", *arguments, "--foreground")
        assert (status, len(err.splitlines())) == (2, 1), err
        assert named in err
    assert not (tmp_path / "home" / "sessions").exists()


def test_an_interrupt_ends_with_130_and_leaves_nothing(tmp_path: Path) -> None:
    file = tmp_path / "ct.yaml"
    file.write_text("traffic_patterns: [{matrix: [[0, 5000], [0, 0]], sleep_before_launch_sec: 3600}]\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "kvdeck.app.cli.main", "sequential-ct-perftest", str(file), "--foreground"],
        stdout=subprocess.PIPE,
    )
    started: list[psutil.Process] = []
    while len(started) < 2:
        started = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate()
    assert process.returncode == 130
    assert b"cancelled" in out
    assert psutil.wait_procs(started, timeout=60)[1] == []


def test_four_ranks_of_mpirun_are_verified_to_the_byte(tmp_path: Path) -> None:
    if shutil.which("mpirun") is None:
        pytest.skip("mpirun is not installed (apt-get install openmpi-bin)")
    file = tmp_path / "traffic.yaml"
    rows = [line.split() for line in SEED.splitlines()]
    file.write_text(json.dumps({"traffic_patterns": [{"matrix": rows}, {"matrix": rows, "xfer_op": "READ"}]}))
    environment = {
        **os.environ,
        "KVDECK_HOME": str(tmp_path / "home"),
        "KVDECK_RENDEZVOUS": f"127.0.0.1:{free_port()}",
        "KVDECK_RENDEZVOUS_SECRET": "0123456789abcdef" * 2,
    }
    ended = subprocess.run(
        ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "4", sys.executable, "-m", "kvdeck.app.cli.main",
         "sequential-ct-perftest", str(file), "--verify-buffers", "--iterations", "1", "--warmup", "0",
         "--isolation-iterations", "1", "--session", "mpi"],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "4 ranks in 4 processes" in ended.stdout
    assert "Verified: all 8409088 bytes of 2 patterns are right" in ended.stdout


def test_a_test_is_a_job_of_the_engine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("KVDECK_HOME", str(home))
    monkeypatch.setenv("KVDECK_RUNTIME", str(tmp_path / "run"))
    file = tmp_path / "ct.yaml"
    file.write_text("iters: 3\ntraffic_pattern: {matrix: [[0, 5000], [0, 0]]}\n")
    out = tmp_path / "out.json"
    try:
        status, said, _ = call(capsys, "ct-perftest", str(file), "--session", "one", "--json-output-path", str(out))
        assert status == 0
        assert "Iters  Total time (s)" in said
        assert json.loads(out.read_text())["iters"] == 3
        assert json.loads((home / "sessions" / "one" / "session.json").read_text())["kind"] == "traffic"
        assert "2 ranks · 1 pattern" in call(capsys, "session", "list")[1]
    finally:
        call(capsys, "engine", "stop")


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])
