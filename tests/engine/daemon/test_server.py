"""The engine as its clients see it: runs, late and slow and read-only clients, and what it refuses."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from kvdeck.engine import protocol
from kvdeck.engine.client.client import Client
from kvdeck.engine.client.run_log import SocketLog
from kvdeck.engine.daemon import runtime
from kvdeck.engine.protocol import MAX_LINE, EventMessage, Reply, SampleMessage
from kvdeck.sessions.errors import EngineError, UsageError
from kvdeck.sessions.model.events import COUNTERS, Round, RunStarted
from kvdeck.sessions.store.event_log import FileLog, count_lines
from tests.engine.conftest import (
    DEADLINE,
    alive,
    eventually,
    kill_engine,
    lines_until_end,
    run_to_end,
    runs_until,
    submit,
)


def samples(lines: list[EventMessage | SampleMessage]) -> list[SampleMessage]:
    return [line for line in lines if isinstance(line, SampleMessage)]


def test_a_run_is_followed_from_its_first_line_to_its_last(client: Client):
    _, lines = run_to_end(client, rounds=60)
    assert [line.seq for line in lines] == list(range(69))
    assert [line.values[1] for line in samples(lines)] == list(range(60))
    kinds = [line.event["kind"] for line in lines if isinstance(line, EventMessage)]
    assert [kind for kind in kinds if kind != "reference_round"] == ["run_started", "log", "state"]
    assert kinds.count("reference_round") == 6
    assert client.hello.counters == COUNTERS


def test_the_session_is_in_its_file_when_the_last_line_comes(client: Client):
    session, _ = run_to_end(client, rounds=2)
    kept = client.store.read(session)
    assert (kept.state, kept.spec["params"]) == ("done", {"rounds": "2"})
    assert kept.started is not None
    assert kept.ended is not None
    assert not (client.home / "active" / f"{session}.json").exists()
    client.stop()
    assert not alive(client.hello.engine_pid)


def test_engine_and_file_give_the_same_events(client: Client):
    session = submit(client, rounds=5)
    live = list(SocketLog(client, session, hz=0).follow())
    kept = list(FileLog(client.store.samples_path(session)).follow())
    assert [(entry.seq, type(entry.event)) for entry in live] == [(entry.seq, type(entry.event)) for entry in kept]
    pairs = [(a.event, b.event) for a, b in zip(live, kept, strict=True) if isinstance(a.event, Round)]
    for a, b in pairs:
        assert isinstance(b, Round)
        assert (a.t, a.step, a.round, a.values) == (b.t, b.step, b.round, b.values)
    assert isinstance(live[0].event, RunStarted)
    assert live[0].event == kept[0].event


def test_a_late_client_gets_history_and_then_live_without_gap_or_duplicate(client: Client):
    session = submit(client, rounds=400, every=0.002)
    client.subscribe(session, hz=0)
    early = [next(m for m in client.messages(DEADLINE) if isinstance(m, SampleMessage) and m.seq >= 100)]
    with Client.connect(start=False) as late, Client.connect(start=False) as later:
        assert late.subscribe(session, hz=0).data["live_from"] > 100
        history = later.subscribe(session, from_seq=57, hz=4).data["live_from"]
        got, thinned = lines_until_end(late), lines_until_end(later)
    early += lines_until_end(client)
    total = early[-1].seq + 1
    assert [line.seq for line in early] == list(range(early[0].seq, total))
    assert [line.seq for line in got] == list(range(total))
    assert [line.seq for line in thinned if line.seq < history] == list(range(57, history))
    assert len({line.seq for line in thinned}) == len(thinned)
    events = [line.event["kind"] for line in thinned if isinstance(line, EventMessage) and line.seq >= history]
    assert "reference_round" not in events
    assert len(samples(thinned)) + sum(s.missed for s in samples(thinned)) == len(samples(got[57:]))


def test_thinned_samples_end_with_the_newest_before_an_event(client: Client):
    session = submit(client, "first", rounds=1000, every=0.05)
    queued = submit(client, rounds=50)
    client.subscribe(queued, hz=0.5)
    client.cancel(session)
    lines = lines_until_end(client)
    assert lines[-2].seq == lines[-1].seq - 1
    assert isinstance(lines[-2], SampleMessage)
    assert len(samples(lines)) + sum(s.missed for s in samples(lines)) == 50


def test_thinning_keeps_the_newest_of_each_interleaved_step(client: Client):
    blocker = submit(client, "first", rounds=1000, every=0.05)
    session = submit(client, rounds=46, steps=4)
    client.subscribe(session, hz=0.001)
    client.cancel(blocker)
    lines = lines_until_end(client)
    newest = samples(lines)[-4:]
    assert [line.values[1] for line in newest] == [42, 43, 44, 45]
    assert {line.values[0] for line in newest} == {0, 1, 2, 3}
    assert len(samples(lines)) + sum(s.missed for s in samples(lines)) == 46


def test_a_slow_client_is_coalesced_and_loses_no_event(client: Client):
    blocker = submit(client, rounds=1000, every=0.05)
    session = submit(client, rounds=20_000)
    with Client.connect(start=False) as slow:
        assert slow.subscribe(session, hz=0).data["live_from"] == 0
        client.subscribe()
        client.cancel(blocker)
        runs_until(client, lambda states: states[session] == "done")
        lines = lines_until_end(slow)
    assert [line.event["text"] for line in lines if isinstance(line, EventMessage) and line.event["kind"] == "log"] == [
        f"round {number}" for number in range(50, 20_000, 100)
    ]
    got = samples(lines)
    assert len(got) + sum(sample.missed for sample in got) == 20_000
    assert max(sample.missed for sample in got) > 256
    assert [line.seq for line in lines] == sorted({line.seq for line in lines})


def test_three_watchers_see_the_same_end(client: Client):
    session = submit(client, rounds=30, every=0.01)
    watchers = [Client.connect(start=False) for _ in range(3)]
    for watcher in watchers:
        watcher.subscribe(session, hz=10, readonly=True)
    ends = [lines_until_end(watcher)[-1] for watcher in watchers]
    assert len({end.seq for end in ends}) == 1
    assert client.status()["clients"] == 4
    for watcher in watchers:
        watcher.close()


def test_a_read_only_client_may_look_and_change_nothing(client: Client):
    session = submit(client, rounds=1000, every=0.05)
    with Client.connect(start=False) as guest:
        guest.subscribe(session, readonly=True)
        guest.subscribe(session, readonly=False)
        for refused in (lambda: submit(guest), lambda: guest.cancel(session), lambda: guest.stop(force=True)):
            with pytest.raises(EngineError, match="read-only"):
                refused()
        assert [run["session"] for run in guest.status()["runs"]] == [session]
    client.cancel(session)


def test_runs_go_in_order_and_any_can_be_cancelled(client: Client):
    names = [submit(client, name, rounds=1000 if name == "a" else 1, every=0.05) for name in "abcd"]
    client.subscribe()
    client.cancel("c")
    picture = runs_until(client, lambda states: states["c"] == "cancelled")
    assert [(run.session, run.position) for run in picture.runs if run.state == "queued"] == [("b", 1), ("d", 2)]
    client.cancel("a")
    picture = runs_until(client, lambda states: set(states.values()) == {"cancelled", "done"})
    assert {run.session: run.state for run in picture.runs} == dict(
        zip(names, ("cancelled", "done", "cancelled", "done"), strict=True)
    )
    started = [client.store.read(name).started for name in "abd"]
    assert started == sorted(started)
    assert client.store.read("c").state == "cancelled"
    with pytest.raises(EngineError, match="already done"):
        client.cancel("d")
    with pytest.raises(EngineError, match="no run 'zz'"):
        client.cancel("zz")


def test_bad_commands_are_refused_with_the_fix(client: Client):
    with pytest.raises(UsageError, match="unknown keys: colour"):
        client.submit({"colour": "red"})
    with pytest.raises(UsageError, match="not allowed"):
        client.submit({}, "../up")
    with pytest.raises(EngineError, match="no session 'nobody'"):
        client.subscribe("nobody")
    submit(client, "taken")
    with pytest.raises(UsageError, match="already exists"):
        submit(client, "taken")
    assert client.store.names() == ["taken"]


def test_noise_on_the_socket_harms_nobody(client: Client, folders: Path):
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(DEADLINE)
        raw.connect(str(runtime.socket_path(folders / "rt")))
        stream = raw.makefile("rwb")
        assert isinstance(protocol.decode(stream.readline()), protocol.Hello)
        for line in (b"noise\n", b"[]\n", b'{"v":1,"type":"cancel","id":7}\n', b'{"v":1,"type":"status","id":8}\n'):
            stream.write(line)
        stream.write(b'{"v":1,"type":"from the future","id":9}\n{"v":1,"type":"subscribe","id":10,"hz":"x"}\n')
        stream.flush()
        replies = [protocol.decode(stream.readline()) for _ in range(5)]
        assert [(r.id, r.ok) for r in replies if isinstance(r, Reply)] == [
            (0, False), (0, False), (7, False), (8, True), (10, False)]  # fmt: skip
        stream.write(b'{"v":1,"type":"submit","id":11,"spec":{"colour":"red"}}\n')
        stream.flush()
        wrong = orjson.loads(stream.readline())
        assert wrong["fix"].startswith("use only ")
        assert wrong["mend"] == wrong["fix"], "clients of kvdeck 0.1 read `mend`"
        stream.write(b"x" * (MAX_LINE + 70_000))
        stream.flush()
        refused = protocol.decode(stream.readline())
        assert isinstance(refused, Reply)
        assert "too long" in (refused.error or "")
        assert stream.readline() == b""
    assert client.status()["pid"] == client.hello.engine_pid


def test_stop_is_refused_during_a_run_unless_forced(client: Client):
    session = submit(client, rounds=1000, every=0.05)
    with pytest.raises(EngineError, match="a run is in progress"):
        client.stop()
    client.stop(force=True)
    assert not alive(client.hello.engine_pid)
    kept = client.store.read(session)
    assert (kept.state, kept.reason) == ("cancelled", "the engine was stopped")


def test_hangup_is_ignored_and_sigterm_ends_cleanly(client: Client, folders: Path):
    session = submit(client, rounds=1000, every=0.05)
    os.kill(client.hello.engine_pid, signal.SIGHUP)
    client.subscribe(session)
    next(message for message in client.messages(DEADLINE) if isinstance(message, SampleMessage))
    os.kill(client.hello.engine_pid, signal.SIGTERM)
    assert isinstance(lines_until_end(client)[-1], EventMessage)
    eventually(lambda: not alive(client.hello.engine_pid))
    assert client.store.read(session).state == "cancelled"
    assert not runtime.socket_path(folders / "rt").exists()
    assert runtime.read_record(folders / "rt") is None


def test_it_ends_when_idle_and_not_before(folders: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KVDECK_IDLE_EXIT", "0.2")
    client = Client.connect()
    assert client.receive(0.6) is None
    session = submit(client, rounds=30, every=0.02)
    client.close()
    eventually(lambda: not alive(client.hello.engine_pid))
    assert client.store.read(session).state == "done"


def test_an_old_session_is_read_through_a_later_engine(client: Client):
    session, lines = run_to_end(client, rounds=120)
    kill_engine(client)
    with Client.connect() as again:
        assert again.hello.engine_pid != client.hello.engine_pid
        again.subscribe(session, from_seq=100)
        assert [line.seq for line in lines_until_end(again)] == list(range(100, lines[-1].seq + 1))
        assert count_lines(again.store.samples_path(session)) == lines[-1].seq + 1


def test_wide_rounds_are_relayed_without_their_times(client: Client):
    _, lines = run_to_end(client, rounds=3, wide=50_000)
    assert [len(sample.values) for sample in samples(lines)] == [len(COUNTERS)] * 3


def test_the_supervisor_loads_nothing_that_can_kill_it():
    code = "import sys, kvdeck.engine.daemon.server, kvdeck.engine.client.client; print(' '.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "nixl", "cupy", "textual", "rich", "click", "psutil", "pynvml"} & set(loaded)


def test_a_session_file_is_valid_while_the_run_goes_on(client: Client):
    session = submit(client, rounds=1000, every=0.05)
    client.subscribe(session)
    next(message for message in client.messages(DEADLINE) if isinstance(message, SampleMessage))
    data = orjson.loads((client.store.folder(session) / "session.json").read_bytes())
    assert data["state"] == "running"
    assert client.store.load(session).started is not None
    client.cancel(session)
    last = lines_until_end(client)[-1]
    assert isinstance(last, EventMessage)
    assert last.event["state"] == "cancelled"
