"""Whole runs: a real engine, the real worker, real NIXL; and what is left when one of them is killed."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from kvdeck.engine.client.client import Client
from kvdeck.engine.protocol import EventMessage, SampleMessage
from kvdeck.engine.transfer.tuning import WORTH
from kvdeck.sessions.model.events import Round, StepStarted
from kvdeck.sessions.model.records import Session
from kvdeck.sessions.store.event_log import read_events
from kvdeck.sessions.store.tuned_settings import keep_tuned, load_tuned
from tests.engine.conftest import DEADLINE, alive, eventually, kill_engine

SMALL: dict[str, Any] = {
    "layers": 4, "page_size": 4, "inner_dim": 512, "blocks": 8, "batch": 4, "effort": "quick", "seconds": 0.2,
    "paths": ["HostToHost"],
}  # fmt: skip
LONG = {**SMALL, "seconds": 60.0}


@pytest.fixture
def engine(folders: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    """A client of an engine that runs the real worker, with test files in a folder that is looked at."""
    monkeypatch.delenv("KVDECK_WORKER")
    monkeypatch.setenv("KVDECK_GRACE", "10")
    (folders / "disk").mkdir()
    monkeypatch.setenv("KVDECK_SCRATCH", str(folders / "disk"))
    return Client.connect()


def finish(client: Client, session: str) -> Session:
    """Follow a run to its end and read what was kept."""
    client.subscribe(session)
    for message in client.messages(3 * DEADLINE):
        if isinstance(message, EventMessage) and message.event["kind"] == "state":
            return client.store.read(session)
    raise AssertionError("the run did not end")


def run(client: Client, **changes: Any) -> Session:
    return finish(client, client.submit({**SMALL, **changes}))


def underway(client: Client, **changes: Any) -> str:
    """A long run that has measured something."""
    session = client.submit({**LONG, **changes})
    client.subscribe(session)
    for message in client.messages(2 * DEADLINE):
        if isinstance(message, SampleMessage):
            return session
    raise AssertionError("the run did not begin")


def processes_of(client: Client, session: str) -> list[psutil.Process]:
    """The worker and its ranks."""
    pid = next(run["pid"] for run in client.status()["runs"] if run["session"] == session)
    worker = psutil.Process(pid)
    return [worker, *worker.children(recursive=True)]


def nothing_left(folders: Path, processes: list[psutil.Process]) -> None:
    eventually(lambda: not any(alive(process.pid) for process in processes))
    eventually(lambda: not list((folders / "disk").iterdir()))


def test_three_paths_are_measured_compared_and_verified(engine: Client, folders: Path) -> None:
    session = run(engine, paths=["HostToHost", "HostToDisk", "DiskToHost"])
    assert session.state == "done"
    assert [result.step for result in session.results] == list(range(6))
    for result in session.results:
        assert (result.status, result.verified) == ("ok", True)
        assert result.bytes == result.iterations * result.batch * result.block_bytes
        assert result.gb_per_s is not None
        assert result.gb_per_s.low <= result.gb_per_s.median <= result.gb_per_s.high
        assert result.descriptors_per_request == result.descriptors_per_block * result.batch
        assert result.efficiency == pytest.approx(result.gb_per_s.median / (result.reference_gb_per_s or 0))
        assert result.settings["pages"]
    events = read_events(engine.store.samples_path(session.name))
    named = {event.step: event.reference for event in events if isinstance(event, StepStarted)}
    assert named == {result.step: result.reference for result in session.results}
    assert all(isinstance(event.waits_ns, tuple) for event in events if isinstance(event, Round))
    assert [comparison.path for comparison in session.comparisons] == ["HostToHost", "HostToDisk", "DiskToHost"]
    assert session.host["cores"] == len(os.sched_getaffinity(0))
    assert not list((folders / "disk").iterdir())


def test_layouts_are_interleaved_and_moved_the_same_bytes(engine: Client) -> None:
    session = run(engine, layouts=["fc", "ls", "ls-outer"])
    events = read_events(engine.store.samples_path(session.name))
    order = [event.step for event in events if isinstance(event, Round)]
    assert order[:6] == [0, 1, 2, 2, 1, 0]
    assert len({result.bytes for result in session.results}) == 1


def test_iterations_are_exact(engine: Client) -> None:
    session = run(engine, seconds=None, iterations=25)
    assert [result.iterations for result in session.results] == [25, 25]


def test_a_sweep_has_a_result_for_each_size_and_batch(engine: Client) -> None:
    session = run(engine, sweep_block_sizes="64K:256K", sweep_batches="1:4:4", blocks=None)
    sizes = [(result.block_bytes >> 10, result.batch) for result in session.results[::2]]
    assert sizes == [(64, 1), (64, 4), (128, 1), (128, 4), (256, 1), (256, 4)]
    assert {result.status for result in session.results} == {"ok"}


def test_tuning_says_what_each_setting_gave_and_keeps_what_won(engine: Client) -> None:
    """In one process, whose heats are short; what was found is used by `tuned`, unless the run says otherwise."""
    session = run(engine, tune=True, loopback=True, huge_pages=True, pin=False)
    assert {tuned.setting for tuned in session.tuned} >= {"error_handling", "pipeline_depth"}
    (kept,) = load_tuned(engine.store.home)
    assert (kept.path, kept.session) == ("HostToHost", session.name)
    assert kept.settings.keys() == {tuned.setting for tuned in session.tuned if tuned.chosen}
    assert (kept.ratio is None) == (not kept.settings)
    for tuned in session.tuned:
        assert tuned.heats
        assert not tuned.chosen or tuned.low <= WORTH
        assert not tuned.chosen or tuned.high < 1

    keep_tuned(engine.store.home, [msgspec.structs.replace(kept, settings={"pipeline_depth": 3, "threads": 2})])
    later = run(engine, tuned=True, threads=1)
    assert {result.settings["pipeline_depth"] for result in later.results} == {3}
    assert {result.settings["threads"] for result in later.results} == {2}, "the run left it at its default"
    assert {result.settings["threads"] for result in run(engine, tuned=True, threads=4).results} == {4}


@pytest.mark.parametrize(
    ("changes", "status", "named"),
    [
        ({"paths": ["HostToDisk"], "backend": "NOSUCH"}, "unavailable", "NOSUCH"),
        ({"paths": ["HostToDisk"], "backend": "UCX"}, "unavailable", "UCX"),
        ({"paths": ["HostToDisk"], "direct": "on", "block_size": 5000, "blocks": None}, "failed", "5,000 B"),
        ({"blocks": 1 << 40}, "failed", "memory"),
        ({"paths": ["HostToDisk"], "params": {"kernel_queue_size": "banana"}}, "failed", "banana"),
    ],
)
def test_what_cannot_be_is_refused_by_name(engine: Client, changes: dict[str, Any], status: str, named: str) -> None:
    session = run(engine, **changes)
    assert session.state == "failed"
    assert {result.status for result in session.results} == {status}
    assert named in (session.results[0].reason or "")


def test_a_cancel_keeps_what_was_measured(engine: Client, folders: Path) -> None:
    session = underway(engine, paths=["HostToDisk", "HostToHost"])
    processes = processes_of(engine, session)
    engine.cancel(session)
    kept = finish(engine, session)
    assert kept.state == "cancelled"
    assert [result.status for result in kept.results] == ["cancelled"] * 4
    assert kept.results[0].iterations > 0
    assert kept.results[3].iterations == 0
    nothing_left(folders, processes)


@pytest.mark.parametrize("victim", [0, 1], ids=["worker", "target"])
def test_killing_a_process_of_the_run(engine: Client, folders: Path, victim: int) -> None:
    session = underway(engine)
    processes = processes_of(engine, session)
    assert len(processes) == 2
    processes[victim].send_signal(signal.SIGKILL)
    kept = finish(engine, session)
    assert kept.state == ("crashed" if victim == 0 else "failed")
    assert kept.reason or any(result.reason for result in kept.results)
    nothing_left(folders, processes)
    assert run(engine).state == "done"


def test_killing_the_engine_ends_its_run_and_the_next_says_so(engine: Client, folders: Path) -> None:
    session = underway(engine, paths=["DiskToHost"])
    processes = processes_of(engine, session)
    kill_engine(engine)
    nothing_left(folders, processes)
    with Client.connect() as again:
        runs_until_known = again.store.read(session)
        assert runs_until_known.state in ("interrupted", "cancelled")
        assert runs_until_known.reason
        events = list(read_events(again.store.samples_path(session)))
        assert any(isinstance(event, Round) for event in events)
        assert again.store.rebuild(session) == runs_until_known


def test_two_initiators_share_the_working_set(engine: Client) -> None:
    session = run(engine, threads=2, paths=["HostToDisk"], iterations=16, seconds=None)
    assert {result.status for result in session.results} == {"ok"}
    assert {result.verified for result in session.results} == {True}
    assert {result.settings["threads"] for result in session.results} == {2}
