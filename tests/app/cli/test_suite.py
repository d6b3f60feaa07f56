"""`kvdeck suite`: logs judged on the command line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from kvdeck.app.cli.main import main

LOG = """\
$ ucx_perftest 127.0.0.1 -t ucp_put_bw -s 1048576 -n 2000
|              |              |       overhead (usec)        |   bandwidth (MB/s)  |  message rate (msg/s) |
|    Stage     | # iterations | 50.0%ile | average | overall |  average |  overall |  average  |  overall  |
Final:                  2000     70.795   627.571   556.304     1593.44    1797.58        1593        1798
"""


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["suite", *arguments])
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "client.txt"
    path.write_text(LOG)
    return path


@pytest.mark.parametrize(
    ("options", "exit_status", "status"),
    [
        (["--expect", "1.8GB/s", "--bound", "p5.48xlarge/nic"], 0, "PASS"),
        (["--expect", "3GB/s"], 0, "DEGRADED"),
        (["--expect", "12GB/s"], 1, "FAIL"),
        (["--bound", "10Gb/s"], 1, "SUSPECT"),
        ([], 0, "SKIP"),
    ],
)
def test_status_and_exit(
    log: Path, capsys: pytest.CaptureFixture[str], options: list[str], exit_status: int, status: str
) -> None:
    code, out, _ = call(capsys, "check", str(log), *options)
    assert (code, status in out, "1.88 GB/s (15.1 Gb/s)" in out) == (exit_status, True, True)
    code, out, _ = call(capsys, "check", str(log), *options, "--json")
    (row,) = json.loads(out)
    assert (code, row["status"], row["message_bytes"]) == (exit_status, status, 1_048_576)


def test_a_suite_is_planned_run_reported_and_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, folder = tmp_path / "suite.yaml", tmp_path / "out"
    file.write_text("name: s\nvars: {code: 0}\nsteps:\n  - {id: a, kind: shell, argv: [sh, -c, 'exit ${code}']}\n")
    assert "sh -c 'exit 0'" in call(capsys, "plan", str(file))[1]
    assert not folder.exists()
    status, out, _ = call(capsys, "run", str(file), "--output", str(folder))
    assert (status, "1 PASS" in out) == (0, True)
    assert call(capsys, "run", str(file), "--output", str(folder))[0] == 2, "its results are not overwritten"
    status, out, _ = call(capsys, "run", str(file), "--output", str(folder), "--resume", "--json")
    assert (status, json.loads(out)["results"][0]["status"]) == (0, "PASS")
    assert call(capsys, "report", str(folder))[0] == 0
    two = tmp_path / "two"
    file.write_text(file.read_text() + "  - {id: b, kind: shell, argv: [true]}\n".replace("true", "'true'"))
    assert "1 PASS · 1 SKIP" in call(capsys, "run", str(file), "--step", "b", "--output", str(two))[1]
    assert "2 PASS" in call(capsys, "run", str(file), "--resume", "--output", str(two))[1]
    assert {"results.json", "report.md", "junit.xml"} <= {path.name for path in folder.iterdir()}
    assert call(capsys, "run", str(file), "--var", "code=3", "--output", str(tmp_path / "failed"))[0] == 1


@pytest.mark.parametrize(
    "arguments",
    [["run", "nope"], ["plan", "/dev/zero"], ["run", "local", "--var", "x"], ["run", "local", "--step", "nope"],
     ["run", "local", "--resume"], ["report", "."], ["plan", "local", "--var", "colour=red"]],
)  # fmt: skip
def test_wrong_arguments_are_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = call(capsys, *arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)


def test_a_size_that_no_result_has_is_an_error(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "check", str(log), "--size", "1M")[0] == 0
    status, _, err = call(capsys, "check", str(log), "--size", "2M")
    assert (status, err.count("\n")) == (2, 1)


def test_bounds_are_listed_with_their_sources(capsys: pytest.CaptureFixture[str]) -> None:
    assert "p5.48xlarge/nic" in call(capsys, "bounds")[1]
    rows = json.loads(call(capsys, "bounds", "--json")[1])
    assert all(row["source"] for row in rows)


def test_odd_files_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "empty").touch()
    (tmp_path / "bytes").write_bytes(bytes(range(256)) * 10)
    (tmp_path / "error").write_text("[1.0] [vm:1:0] perftest.c:405  UCX  ERROR \x1b]0;x\x07 refused\n")
    for name in ("fifo", "empty", "bytes", "error", "missing", "."):
        status, out, err = call(capsys, "check", str(tmp_path / name))
        assert (status, out, err.count("\n")) == (2, "", 1), name
        assert "\x1b" not in err
