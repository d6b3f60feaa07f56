"""`kvdeck doctor`, on this very host."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from kvdeck.app.cli.doctor import doctor_lines
from kvdeck.sessions.model.records import PATHS


def doctor(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kvdeck.app.cli.main", "doctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    done = doctor("--json")
    shown = json.loads(done.stdout)
    assert done.returncode == (0 if shown["ready"] else 1), done.stderr
    return shown


def test_json_says_every_path_and_why_not(report: dict[str, Any]) -> None:
    assert {row["path"] for row in report["paths"]} == set(PATHS)
    for row in report["paths"]:
        assert row["state"] in ("ready", "degraded", "unavailable")
        if row["state"] == "unavailable":
            assert row["reason"]
            assert row["fix"]
        assert row["mend"] == row["fix"], "programs written for kvdeck 0.1 read `mend`"
    assert report["ready"] == any(row["state"] == "ready" for row in report["paths"])
    assert {"UCX", "POSIX"} <= {plugin["name"] for plugin in report["plugins"]}


@pytest.mark.parametrize("width", [80, 100])
def test_text_has_a_row_for_each_path_and_backend(report: dict[str, Any], width: int) -> None:
    lines = [line.text for line in doctor_lines(report, width)]
    assert max(map(len, lines)) <= width
    for row in report["paths"]:
        assert any(line.split()[:3] == [row["path"], row["backend"], row["state"]] for line in lines)
    shown = " ".join(" ".join(lines).split())
    for row in (*report["paths"], *report["plugins"]):
        for text in (row["reason"], row["fix"]):
            assert text is None or " ".join(text.split()) in shown


def test_nothing_ready_is_said_in_words() -> None:
    row = {"path": "HostToHost", "backend": "UCX", "state": "unavailable", "reason": "no NIXL", "fix": "install it"}
    lines = doctor_lines({"kvdeck": "0", "host": {}, "paths": [row], "plugins": [], "ready": False}, 80)
    assert lines[-1].text == "No path is ready here."
    assert any(line.text.endswith("no NIXL [1]") for line in lines)
    assert any(line.text == "  [1] install it" for line in lines)


def test_a_folder_that_is_not_there_is_refused() -> None:
    done = doctor("--folder", "not-here")
    assert done.returncode == 2
    assert "not-here" in done.stderr
