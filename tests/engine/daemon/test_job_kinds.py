"""A new kind of job is one row: its queue, session, stream, cancelling and listing are those of every job."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from kvdeck.engine.client.client import Client
from kvdeck.engine.protocol import EventMessage, RunInfo, RunsChanged, Submit, decode, encode
from kvdeck.sessions.errors import KvdeckError, UsageError
from kvdeck.sessions.store.event_log import FileLog
from kvdeck.sessions.text.run_report import report_lines
from tests.engine.conftest import eventually, lines_until_end, runs_until, submit
from tests.support.programs.counting_job import MODULE

ROOT = Path(__file__).parents[3]


@pytest.fixture
def client(folders: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A client of an engine that also has the kind `counting`."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    engine = subprocess.Popen([sys.executable, "-m", MODULE, "engine"])
    made: list[Client] = []

    def connected() -> bool:
        with contextlib.suppress(KvdeckError):
            made.append(Client.connect(start=False))
        return bool(made)

    eventually(connected)
    with made[0] as client:
        yield client
        client.stop(force=True)
    assert engine.wait(10) == 0


def test_a_job_of_another_kind_fills_a_session_and_is_followed(client: Client) -> None:
    session = client.submit({"to": 3}, kind="counting")
    client.subscribe(session, hz=0)
    lines = [line.event for line in lines_until_end(client) if isinstance(line, EventMessage)]
    assert [line["text"] for line in lines if line["kind"] == "log"] == ["0", "1", "2"]
    kept = client.store.load(session)
    assert (kept.kind, kept.state, kept.spec["job"], kept.spec["to"]) == ("run", "done", "counting", 3)
    assert session.endswith("-count")
    assert report_lines(kept, 100)[0].text.startswith(f"kvdeck session {session}: done")
    assert len(list(FileLog(client.store.samples_path(session)).follow())) == len(lines)
    assert [row.name for row in client.store.summaries()] == [session]
    assert (kind_of(client, session), client.status()["runs"][0]["kind"]) == ("counting", "counting")


def test_it_is_cancelled_and_waits_its_turn_among_transfers(client: Client) -> None:
    counting = client.submit({"to": 0}, kind="counting")
    transfer = submit(client, rounds=1)
    client.subscribe(counting, hz=0)
    runs_until(client, lambda runs: runs[counting] == "running" and runs[transfer] == "queued")
    client.cancel(counting)
    assert runs_until(client, lambda runs: runs[transfer] == "done" and runs[counting] == "cancelled")
    assert "job" not in client.store.load(transfer).spec


def test_its_spec_is_checked_by_its_own_parser(client: Client) -> None:
    with pytest.raises(UsageError, match="takes `to`"):
        client.submit({"blocks": 3}, kind="counting")
    with pytest.raises(UsageError, match=r"no jobs of kind 'teleport'.*transfer, traffic, counting"):
        client.submit({}, kind="teleport")


def kind_of(client: Client, session: str) -> str:
    client.subscribe(None)
    runs = next(message for message in client.messages(10) if isinstance(message, RunsChanged)).runs
    return next(run.kind for run in runs if run.session == session)


def test_messages_of_earlier_versions_are_transfers() -> None:
    line = orjson.loads(encode(Submit(1, {"to": 3}, None, "counting")))
    assert line["kind"] == "counting"
    del line["kind"]
    assert decode(orjson.dumps(line)) == Submit(1, {"to": 3})
    assert RunInfo("a", "queued", 0.0).kind == "transfer"
