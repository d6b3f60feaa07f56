"""kill -9 and worse: of the worker, of its ranks, of the engine; no file is broken and nothing is left."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import orjson
import pytest

from kvdeck.engine.client.client import Client
from kvdeck.engine.daemon import recovery
from kvdeck.engine.protocol import EventMessage, SampleMessage
from kvdeck.sessions.store.event_log import read_lines
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


def last_event(lines: list[EventMessage | SampleMessage]) -> dict[str, object]:
    last = lines[-1]
    assert isinstance(last, EventMessage)
    return last.event


def first_sample(client: Client, session: str) -> None:
    client.subscribe(session)
    next(message for message in client.messages(DEADLINE) if isinstance(message, SampleMessage))


@pytest.mark.parametrize(
    ("end", "signal_name", "reason"),
    [
        ("segv", "SIGSEGV", "died of SIGSEGV"),
        ("exit", None, "exited with status 7"),
        ("torn", "SIGKILL", "killed"),
    ],
)
def test_a_crash_is_recorded_with_signal_and_last_words(
    client: Client, folders: Path, end: str, signal_name: str | None, reason: str
):
    scratch, rank = folders / "scratch", folders / "rank"
    session, lines = run_to_end(client, end=end, scratch=scratch, rank=rank)
    event = last_event(lines)
    assert (event["state"], event["signal"], event["last_words"]) == (
        "crashed", signal_name, ["last words of the worker"])  # fmt: skip
    assert reason in str(event["reason"])
    kept = client.store.read(session)
    assert (kept.state, kept.reason) == ("crashed", event["reason"])
    (result,) = kept.results
    assert (result.status, result.iterations, result.bytes) == ("failed", 3, 3 * 16 * (2 << 20))
    assert result.reason == f"{kept.reason} after 3 requests"
    assert result.post_us is not None
    assert (result.post_us.p50, result.post_us.max) == (1.0, 1.0)
    assert result.gb_per_s is not None
    assert result.gb_per_s.median == 16 * (2 << 20) / 2000
    assert not scratch.exists()
    assert not (client.store.folder(session) / "scratch.txt").exists()
    eventually(lambda: not alive(int(rank.read_text())))
    in_file = [(seq, orjson.loads(line)["kind"]) for seq, line in read_lines(client.store.samples_path(session))]
    assert [seq for seq, _ in in_file] == [line.seq for line in lines]
    assert [kind for _, kind in in_file].count("log") == (end == "torn")
    assert last_event(run_to_end(client)[1])["state"] == "done"


def test_a_worker_that_cannot_be_started_fails_the_run(folders: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KVDECK_WORKER", "/nowhere/worker")
    with Client.connect() as client:
        event = last_event(run_to_end(client)[1])
    assert event["state"] == "failed"
    assert "can't be started" in str(event["reason"])


def test_a_worker_deaf_to_cancel_is_killed_with_its_ranks(client: Client, folders: Path):
    rank, scratch = folders / "rank", folders / "scratch"
    session = submit(client, end="deaf", rank=rank, scratch=scratch)
    first_sample(client, session)
    client.cancel(session)
    event = last_event(lines_until_end(client))
    assert (event["state"], event["signal"]) == ("cancelled", "SIGKILL")
    assert "did not react" in str(event["reason"])
    eventually(lambda: not alive(int(rank.read_text())))
    assert not scratch.exists()


def test_kill_9_of_the_worker_keeps_what_was_measured(client: Client):
    session = submit(client, rounds=1000, every=0.02)
    first_sample(client, session)
    picture = runs_until(client, lambda states: states[session] == "running")
    pid = picture.runs[0].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert last_event(lines_until_end(client))["signal"] == "SIGKILL"
    kinds = [orjson.loads(line)["kind"] for _, line in read_lines(client.store.samples_path(session))]
    assert kinds[:2] == ["run_started", "round"]
    assert kinds[-1] == "state"


@pytest.mark.parametrize("end", ["deaf", "done"])
def test_kill_9_of_the_engine_leaves_interrupted_runs_and_nothing_else(
    client: Client, folders: Path, end: str, monkeypatch: pytest.MonkeyPatch
):
    """A deaf worker is ended by the next engine; a good one ends by itself and its word `cancelled` doesn't stand."""
    rank, scratch = folders / "rank", folders / "scratch"
    session = submit(client, rounds=20 if end == "deaf" else 1000, every=0.02, end=end, rank=rank, scratch=scratch)
    queued = submit(client)
    first_sample(client, session)
    picture = runs_until(client, lambda states: states[session] == "running")
    worker = picture.runs[0].pid
    assert worker is not None
    kill_engine(client)
    with Client.connect(timeout=15) as again:
        states = {run.session: (run.state, run.reason) for run in again.hello.runs}
        assert states == {
            session: ("interrupted", "the engine ended during the run"),
            queued: ("interrupted", "the engine ended before the run began"),
        }
        assert {name: again.store.read(name).state for name in (session, queued)} == {
            session: "interrupted", queued: "interrupted"}  # fmt: skip
        kinds = [orjson.loads(line)["kind"] for _, line in read_lines(again.store.samples_path(session))]
        assert kinds[:2] == ["run_started", "round"]
        assert kinds[-1] == "state"
        eventually(lambda: not alive(worker) and not alive(int(rank.read_text())))
        assert not scratch.exists()
        assert list((again.home / "active").iterdir()) == []
        again.subscribe(session)
        assert last_event(lines_until_end(again))["state"] == "interrupted"
        assert last_event(run_to_end(again)[1])["state"] == "done"


def test_a_run_of_a_living_engine_is_left_alone(client: Client, folders: Path, monkeypatch: pytest.MonkeyPatch):
    session = submit(client, rounds=1000, every=0.02)
    first_sample(client, session)
    monkeypatch.setenv("KVDECK_RUNTIME", str(folders / "rt2"))
    with Client.connect() as second:
        assert second.hello.runs == ()
        assert second.store.read(session).state == "running"
        second.stop()
    client.cancel(session)
    assert last_event(lines_until_end(client))["state"] == "cancelled"


def test_only_a_folder_with_the_marker_is_removed(tmp_path: Path):
    session, precious, marked = tmp_path / "session", tmp_path / "precious", tmp_path / "marked"
    for folder in (session, precious, marked):
        folder.mkdir()
    (precious / "thesis.tex").touch()
    (marked / recovery.SCRATCH_MARKER).touch()
    (tmp_path / "link").symlink_to(marked)
    (session / "scratch.txt").write_text(f"{precious}\n{tmp_path / 'link'}\nmarked\n{tmp_path / 'missing'}\n")
    done = recovery.remove_scratch(session)
    assert any(f"did not remove {precious}:" in note for note in done)
    assert (precious / "thesis.tex").exists()
    assert marked.exists()
    (session / "scratch.txt").write_text(f"{marked}\n")
    assert recovery.remove_scratch(session) == [f"removed {marked}"]
    assert not marked.exists()
    assert not (session / "scratch.txt").exists()
