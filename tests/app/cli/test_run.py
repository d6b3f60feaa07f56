"""Runs from the command line, with the real engine and the real worker."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest

SMALL = ("--path", "HostToHost", "--layers", "2", "--page-size", "4", "--blocks", "32", "--batch", "4")
SHORT = (*SMALL, "--iterations", "8", "--warmup-seconds", "0.01")
LONG = (*SMALL, "--seconds", "120")
DEADLINE = 30.0


@dataclass(frozen=True)
class Place:
    """A home and a runtime folder that no one else uses."""

    home: Path
    runtime: Path

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "KVDECK_HOME": str(self.home), "KVDECK_RUNTIME": str(self.runtime)}

    def start(self, *arguments: str, **more: Any) -> subprocess.Popen[str]:
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
        command = [sys.executable, "-m", "kvdeck.app.cli.main", *arguments]
        return subprocess.Popen(command, env=self.environment, stdin=subprocess.DEVNULL, text=True, **streams)

    def kvdeck(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        child = self.start(*arguments)
        out, err = child.communicate(timeout=DEADLINE)
        return subprocess.CompletedProcess(arguments, child.returncode, out, err)

    def status(self) -> dict[str, Any]:
        return json.loads(self.kvdeck("engine", "status", "--json").stdout)

    def worker(self, session: str) -> int:
        """Pid of the session's worker, once it has one."""
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline:
            for run in self.status()["runs"]:
                if run["session"] == session and run["pid"]:
                    return int(run["pid"])
        raise AssertionError(f"{session} has no worker")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("cli")
    made = Place(folder / "home", folder / "run")
    yield made
    made.kvdeck("engine", "stop", "--force")


@contextlib.contextmanager
def long_run(place: Place, session: str, *more: str) -> Iterator[subprocess.Popen[str]]:
    """A run in the middle of its measurement, cancelled afterwards if it isn't over."""
    child = place.start("run", *LONG, "--session", session, *more)
    try:
        assert child.stderr is not None
        read_until(child.stderr, "steps on")
        yield child
    finally:
        child.kill()
        child.communicate()
        place.kvdeck("cancel", session)


def read_until(stream: IO[str], text: str) -> str:
    """The first line with `text`; the child's own end, or pytest's limit, ends the waiting."""
    for line in stream:
        if text in line:
            return line
    raise AssertionError(f"no line with {text!r}")


def test_a_run_reports_and_is_kept(place: Place) -> None:
    done = place.kvdeck("run", *SHORT, "--session", "first")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("kvdeck session first: done")
    assert re.search(r"LayerSeparate takes [\d.]+× the time of FullyContiguous", done.stdout)
    assert "HostToHost LayerSeparate 32 KiB × 4: " in done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 100

    for verb in ("attach", "report"):
        again = place.kvdeck(verb, "first")
        assert (again.returncode, again.stdout) == (0, done.stdout), again.stderr
    assert re.search(r"^ *first +run +done ", place.kvdeck("sessions").stdout, re.MULTILINE)

    taken = place.kvdeck("run", *SHORT, "--session", "first")
    assert taken.returncode == 2
    assert "'first'" in taken.stderr.splitlines()[-1]


def test_json_is_one_object_with_what_was_promised(place: Place) -> None:
    done = place.kvdeck("run", *SHORT, "--json", "--layout", "fc", "--layout", "ls")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["state"] == "done"
    assert shown["spec"]["iterations"] == 8
    contiguous, separate = shown["results"]
    assert (contiguous["descriptors_per_block"], separate["descriptors_per_block"]) == (1, 4)
    for result in shown["results"]:
        assert (result["path"], result["status"], result["verified"]) == ("HostToHost", "ok", True)
        assert result["iterations"] == 8
        assert result["bytes"] == 8 * 4 * result["block_bytes"] == 8 * 4 * 32768
        assert set(result["transfer_us"]) == {"p50", "p90", "p95", "p99", "max", "mean"}
        assert result["gb_per_s"]["low"] <= result["gb_per_s"]["median"] <= result["gb_per_s"]["high"]
        assert result["efficiency"] == pytest.approx(result["gb_per_s"]["median"] / result["reference_gb_per_s"])
    (comparison,) = shown["comparisons"]
    assert (comparison["baseline"], comparison["candidate"]) == (contiguous["layout"], separate["layout"])
    assert comparison["verdict"] in ("faster", "slower", "no difference", "undecided")


def test_a_detached_run_is_followed_later(place: Place) -> None:
    left = place.kvdeck("run", *SHORT, "--detach", "--json")
    assert left.returncode == 0, left.stderr
    session = json.loads(left.stdout)["session"]
    done = place.kvdeck("attach", session, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["state"] == "done"


def test_a_path_that_could_not_run_is_status_1(place: Place) -> None:
    done = place.kvdeck("run", *SHORT, "--backend", "NO_SUCH_PLUGIN")
    assert done.returncode == 1, done.stdout
    assert "NO_SUCH_PLUGIN" in done.stdout


def test_ctrl_c_cancels_and_keeps_what_was_measured(place: Place) -> None:
    with long_run(place, "cancelled", "--json") as child:
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=DEADLINE)
        assert child.returncode == 130
        assert "cancelling" in err
        shown = json.loads(out)
        assert (shown["session"], shown["state"]) == ("cancelled", "cancelled")
        assert {result["status"] for result in shown["results"]} == {"cancelled"}
        assert place.status()["running"]


def test_a_second_ctrl_c_leaves_the_run_to_the_engine(place: Place) -> None:
    with long_run(place, "left") as child:
        worker = place.worker("left")
        os.kill(worker, signal.SIGSTOP)  # so that it can't end between the two
        try:
            child.send_signal(signal.SIGINT)
            assert child.stderr is not None
            read_until(child.stderr, "cancelling")
            child.send_signal(signal.SIGINT)
            out, err = child.communicate(timeout=DEADLINE)
        finally:
            os.kill(worker, signal.SIGCONT)
        assert child.returncode == 130
        assert out == ""
        assert "kvdeck attach left" in err
        done = place.kvdeck("attach", "left", "--json")
        assert done.returncode == 130
        assert json.loads(done.stdout)["state"] == "cancelled"


def test_a_dead_engine_is_said_and_nothing_is_lost(place: Place) -> None:
    with long_run(place, "orphan") as child:
        os.kill(place.status()["pid"], signal.SIGKILL)
        out, err = child.communicate(timeout=DEADLINE)
        assert child.returncode == 1
        assert out == ""
        assert err.splitlines()[-1].startswith("kvdeck: the engine ended during the run")
        assert "kvdeck session show orphan" in err
        assert place.kvdeck("engine", "start").returncode == 0
        done = place.kvdeck("report", "orphan", "--json")
        assert json.loads(done.stdout)["state"] in ("cancelled", "interrupted")


def test_a_dead_worker_fails_the_run(place: Place) -> None:
    with long_run(place, "crashed", "--json") as child:
        os.kill(place.worker("crashed"), signal.SIGKILL)
        out, _ = child.communicate(timeout=DEADLINE)
        assert child.returncode == 1
        assert json.loads(out)["state"] == "crashed"


def test_a_queued_run_says_its_place_and_can_be_cancelled(place: Place) -> None:
    with long_run(place, "before"):
        child = place.start("run", *SHORT, "--session", "after", "--json")
        assert child.stderr is not None
        assert "position 1" in read_until(child.stderr, "queued")
        child.send_signal(signal.SIGINT)
        out, _ = child.communicate(timeout=DEADLINE)
        assert child.returncode == 130
        assert json.loads(out)["state"] == "cancelled"
        refused = place.kvdeck("engine", "stop")
        assert refused.returncode == 1
        assert refused.stderr.startswith("kvdeck: ")
        assert len(refused.stderr.splitlines()) == 1


def test_a_run_is_cancelled_by_name(place: Place) -> None:
    with long_run(place, "by-name", "--json") as child:
        assert place.kvdeck("cancel", "by-name").returncode == 0
        out, _ = child.communicate(timeout=DEADLINE)
        assert child.returncode == 130
        assert json.loads(out)["state"] == "cancelled"
        again = place.kvdeck("cancel", "by-name")
        assert again.returncode == 1
        assert "by-name" in again.stderr


def test_a_closed_stdout_is_no_trouble(place: Place) -> None:
    child = place.start("report", "first")
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.close()
    assert child.wait(DEADLINE) == 141
    assert child.stderr.read() == ""
    child.stderr.close()


def test_progress_rewrites_one_line_on_a_terminal(place: Place) -> None:
    master, slave = pty.openpty()
    child = place.start("run", *SMALL, "--seconds", "1", stderr=slave)
    os.close(slave)
    drawn = bytearray()
    with contextlib.suppress(OSError):  # how a pty says that its other side is closed
        while chunk := os.read(master, 65536):
            drawn += chunk
    os.close(master)
    child.communicate(timeout=DEADLINE)
    assert child.returncode == 0
    lines = [line.removesuffix("\x1b[K") for line in drawn.decode().split("\r") if line.endswith("\x1b[K")]
    assert any(re.search(r"^ *\d+ % · .* left · HostToHost \w+ .*· .* GB/s", line) for line in lines)
    assert max(map(len, lines)) < 80
    assert drawn.endswith(b"\r\x1b[K"), "the line is taken away before the report"


def test_the_engine_has_its_verbs(place: Place) -> None:
    place.kvdeck("engine", "stop", "--force")
    assert place.kvdeck("engine", "status").returncode == 1
    assert place.status() == {"running": False}
    started = place.kvdeck("engine", "start")
    assert started.returncode == 0, started.stderr
    shown = place.kvdeck("engine", "status")
    assert shown.returncode == 0
    assert str(place.status()["pid"]) in shown.stdout
    assert str(place.home) in shown.stdout
    log = place.kvdeck("engine", "log", "-n", "1")
    assert len(log.stdout.splitlines()) == 1
    assert place.kvdeck("engine", "stop").returncode == 0
    assert "no engine" in place.kvdeck("engine", "stop").stdout


@pytest.mark.parametrize("verb", ["attach", "report"])
def test_a_session_that_is_not_there(place: Place, verb: str) -> None:
    done = place.kvdeck(verb, "nowhere")
    assert done.returncode in (1, 2)
    (line,) = done.stderr.splitlines()
    assert "'nowhere'" in line
