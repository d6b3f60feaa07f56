"""What is printed where nothing more fits, and what is never repeated."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def kvdeck(*arguments: str, stdout: int | None = subprocess.PIPE, **environ: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "kvdeck.app.cli.main", *arguments]
    return subprocess.run(
        argv, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=60, check=False, env={**os.environ, **environ}
    )


@pytest.mark.parametrize("verb", [["sessions"], ["--help"], ["plan", "--models"], ["config", "--print"], ["doctor"]])
def test_a_full_device_is_one_sentence(verb: list[str], tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = kvdeck(*verb, stdout=full.fileno(), KVDECK_HOME=str(tmp_path))
    assert done.returncode == 1
    said = done.stderr.splitlines()[-1]
    assert said.startswith("kvdeck: can't write to stdout: No space left on device · fix: ")
    assert "Traceback" not in done.stderr
    assert "unexpected" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["monitor", "--once", "--source", "ftp://me:geheim@host:1/x"],
        ["run", "--path", "http://me:geheim@host/"],
        ["plan", "--model", "http://me:geheim@host/"],
        ["session", "show", "http://me:geheim@host/"],
    ],
)
def test_a_password_in_an_address_is_not_repeated(arguments: list[str], tmp_path: Path) -> None:
    done = kvdeck(*arguments, KVDECK_HOME=str(tmp_path))
    assert done.returncode != 0
    assert "geheim" not in done.stderr
    assert done.stderr


@pytest.mark.parametrize(
    "verb",
    [
        ["sessions"],
        ["session", "list"],
        ["session", "show", "x"],
        ["report", "x"],
        ["session", "init", "x"],
        ["engine", "start"],
        ["run", "--quick", "--path", "HostToHost"],
    ],
)
def test_a_home_that_is_a_file_is_one_sentence(verb: list[str], tmp_path: Path) -> None:
    (tmp_path / "home").write_text("not a folder")
    done = kvdeck(*verb, KVDECK_HOME=str(tmp_path / "home"), KVDECK_RUNTIME=str(tmp_path / "rt"))
    assert done.returncode in (1, 2)
    assert done.stderr.startswith("kvdeck: ")
    assert done.stderr.count("\n") == 1
    assert "unexpected" not in done.stderr


def test_whole_numbers_beyond_64_bits_are_printed_whole(capsys: pytest.CaptureFixture[str]) -> None:
    from kvdeck.app.cli.standard_output import echo_json

    echo_json({"bytes": 1 << 80, "name": "µ"})
    assert capsys.readouterr().out == '{"bytes":1208925819614629174706176,"name":"µ"}\n'
