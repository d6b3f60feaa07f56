"""Recordings through the engine: the sampling child writes them, and they outlive screens, children and the engine."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from kvdeck.engine.client.client import Client
from kvdeck.engine.protocol import RecordingsChanged, RecordingState, WatchSample
from kvdeck.engine.telemetry.recording import TelemetryRecorder, TelemetrySession
from kvdeck.engine.telemetry.sample import Flow, Snapshot
from kvdeck.engine.telemetry.tracker import SourceStatus
from kvdeck.sessions.errors import EngineError, SessionError, UsageError
from kvdeck.sessions.store.catalogue import catalogue
from kvdeck.sessions.store.owners import OWNER_GONE
from kvdeck.sessions.store.store import Store
from kvdeck.sessions.store.telemetry.annotations import is_written
from kvdeck.sessions.store.telemetry.session import added_up
from tests.engine.conftest import DEADLINE, eventually, kill_engine
from tests.engine.telemetry.test_engine import samplers
from tests.support.programs.metrics_server import MetricsServer, metrics_server, sample, says

COLD, REPEAT = sample("dynamo_kvbm_metrics_host_cold.prom"), sample("dynamo_kvbm_metrics_host_repeat.prom")


@pytest.fixture
def server():
    with metrics_server({"/metrics": says(COLD)}) as running:
        yield running


def recording(client: Client, name: str, true: Callable[[RecordingState], bool]) -> RecordingState:
    """The first state of a recording that is so."""
    for message in client.messages(DEADLINE):
        if isinstance(message, RecordingsChanged):
            for state in message.recordings:
                if state.name == name and true(state):
                    return state
    raise AssertionError("it did not come about")


def ended(state: RecordingState) -> bool:
    return state.state not in ("queued", "running")


def moments(client: Client, count: int) -> list[bytes]:
    """The next moments that are watched, as JSON, without the times that only a client needs."""
    found = []
    for message in client.messages(DEADLINE):
        if isinstance(message, WatchSample):
            assert 0 < message.snapshot.pop("since_ns") < message.snapshot.pop("at_ns")
            found.append(orjson.dumps(message.snapshot))
            if len(found) == count:
                return found
    raise AssertionError("nothing came")


def begun(client: Client, server: MetricsServer, name: str = "one", **more: object) -> None:
    client.subscribe()
    client.record(name, 10, [server.url()], **more)  # type: ignore[arg-type]
    eventually(lambda: bool(Store(client.home).load(name).telemetry.moments))  # type: ignore[union-attr]


def test_what_is_replayed_is_what_was_watched(client: Client, server: MetricsServer) -> None:
    client.watch(10, [server.url()], 4096.0, ["kvbm_matched_tokens"])
    begun(client, server, block_bytes=4096.0, pins=["kvbm_matched_tokens"])
    assert len(samplers(client)) == 1, "watcher and recording share a child"
    seen = moments(client, 5)
    server.handlers["/metrics"] = says(REPEAT)
    seen += moments(client, 10)
    client.annotate("one", "load started")
    client.stop_recording("one")
    state = recording(client, "one", ended)
    assert (state.state, state.reason) == ("done", None)
    found = TelemetrySession.open(client.home, "one")
    kept = [orjson.dumps(moment) for moment in found.mappings()]
    assert set(seen) - set(kept) <= set(seen[:2]), "all that was seen since it began is kept, to the byte"
    assert [mark.text for mark in found.marks] == ["load started", "the recording ended"]
    assert not found.live
    last = found.at(found.end)
    assert last is not None
    assert last.pinned[0].name == "kvbm_matched_tokens"
    assert found.session.telemetry is not None
    moved = {flow.metric: flow.blocks_moved for flow in found.session.telemetry.flows}
    assert moved["kvbm_onboard_blocks_h2d"] == 28


def test_a_recording_outlives_the_client_that_asked_for_it(client: Client, server: MetricsServer) -> None:
    begun(client, server)
    client.close()
    with Client.connect(start=False) as other:
        other.subscribe()
        assert recording(other, "one", lambda state: state.state == "running")
        (pid,) = samplers(other)
        live = TelemetrySession.open(other.home, "one")
        assert live.live
        first = live.end
        eventually(lambda: live.refresh() is None and live.end > first)
        with pytest.raises(EngineError, match="a recording is in progress: one"):
            other.stop()
        other.stop_recording("one")
        recording(other, "one", ended)
        eventually(lambda: pid not in samplers(other))


def test_stopping_the_engine_ends_recordings_properly(client: Client, server: MetricsServer) -> None:
    begun(client, server)
    client.stop(force=True)
    session = Store(client.home).read("one")
    assert (session.state, session.reason) == ("done", "the engine was stopped")
    assert not list((client.home / "active").glob("*"))


def test_a_killed_engine_s_recording_says_so(client: Client, server: MetricsServer) -> None:
    begun(client, server)
    kill_engine(client)
    folder = Store(client.home).folder("one")
    eventually(lambda: not is_written(folder))
    with Client.connect() as other:
        other.subscribe()
        session = Store(other.home).read("one")
        assert (session.state, session.reason) == ("interrupted", "the engine ended during the recording")
        assert session.telemetry is not None
        assert session.telemetry.moments > 0
        assert [run.session for run in other.hello.runs] == [], "a recording is no run"


def test_when_both_were_killed_the_next_engine_says_so(client: Client, server: MetricsServer) -> None:
    begun(client, server)
    (pid,) = samplers(client)
    os.kill(pid, signal.SIGSTOP)
    kill_engine(client)
    os.kill(pid, signal.SIGKILL)
    store = Store(client.home)
    eventually(lambda: not is_written(store.folder("one")))
    assert catalogue(store)[0].state == "interrupted"
    with Client.connect():
        session = store.read("one")
        assert (session.state, session.reason) == ("interrupted", OWNER_GONE)


def test_a_killed_child_costs_a_gap_and_no_recording(client: Client, server: MetricsServer) -> None:
    begun(client, server)
    killed: set[int] = set()
    for _ in range(3):  # the pause before the third restart, 4 s, is longer than what counts as a gap
        eventually(lambda: bool(set(samplers(client)) - killed))
        (pid,) = set(samplers(client)) - killed
        os.kill(pid, signal.SIGKILL)
        killed.add(pid)
    found = TelemetrySession.open(client.home, "one")
    before = found.end
    eventually(lambda: found.refresh() is None and found.end > before + 1)
    client.stop_recording("one")
    assert recording(client, "one", ended).state == "done"
    found.refresh()
    assert any(mark.kind == "gap" and "no samples for" in mark.text for mark in found.marks)
    session = Store(client.home).read("one")
    assert session.telemetry is not None
    assert session.telemetry.moments == len(list(found.moments())), "what came before the kill is added up too"


def test_a_recording_can_be_ended_while_its_child_is_down(client: Client, server: MetricsServer) -> None:
    begun(client, server)
    (pid,) = samplers(client)
    os.kill(pid, signal.SIGKILL)
    folder = Store(client.home).folder("one")
    eventually(lambda: not is_written(folder) and pid not in samplers(client))
    client.cancel("one")
    assert recording(client, "one", ended).state == "done"
    session = Store(client.home).read("one")
    assert session.state == "done"
    assert session.telemetry is not None
    assert session.telemetry.moments > 0
    assert [state["state"] for state in client.status()["recordings"]] == ["done"]


def test_what_can_t_be_recorded_is_refused(client: Client, server: MetricsServer) -> None:
    begun(client, server)
    for name, said in (("one", "already exists"), ("../x", "is no recording's name")):
        with pytest.raises(UsageError, match=said):
            client.record(name, 10, [server.url()])
    for more in ({"hz": 0.0}, {"hz": 99.0}, {"block_bytes": -1.0}, {"limit_bytes": 5}):
        with pytest.raises(UsageError):
            client.record("two", **more)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="must not carry a user or password"):
        client.record("two", 1, ["http://me:secret@host:1/metrics"])
    for what in (lambda: client.stop_recording("two"), lambda: client.annotate("two", "x")):
        with pytest.raises((SessionError, EngineError), match="isn't recording a telemetry session 'two'"):
            what()
    with pytest.raises(UsageError, match="annotation is empty"):
        client.annotate("one", "  ")
    assert not Store(client.home).exists("two")
    with Client.connect() as looking:
        looking.subscribe(readonly=True)
        with pytest.raises(EngineError, match="read-only"):
            looking.record("three")


def test_sources_that_cannot_be_end_the_recording_with_a_word(client: Client) -> None:
    client.subscribe()
    client.record("bad", 1, ["/nowhere/at/all"])
    state = recording(client, "bad", ended)
    assert state.state == "failed"
    assert "does not exist" in (state.reason or "")
    session = Store(client.home).read("bad")
    assert (session.state, session.reason) == ("failed", state.reason)
    eventually(lambda: not samplers(client))


def test_a_client_that_does_not_read_costs_no_moment(client: Client, server: MetricsServer) -> None:
    """Log first: what a slow client misses, and is told that it missed, is in the file."""
    begun(client, server)
    with Client.connect() as slow:
        slow.watch(10, [server.url()])
        found = TelemetrySession.open(client.home, "one")
        begin = found.end
        eventually(lambda: found.refresh() is None and found.end > begin + 2)
        slow.watch(0)
        client.stop_recording("one")
        recording(client, "one", ended)
        got = []
        while isinstance(message := slow.receive(0), WatchSample):
            got.append(message)
        found.refresh()
        first, last = got[0].snapshot["t"], got[-1].snapshot["t"]
        assert len(list(found.mappings(first, last))) == len(got) + sum(message.missed for message in got[1:])


@pytest.mark.parametrize(
    "moment",
    [
        {"t": 2.0},
        {"t": 2.0, "flows": [{}]},
        {"t": 2.0, "flows": [{"from": "G1"}], "sources": [{"name": 3}]},
        {"t": 2.0, "sources": [{"name": "s", "kind": "kvbm", "state": "live", "reason": "", "age_s": 1.0, "newer": 1}]},
        {"t": 2.0, "checks": [{"id": "x"}], "pinned": [{"value": None}]},
    ],
)
def test_foreign_moments_are_read_or_passed_over(tmp_path: Path, moment: dict[str, object]) -> None:
    recorder = TelemetryRecorder.begin(tmp_path, "one")
    recorder.take(Snapshot(1.0))
    recorder.take_json(2.0, orjson.dumps(moment))
    recorder.take(Snapshot(3.0))
    recorder.close()
    found = TelemetrySession.open(tmp_path, "one")
    times = [snapshot.t for snapshot in found.moments()]
    assert times in ([1.0, 3.0], [1.0, 2.0, 3.0])
    assert [one["t"] for one in found.mappings()] == [1.0, 2.0, 3.0]
    with contextlib.suppress(SessionError):
        assert found.at(2.5) is not None


def test_a_full_disk_keeps_no_recording_from_ending(tmp_path: Path) -> None:
    recorder = TelemetryRecorder.begin(tmp_path, "one")
    recorder.take(Snapshot(1000.0))
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, recorder._writer._marks)  # what is written there fails as on a full disk
    recorder.close()
    os.close(full)
    session = Store(tmp_path).read("one")
    assert (session.state, session.reason) == ("done", None)
    assert (Store(tmp_path).folder("one") / "summary.json").exists()
    assert not is_written(Store(tmp_path).folder("one"))


def test_a_restart_is_noted_once_in_the_recording(tmp_path: Path) -> None:
    recorder = TelemetryRecorder.begin(tmp_path, "one")
    status = SourceStatus("a", "vllm", "live", "", 0.1)
    restarted = replace(status, state="reset", reason="restarted at 01:28:20; totals begin again")
    for second, source in enumerate(
        (status, restarted, restarted, status, replace(restarted, reason="restarted again"))
    ):
        recorder.take(Snapshot(float(second), (source,)))
    marks = [(mark.t, mark.text) for mark in TelemetrySession.open(tmp_path, "one").marks if mark.kind == "restart"]
    assert marks == [(1.0, "a restarted at 01:28:20; totals begin again"), (4.0, "a restarted again")]
    recorder.close()


def test_a_flow_that_begins_in_a_recording_is_counted_whole(tmp_path: Path) -> None:
    """vLLM's labelled counters are absent before their first use: what they grew by then belongs to the recording."""
    recorder = TelemetryRecorder.begin(tmp_path, "one")
    source = SourceStatus("a", "vllm", "live", "", 0.1, over_s=1.0)
    store = Flow("a", "store", "G1", "G2", "m", "c", bytes_total=9e9, bytes_gained=2e9, bytes_per_s=0.0)
    load = Flow("a", "load", "G2", "G1", "m", "c", bytes_total=3e9, bytes_gained=3e9, bytes_per_s=3e9)
    recorder.take(Snapshot(0.0, (source,), (store,)))
    recorder.take(Snapshot(1.0, (source,), (store, load)))
    recorder.close()
    flows = {flow.name: flow for flow in added_up(tmp_path / "sessions" / "one").flows}
    assert (flows["store"].bytes_moved, flows["load"].bytes_moved) == (0.0, 3e9)
    assert (flows["load"].moving_s, flows["load"].rate.median) == (1.0, 3e9)
