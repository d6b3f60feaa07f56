"""Session kinds `trace` and `telemetry`, and the files of versions that called them `recorded` and `watched`."""

from __future__ import annotations

import os
from pathlib import Path

import orjson
import pytest

from kvdeck.sessions.formats import exchange
from kvdeck.sessions.model.records import Session, TransferCounts
from kvdeck.sessions.recorder import TransferCounter
from kvdeck.sessions.store import catalogue, index, lookup, traces
from kvdeck.sessions.store.store import Store
from kvdeck.sessions.text.run_report import report_json

FORMER = {"trace": "recorded", "telemetry": "watched", "run": "run", "imported": "imported"}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    for name in ("HOME", "TMPDIR"):
        monkeypatch.setenv(name, str(tmp_path / "user"))
    return Store(tmp_path / "home")


def keep(store: Store, kind: str, name: str = "") -> str:
    """A session of a kind, of which four transfers were counted if it is a trace; its name."""
    name = name or f"a-{kind}"
    store.keep(
        Session(
            name, "done", 1.0, ended=2.0, kind=kind, transfer_counts=(TransferCounts("HostToDisk", "Unknown", 2, 64),)
        )
    )
    if kind == "trace":
        recorder = TransferCounter(store.folder(name))
        for _ in range(4):
            recorder.record("HostToDisk", "FullyContiguous", 4096, 1, None)
        recorder.close()
    return name


def age(store: Store, name: str) -> None:
    """Rewrite `session.json` as an earlier version would have."""
    path = store.folder(name) / "session.json"
    data = orjson.loads(path.read_bytes())
    path.write_bytes(orjson.dumps({**data, "kind": FORMER[data["kind"]]}))


@pytest.mark.parametrize("kind", ["trace", "telemetry"])
def test_a_session_of_an_earlier_version_is_read_and_then_written_with_the_new_word(store: Store, kind: str) -> None:
    name = keep(store, kind)
    new = (store.folder(name) / "session.json").read_bytes()
    age(store, name)
    assert store.read(name).kind == kind
    assert lookup.find(store, name).kind == kind
    assert [row.kind for row in store.summaries()] == [kind]
    store.change(name, lambda session: session)
    assert (store.folder(name) / "session.json").read_bytes() == new


def test_counts_of_a_former_trace_are_shown(store: Store) -> None:
    age(store, keep(store, "trace"))
    assert store.summaries()[0].transfers == 4
    assert store.load("a-trace").transfer_counts[0].transfers == 4
    assert traces.begin(store, "a-trace") == []  # it can be counted into again


@pytest.mark.parametrize("written", ["before", "after"])
def test_an_index_of_an_earlier_version_mixes_with_new_sessions(
    store: Store, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    monkeypatch.setattr(index, "WORTH_KEEPING", 1)
    for kind in FORMER:
        keep(store, kind)
    if written == "before":
        for kind in FORMER:
            age(store, f"a-{kind}")
    expected = store.summaries()
    path = store.home / "sessions.index"
    kept = path.read_bytes()
    path.write_bytes(kept.replace(b'"trace"', b'"recorded"').replace(b'"telemetry"', b'"watched"'))
    assert path.read_bytes() != kept
    keep(store, "trace", "later")
    rows = {row.name: row for row in store.summaries()}
    assert {name: row.kind for name, row in rows.items()} == {
        "later": "trace",
        **{f"a-{kind}": kind for kind in FORMER},
    }
    assert [rows[row.name] for row in expected] == expected
    assert orjson.loads(path.read_bytes())["version"] == 2
    assert b"recorded" not in path.read_bytes()


@pytest.mark.parametrize("kind", list(FORMER))
def test_printed_json_holds_both_words(store: Store, tmp_path: Path, kind: str) -> None:
    keep(store, kind)
    session = store.load(f"a-{kind}")
    (row,) = catalogue.catalogue(store)
    exported = exchange.encode(session, "kvdeck")
    for data in (report_json(session), catalogue.row_json(row), orjson.loads(exported)):
        assert (data["kind"], data["kind_v1"]) == (kind, FORMER[kind])
    assert b"kind_v1" not in (store.folder(f"a-{kind}") / "session.json").read_bytes()
    for text in (exported, exported.replace(f'"kind": "{kind}"'.encode(), f'"kind": "{FORMER[kind]}"'.encode())):
        (tmp_path / "exported.json").write_bytes(text)
        assert exchange.read(tmp_path / "exported.json").kind == kind
    assert catalogue.matching([row], [FORMER[kind]]) == [row]


def test_another_kind_is_refused(store: Store) -> None:
    keep(store, "trace")
    path = store.folder("a-trace") / "session.json"
    path.write_bytes(path.read_bytes().replace(b'"trace"', b'"tracing"'))
    with pytest.raises(Exception, match=r"damaged: \$.kind: invalid enum value 'tracing'"):
        store.read("a-trace")


def test_a_trace_is_recording_only_while_something_is_counted(store: Store) -> None:
    traces.begin(store, "live")
    recorder = TransferCounter(store.folder("live"))
    assert catalogue.catalogue(store)[0].state == "done"
    recorder.record("HostToDisk", "FullyContiguous", 4096, 1, None)
    recorder.flush()
    assert catalogue.catalogue(store)[0].state == "recording"
    traces.switch(store, "live", False)
    assert catalogue.catalogue(store)[0].state == "done"
    traces.switch(store, "live", True)
    assert catalogue.catalogue(store)[0].state == "recording"
    recorder.close()
    assert catalogue.catalogue(store)[0].state == "done"
    assert os.getpid() in [process.pid for process in traces.trace_counts.processes(store.folder("live"))]
