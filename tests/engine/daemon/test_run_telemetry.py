"""Telemetry inside a run's session: of the time it ran, on the same clock, found by the run's name."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import orjson
import pytest

from kvdeck.engine.client.client import Client
from kvdeck.engine.client.run_log import SocketLog
from kvdeck.engine.protocol import RecordingsChanged
from kvdeck.engine.telemetry.recording import TelemetrySession
from kvdeck.sessions.errors import SessionError, UsageError
from kvdeck.sessions.model.records import FINAL_STATES
from kvdeck.sessions.model.run_state import RunState, advance_all
from kvdeck.sessions.store.event_log import FileLog
from kvdeck.sessions.store.owners import OWNER_GONE
from kvdeck.sessions.store.store import Store
from kvdeck.sessions.store.telemetry.annotations import is_written
from kvdeck.sessions.text.run_report import report_lines
from tests.engine.conftest import DEADLINE, eventually, kill_engine, submit
from tests.engine.telemetry.test_engine import next_snapshot
from tests.support.programs.metrics_server import MetricsServer, metrics_server, sample, says

METRICS = sample("dynamo_kvbm_metrics_host_cold.prom")


@pytest.fixture
def server():
    with metrics_server({"/metrics": says(METRICS)}) as running:
        yield running


def recorded(client: Client, server: MetricsServer, **params: object) -> str:
    """Submit a run of which telemetry is recorded."""
    name = submit(client, **params)
    assert client.record(name, hz=10, sources=(server.url(),)).data == {"session": f"{name}/telemetry"}
    return name


def until_written(client: Client, name: str) -> None:
    client.subscribe()
    for message in client.messages(DEADLINE):
        states = message.recordings if isinstance(message, RecordingsChanged) else ()
        if any(one.name == f"{name}/telemetry" and one.state in FINAL_STATES for one in states):
            return
    raise AssertionError("the recording did not end")


def recorded_well(client: Client, server: MetricsServer) -> str:
    """A run that is cancelled once its recording holds a few moments."""
    name = recorded(client, server, rounds=10_000, every=0.03)
    inside = client.store.inside(name)
    eventually(lambda: (totals := inside.load("telemetry").telemetry) is not None and totals.moments > 2)
    client.cancel(name)
    assert list(SocketLog(client, name, hz=4).follow())[-1].ends
    until_written(client, name)
    return name


def test_a_run_holds_telemetry_of_its_time_on_its_clock(client: Client, server: MetricsServer):
    name = recorded_well(client, server)
    store = client.store
    session, run = store.load(name), advance_all(RunState(name), FileLog(store.samples_path(name)).follow())
    assert orjson.loads((store.folder(name) / "session.json").read_bytes())["watched"] is None, "as without telemetry"
    recording = TelemetrySession.open(client.home, name)
    times = [moment.t for moment in recording.moments()]
    assert len(times) > 2
    assert run.first_t is not None
    assert run.last_t is not None
    first, last = run.unix_time(run.first_t), run.unix_time(run.last_t)
    assert first == run.started
    assert last is not None
    assert session.started is not None
    assert last == pytest.approx(session.ended, abs=1.0)
    assert session.started <= times[0] < last
    assert session.telemetry is not None
    assert session.telemetry.moments == len(times)
    shown = "\n".join(line.text for line in report_lines(session))
    assert f"kvdeck session {name}: cancelled" in shown
    assert "Telemetry of that time · " in shown
    assert server.url() in shown
    assert store.rebuild(name) == store.read(name)
    store.change(name, lambda found: msgspec.structs.replace(found, tags=("cold",)))
    assert store.read(name).telemetry is None
    assert store.summaries()[0].about == ""
    store.rename(name, "another")
    assert len(list(TelemetrySession.open(client.home, "another").moments())) == len(times)


def test_it_waits_with_a_queued_run_and_ends_with_one_that_is_cancelled(client: Client, server: MetricsServer):
    first = submit(client, rounds=10_000, every=0.01)
    second = recorded(client, server, rounds=10_000, every=0.01)
    inside = client.store.inside(second)
    assert inside.load("telemetry").state == "queued"
    assert not is_written(inside.folder("telemetry"))
    client.cancel(first)
    eventually(lambda: (totals := inside.load("telemetry").telemetry) is not None and totals.moments > 0)
    client.cancel(second)
    until_written(client, second)
    assert inside.read("telemetry").state == "done"


@pytest.mark.parametrize("shown", [False, True])
def test_a_run_that_ends_in_the_queue_leaves_an_empty_recording(client: Client, server: MetricsServer, shown: bool):
    if shown:  # a child with the same parameters runs, for a client
        client.subscribe()
        client.watch(10, (server.url(),))
        next_snapshot(client)
    submit(client, rounds=10_000, every=0.01)
    second = recorded(client, server, rounds=1)
    client.cancel(second)
    until_written(client, second)
    eventually(lambda: client.store.load(second).state == "cancelled")  # both ends are written at the same time
    session = client.store.load(second)
    assert session.telemetry is not None
    assert session.telemetry.moments == 0
    assert report_lines(session)


def test_a_killed_engine_leaves_both_interrupted(client: Client, server: MetricsServer):
    name = recorded(client, server, rounds=10_000, every=0.01)
    store, inside = client.store, client.store.inside(name)
    eventually(lambda: (totals := inside.load("telemetry").telemetry) is not None and totals.moments > 0)
    kill_engine(client)
    with Client.connect():
        assert store.read(name).state == "interrupted"
        eventually(lambda: inside.load("telemetry").state == "interrupted")
        assert list(TelemetrySession.open(store.home, name).moments())


def test_telemetry_whose_recorder_is_gone_says_so(tmp_path: Path):
    from kvdeck.sessions.store.telemetry import session as keeping

    store = Store(tmp_path)
    store.create("run", {}, "")
    keeping.begin(*keeping.addressed(store, "run/telemetry"))
    (store.folder("run") / "telemetry" / "owner.json").unlink()
    inside = store.inside("run").load("telemetry")
    assert (inside.state, inside.reason) == ("interrupted", OWNER_GONE)
    assert store.names() == ["run"], "what is inside is no session of its own"


def test_only_a_run_that_goes_on_is_recorded_into(client: Client, server: MetricsServer):
    name = submit(client, rounds=1)
    list(SocketLog(client, name).follow())
    with pytest.raises(UsageError, match="already exists"):
        client.record(name, sources=(server.url(),))
    with pytest.raises(SessionError, match="is not a telemetry session"):
        TelemetrySession.open(client.home, name)


def test_the_command_line_records_and_prints_both(folders: Path, server: MetricsServer):
    spec = folders / "spec.yaml"
    spec.write_text("params: {rounds: '10000', every: '0.05'}\n")
    environ = {**os.environ, "KVDECK_HOME": str(folders / "home")}

    def kvdeck(*arguments: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "kvdeck.app.cli.main", *arguments]
        return subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)

    refused = kvdeck("run", str(spec), "--record", "no such source")
    assert refused.returncode == 2, refused.stderr
    assert not (folders / "home" / "sessions").exists()
    argv = [
        sys.executable,
        "-m",
        "kvdeck.app.cli.main",
        "run",
        str(spec),
        "--session",
        "both",
        "--record",
        server.url(),
    ]
    inside = Store(folders / "home").inside("both")
    with subprocess.Popen(argv, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        eventually(lambda: inside.exists("telemetry") and (w := inside.load("telemetry").telemetry) and w.moments > 0)
        running.send_signal(signal.SIGINT)
        printed, said = running.communicate(timeout=DEADLINE)
    assert running.returncode == 130, said
    assert "Telemetry of that time" in printed
    assert kvdeck("session", "show", "both").stdout == printed
    assert orjson.loads(kvdeck("session", "show", "both", "--json").stdout)["watched"]["moments"] > 0
    lines = kvdeck("monitor", "--replay", "both", "--json").stdout.splitlines()
    assert orjson.loads(lines[0])["sources"][0]["name"] == server.url()
    assert "Telemetry of that time" in kvdeck("session", "compare", "both", "both").stdout


def test_the_monitor_replays_it(client: Client, server: MetricsServer):
    from kvdeck.app.tui.modes.monitor.replay import Replay

    name = recorded_well(client, server)
    replay = Replay(TelemetrySession.open(client.home, name))
    assert replay.go(replay.end).moment.sources[0].name == server.url()
