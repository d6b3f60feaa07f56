"""Odd hosts: no home, no terminal to draw on, variables that decide, a control group of little memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kvdeck.sessions.model.records import Session
from kvdeck.sessions.text.run_report import report_lines

NO_HOME = """
import os, pwd, sys
def no(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = no
from kvdeck.app.cli.main import main
main()
"""
VERBS = (
    *(["plan", "--model", "qwen3-0.6b", "--isl", "64"], ["sessions"], ["config"], ["session", "list"]),
    *(
        ["session", "status"],
        ["engine", "status"],
        ["monitor", "--list-sources"],
        ["kvcache", "--model", "~/none.yaml"],
    ),
)


@pytest.mark.parametrize("home", [None, ""])
@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_without_a_home_every_verb_works_or_says_a_sentence(tmp_path: Path, home: str | None, verb: list[str]):
    """What a uid without passwd entry sees: `pwd` knows nobody here."""
    environment = {key: value for key, value in os.environ.items() if key not in ("HOME", "KVDECK_HOME")} | {
        "TMPDIR": str(tmp_path)
    }
    if home is not None:
        environment["HOME"] = home
    argv = [sys.executable, "-c", NO_HOME, *verb]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60)
    assert "unexpected" not in done.stderr
    assert "Traceback" not in done.stderr
    assert "has no home folder" in done.stderr
    if verb[0] not in ("kvcache", "session", "engine"):
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("term", ["dumb", "DUMB", "", None, "unknown"])
def test_a_terminal_that_cannot_be_drawn_on_gets_a_sentence(tmp_path: Path, term: str | None):
    import pty

    environment = {key: value for key, value in os.environ.items() if key != "TERM"} | {"KVDECK_HOME": str(tmp_path)}
    if term is not None:
        environment["TERM"] = term
    master, slave = pty.openpty()
    argv = [sys.executable, "-m", "kvdeck.app.cli.main"]
    done = subprocess.Popen(argv, env=environment, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    text = b""
    try:
        while data := os.read(master, 4096):
            text += data
    except OSError:
        pass
    os.close(master)
    assert done.wait(30) == 2
    assert b"\x1b" not in text
    assert b"set TERM" in text
    assert text.count(b"\n") == 1


def test_variables_that_decide_are_shown_by_doctor_and_named_where_they_break_a_run(tmp_path: Path):
    environment = {**os.environ, "KVDECK_HOME": str(tmp_path / "h"), "KVDECK_RUNTIME": str(tmp_path / "r"),
                   "UCX_NET_DEVICES": "mlx5_0:1", "UCX_TLS": "rc", "NIXL_SECRET_TOKEN": "hush"}  # fmt: skip

    def kvdeck(*arguments: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "kvdeck.app.cli.main", *arguments]
        return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=90)

    try:
        shown = kvdeck("doctor").stdout
        assert "UCX_NET_DEVICES=mlx5_0:1" in shown
        assert "hush" not in shown
        assert json.loads(kvdeck("doctor", "--json").stdout)["environment"]["UCX_TLS"] == "rc"
        run = kvdeck("run", "--path", "HostToHost", "--block-size", "4096", "--iterations", "5")
        assert run.returncode == 1
        assert "UCX_NET_DEVICES=mlx5_0:1" in " ".join((run.stdout + run.stderr).split())
    finally:
        kvdeck("engine", "stop", "--force")


def test_a_control_group_of_little_memory_is_not_0_gib():
    lines = report_lines(Session("x", "done", 1.0, host={"memory_bytes": 400 << 20}), 100)
    text = "\n".join(line.text for line in lines)
    assert "400 MiB of memory" in text
    assert "0 GiB" not in text


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"UCX_TLS": "rc", "UCX_LOG_LEVEL": "error"}, "UCX_TLS=rc"),
        ({"NIXL_PLUGIN_DIR": "/nonexistent"}, "NIXL_PLUGIN_DIR=/nonexistent"),
        ({"NIXL_PLUGIN_DIR": ""}, "NIXL_PLUGIN_DIR="),
        ({"NIXL_PLUGIN_DIR": "/"}, "NIXL_PLUGIN_DIR=/"),
    ],
)
@pytest.mark.parametrize("path", ["HostToHost", "HostToDisk"])
def test_what_the_environment_decides_is_named(tmp_path: Path, variables: dict[str, str], named: str, path: str):
    if path == "HostToDisk" and "UCX_TLS" in variables:
        return  # no matter there
    own = {"KVDECK_HOME": str(tmp_path / "h"), "KVDECK_RUNTIME": str(tmp_path / "r")}
    environment = {**os.environ, **own, **variables}

    def kvdeck(*arguments: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "kvdeck.app.cli.main", *arguments]
        return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=90)

    try:
        report = json.loads(kvdeck("doctor", "--json").stdout)
        row = next(row for row in report["paths"] if row["path"] == path)
        assert named in row["reason"]
        run = kvdeck("run", "--path", path, "--block-size", "4096", "--iterations", "5")
        assert run.returncode == 1
        for text in (run.stdout, run.stderr):
            assert named in " ".join(text.split())
        assert "Traceback" not in run.stderr
    finally:
        kvdeck("engine", "stop", "--force")


@pytest.mark.parametrize("path", ["HostToDisk", "DiskToHost"])
def test_a_run_that_asks_for_o_direct_says_what_doctor_says(tmp_path: Path, path: str):
    """The kernel refuses O_DIRECT for every process started here, as some filesystems do."""
    own = {"KVDECK_HOME": str(tmp_path / "h"), "KVDECK_RUNTIME": str(tmp_path / "r")}
    refusing = Path(__file__).parents[2] / "tests" / "support/programs/kernel_without_direct.py"

    def kvdeck(*arguments: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, str(refusing), sys.executable, "-m", "kvdeck.app.cli.main", *arguments]
        return subprocess.run(argv, env={**os.environ, **own}, capture_output=True, text=True, timeout=90)

    try:
        report = json.loads(kvdeck("doctor", "--json").stdout)
        row = next(row for row in report["paths"] if (row["path"], row["backend"]) == (path, "POSIX"))
        assert "doesn't support O_DIRECT" in row["reason"]
        asked = ("run", "--path", path, "--block-size", "4096", "--iterations", "5")
        run = kvdeck(*asked, "--direct")
        assert run.returncode == 1
        assert f"{row['reason']} · fix: {row['fix']}" in " ".join(run.stderr.split())
        assert "Errno" not in run.stdout + run.stderr
        assert kvdeck(*asked).returncode == 0
    finally:
        kvdeck("engine", "stop", "--force")


@pytest.mark.parametrize(
    "arguments",
    [
        ("doctor", "--folder", "~nobody-of-that-name/x"),
        ("run", "--folder", "~nobody-of-that-name/x"),
        ("plan", "--model", "~nobody-of-that-name/config.json", "--isl", "64"),
    ],
)
def test_a_home_that_nobody_has_is_one_sentence(arguments: tuple[str, ...]):
    argv = [sys.executable, "-m", "kvdeck.app.cli.main", *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "~nobody-of-that-name has no home folder · fix: write the path in full" in line


def test_such_a_home_in_the_config_file_stops_nothing(tmp_path: Path):
    (tmp_path / "config.yaml").write_text("folder: ~nobody-of-that-name/x\n")
    argv = [sys.executable, "-m", "kvdeck.app.cli.main", "sessions"]
    environment = {**os.environ, "KVDECK_CONFIG": str(tmp_path / "config.yaml")}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "has no home folder" in done.stderr
