"""`kvdeck monitor --record` and `--replay`, and what `kvdeck session` makes of recordings."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from operator import itemgetter
from pathlib import Path

import orjson
import pytest

from kvdeck.sessions.store.owners import OWNER_GONE
from kvdeck.sessions.store.store import Store
from tests.app.cli.test_monitor import command
from tests.support.programs.metrics_server import MetricsServer, metrics_server, says


class Offloading:
    """A KVBM exporter whose counter grows with every answer."""

    def __init__(self, blocks: int) -> None:
        self.blocks, self._count, self._lock = blocks, itertools.count(), threading.Lock()

    def __call__(self, request: BaseHTTPRequestHandler) -> None:
        with self._lock:
            total = next(self._count) * self.blocks
        says(f"# TYPE kvbm_offload_blocks_d2h counter\nkvbm_offload_blocks_d2h {total}\n")(request)


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    with metrics_server({"/slow": Offloading(10), "/fast": Offloading(1000)}) as running:
        yield running


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "KVDECK_HOME": str(tmp_path / "home"), "KVDECK_RUNTIME": str(tmp_path / "run")}


def kvdeck(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "kvdeck.app.cli.main", *arguments]
    return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=30, check=False)


def record(
    environment: dict[str, str], server: MetricsServer, name: str, path: str = "/slow", seconds: float = 1.5
) -> str:
    """What was printed live."""
    done = kvdeck(
        environment, "monitor", "--json", "--record", name, "--hz", "10", "--seconds", str(seconds),
        "--block-bytes", "1000000", "--source", server.url(path),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"kvdeck monitor --replay {name}" in done.stderr
    return done.stdout


def test_a_replay_prints_what_was_live(environment: dict[str, str], server: MetricsServer) -> None:
    live = record(environment, server, "one")
    assert len(live.splitlines()) >= 5
    assert kvdeck(environment, "monitor", "--replay", "one", "--json").stdout == live
    last = kvdeck(environment, "monitor", "--replay", "one", "--once", "--json")
    assert orjson.loads(last.stdout) == orjson.loads(live.splitlines()[-1])
    words = kvdeck(environment, "monitor", "--replay", "one", "--speed", "0").stdout.splitlines()
    assert "G1 → G2" in words[-2]
    assert "end: the recording ended" in words[-1]
    report = kvdeck(environment, "monitor", "--replay", "one", "--once").stdout
    assert "kvbm offload_blocks_d2h" in report
    short = kvdeck(environment, "monitor", "--replay", "one", "--json", "--seconds", "0.35").stdout
    assert live.startswith(short)
    assert 0 < len(short) < len(live)


def test_replaying_takes_as_long_as_it_was_unless_told_otherwise() -> None:
    from kvdeck.app.cli.monitor_replay import LONGEST_S, _paced

    def waited(times: list[float], speed: float) -> list[float]:
        waits: list[float] = []
        list(_paced(iter([{"t": t} for t in times]), itemgetter("t"), speed, waits.append))
        return waits

    # Nobody waits here, so each wait is the whole time since the beginning.
    assert waited([5.0, 6.0, 6.5], 1) == pytest.approx([0, 1, 1.5], abs=0.2)
    assert waited([5.0, 6.0, 6.5], 10) == pytest.approx([0, 0.1, 0.15], abs=0.1)
    assert waited([5.0, 6.0], 0) == []
    assert waited([5.0, 5000.0], 1) == pytest.approx([0, LONGEST_S], abs=0.2)


def test_before_and_after_are_compared_by_flow(
    environment: dict[str, str], server: MetricsServer, tmp_path: Path
) -> None:
    record(environment, server, "before", "/slow", 4)
    record(environment, server, "after", "/fast", 4)
    listed = kvdeck(environment, "session", "list", "telemetry").stdout
    assert listed.count("G1 → G2") == 2
    diff = orjson.loads(kvdeck(environment, "session", "compare", "before", "after", "--json").stdout)
    (row,) = diff["flows"]
    assert row["trend"] == "faster"
    assert row["ratio"] == pytest.approx(100, rel=0.5)
    assert row["a"]["bytes_moved"] == row["a"]["blocks_moved"] * 1e6
    said = kvdeck(environment, "session", "compare", "after", "before", "--fail-on-regression", "10")
    assert said.returncode == 1
    assert "regression: kvbm offload_blocks_d2h" in said.stderr
    shown = kvdeck(environment, "session", "show", "after").stdout
    assert "telemetry of" in shown
    for name in ("t.csv", "t.json", "t.jsonl", "t.md", "t.kvdeck.json"):
        done = kvdeck(environment, "session", "export", "--session", "after", "-o", str(tmp_path / name))
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "t.csv").read_text().startswith("t,source,from,to,name,metric,bytes_total,")
    assert (
        kvdeck(environment, "session", "report", "-s", "after", "-f", "csv").stdout == (tmp_path / "t.csv").read_text()
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_recording_ends_properly(
    environment: dict[str, str], server: MetricsServer, number: signal.Signals
) -> None:
    process = recording(environment, server)
    process.send_signal(number)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Recorded as 'one'" in said
    session = store(environment).read("one")
    assert (session.state, session.reason) == ("done", None)
    assert session.telemetry is not None
    assert session.telemetry.moments >= 3


def test_after_kill_9_what_was_printed_is_there(environment: dict[str, str], server: MetricsServer) -> None:
    process = recording(environment, server)
    assert process.stdout is not None
    process.kill()
    printed = [line for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
    process.wait()
    session = store(environment).load("one")
    assert (session.state, session.reason) == ("interrupted", OWNER_GONE)
    replayed = kvdeck(environment, "monitor", "--replay", "one", "--json").stdout
    assert all(line in replayed for line in printed)
    assert OWNER_GONE.partition(":")[0] in kvdeck(environment, "session", "show", "one").stdout
    assert kvdeck(environment, "session", "delete", "one", "--yes").returncode == 0


def recording(environment: dict[str, str], server: MetricsServer) -> subprocess.Popen[str]:
    """A process that has recorded and printed three moments."""
    process = subprocess.Popen(
        command("--json", "--record", "one", "--hz", "10", "--source", server.url("/slow")),
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    for _ in range(3):
        assert process.stdout.readline()
    return process


def store(environment: dict[str, str]) -> Store:
    return Store(Path(environment["KVDECK_HOME"]))


def test_a_reader_that_goes_away_ends_the_recording(environment: dict[str, str], server: MetricsServer) -> None:
    process = recording(environment, server)
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(timeout=20) == 141
    assert store(environment).read("one").reason == "stdout was closed"
    assert process.stderr is not None
    process.stderr.close()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--record", "x", "--replay", "y"], "--record can't be combined with --replay"),
        (["--replay", "y", "--hz", "2"], "--hz can't be combined with --replay"),
        (["--replay", "y", "--source", "disks"], "--source can't be combined with --replay"),
        (["--replay", "y", "--prometheus", "0"], "--prometheus can't be combined with --replay"),
        (["--record", "x", "--once"], "give only one of them"),
        (["--record", "x", "--list-sources"], "give only one of them"),
        (["--record", "../x"], "is not allowed"),
        (["--record", "x", "--record-limit", "5"], "give 977 KiB or more"),
        (["--record", "x", "--record-limit", "much"], "is not a whole number"),
        (["--record", "x", "--source", "/nowhere/at/all"], "does not exist"),
        (["--record-limit", "5M"], "add --record NAME"),
        (["--speed", "2"], "add --replay NAME"),
    ],
)
def test_what_does_not_go_together_is_one_line(environment: dict[str, str], arguments: list[str], said: str) -> None:
    done = kvdeck(environment, "monitor", *arguments)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert said in done.stderr
    assert not store(environment).names()


def test_what_is_no_recording_is_said(environment: dict[str, str]) -> None:
    from kvdeck.sessions.model.records import Session

    (Path(environment["KVDECK_HOME"]) / "sessions").mkdir(parents=True)
    store(environment).keep(Session("run", "done", 1.0))
    for name, said in (("nothing", "unknown telemetry session 'nothing'"), ("run", "'run' is not a telemetry session")):
        done = kvdeck(environment, "monitor", "--replay", name)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert said in done.stderr
