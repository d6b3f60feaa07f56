"""The bytes of a session's files, of every kind of record, and that the records come back from them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from msgspec.structs import replace

from kvdeck.sessions.formats import exchange
from kvdeck.sessions.host.processes import ProcessIdentity
from kvdeck.sessions.model import events
from kvdeck.sessions.model.encoding import encode_line
from kvdeck.sessions.model.records import (
    Comparison,
    Interval,
    Percentiles,
    Session,
    StepPlan,
    StepResult,
    TransferCounts,
    Tuned,
)
from kvdeck.sessions.model.telemetry import CounterTotals, FlowTotals, GaugeTotals, SourceSeen, Spread, TelemetryTotals
from kvdeck.sessions.store import index, owners
from kvdeck.sessions.store.store import Store, encode_session
from kvdeck.sessions.store.telemetry.annotations import Mark, encode_mark, read_marks
from kvdeck.sessions.store.telemetry.session import read_summary, summary_path, write_summary
from kvdeck.sessions.store.telemetry.summary import Summary
from tests.goldens import check_golden

GOLDENS = Path(__file__).parent / "goldens"
FORMER = GOLDENS / "former"
"""Files as kvdeck 0.1 wrote them: the kinds `recorded` and `watched`, no `kind_v1`, no `answered`."""

PLAN = StepPlan(0, 0, "HostToDisk", "FullyContiguous", "POSIX", "URING", True, 2 << 20, 16, 64, 1)
TIMES = Percentiles(1.0, 2.5, 3.25, 1e16, 5e22, 1e-7)
INTERVAL = Interval(5.0, 4.9, 5.1)
RESULT = StepResult(
    step=0, trial=0, path="HostToDisk", layout="FullyContiguous", backend="POSIX", api="URING", direct=True,
    page_cache="bypassed", durable=False, block_bytes=2 << 20, batch=16, descriptors_per_block=1,
    descriptors_per_request=16, merged=True, blocks=64, iterations=10, warmup_iterations=2, bytes=(1 << 63) + 5,
    prep_us=TIMES, post_us=TIMES, transfer_us=None, request_us=TIMES, gb_per_s=INTERVAL, reference_gb_per_s=10.0,
    reference="pwrite", efficiency=0.5, verified=True, status="ok", reason=None,
    settings={"threads": 1, "params": {"a": "ü", "b": [1, 2.5, None, True]}, "empty": {}, "none": []},
)  # fmt: skip
BARE = StepResult(
    step=1, trial=1, path="HostToHost", layout="LayerSeparate { outer_contiguous: false }", backend="UCX", api=None,
    direct=None, page_cache=None, durable=None, block_bytes=4096, batch=1, descriptors_per_block=64,
    descriptors_per_request=64, merged=False, blocks=1, iterations=0, warmup_iterations=0, bytes=0, prep_us=None,
    post_us=None, transfer_us=None, request_us=None, gb_per_s=None, reference_gb_per_s=None, reference=None,
    efficiency=None, verified=None, status="failed", reason="\"quoted\" \\ \u0007 \u2028 \U0001f600",
)  # fmt: skip
COMPARISON = Comparison(0, "HostToHost", "FullyContiguous", "LayerSeparate", 4096, 16, 1.25, 1.2, 1.3, "slower")
TUNED = (7, "HostToDisk", "threads", "4", 0.9, 0.85, 0.95, True)
TALLY = TransferCounts(
    "HostToDisk", "FullyContiguous", transfers=3, bytes=12288, blocks=3, descriptors=3, min_bytes=4096, max_bytes=4096,
    failures=1, timed_transfers=2, timed_bytes=8192, timed_blocks=2, busy_s=0.5, sizes=((4096, 3),),
    times=((0.25, 2), (1e-6, 1)), stated_bytes_per_s=(1 << 64) - 1, stated_blocks_per_s=0,
)  # fmt: skip
SPREAD = Spread(100, 1e9, None, 1.5e9, 2e9, 0.0, 3e9)
WATCHED = TelemetryTotals(
    begin=100.0, end=200.5, moments=100, bytes=12345, thinned=((100.0, 150.0, 2),),
    sources=(SourceSeen("kvbm", "endpoint", {"ok": 99, "stale": 1}), SourceSeen("host", "host")),
    flows=(
        FlowTotals("kvbm", "endpoint", "offload", "G1", "G2", "kvbm_d2h", 1e18, 12.0, None, 0.0, 9.5, "B/s", 5.0,
                   SPREAD, True),
        FlowTotals("kvbm", "endpoint", "onboard", None, None, "kvbm_h2d", unit="blocks/s"),
    ),
    gauges=(GaugeTotals("kvbm", "endpoint", "waiting", {"gpu": "0"}, "requests", "queue", SPREAD),),
    counters=(CounterTotals("kvbm", "endpoint", "hits", {}, "", None, 12.0),),
    marks=((101.0, "load begins", "note"),),
)  # fmt: skip
RUN = Session(
    "a-run", "crashed", 1000.125, 1001.0, 1002, "killed", "0.1.0", "1.4.0",
    host={"hostname": "h", "cores": 8, "gpus": [{"name": "x"}]}, spec={"paths": ["HostToHost"], "hz": 1.0},
    results=(RESULT, BARE), comparisons=(COMPARISON,), tuned=(Tuned(*TUNED),), tags=("a", "b"), note="ñ",
)  # fmt: skip
SESSIONS = {
    "blank": Session("blank", "queued", 5.0),
    "run": RUN,
    "trace": Session(
        "trace", "done", 1000, kind="trace", transfer_counts=(TALLY, TransferCounts("X", "Unknown")), duration_s=2.0
    ),
    "imported": Session(
        "imported", "done", 1000.0, kind="imported", transfer_counts=(TALLY,), duration_s=2.5, source="/a/b.json"
    ),
    "telemetry": Session("telemetry", "done", 100.0, 100.0, 200.5, kind="telemetry", telemetry=WATCHED),
}
EVENTS: list[events.Event] = [
    events.RunStarted(1, 2.0, (PLAN,), {"hostname": "h"}, "1.4.0", {"paths": ["HostToHost"]}),
    events.RunStarted(1, 2, ()),
    events.StepStarted(2, 0),
    events.Round(3, 0, 0, (1, 2), (3, 4), 10, (0, 1.0, None, 1e16, 1.5e-9, float("nan"))),
    events.ReferenceRound(4, 0, 0, "pwrite", 8, 9),
    events.StepFinished(5, RESULT),
    events.StepFinished(5, BARE),
    events.Compared(6, COMPARISON),
    events.SettingTuned(*TUNED),
    events.Logged(8, "warning", "text"),
    events.StateChanged(9, 2.0, "crashed", "why", "SIGSEGV", ("last", "words")),
    events.StateChanged(10, 3.5, "done"),
]
MARKS = (Mark(1.5, "load  begins\n"), Mark(2, "x" * 600, "threshold"), Mark(3.0, "ü", "not a kind"))
PROCESS = (
    b'{"epoch":0,"host":"h","pid":1,"started":1.0,"updated":2.0,"ended":true,"tallies":[{"path":"HostToDisk",'
    b'"layout":"Unknown","transfers":2,"bytes":8192,"blocks":2,"times":[[0.5,2]]}]}'
)
OWNER = ProcessIdentity(12, 345, "boot", "pid:[4026531836]", "host")


def flow(t: float, total: float) -> dict[str, object]:
    row = {"source": "kvbm", "name": "offload", "from": "G1", "to": "G2", "metric": "kvbm_d2h"}
    values = {"bytes_total": total, "bytes_gained": total, "bytes_per_s": 2.5e9, "transfers_total": 3.0}
    none = dict.fromkeys(("blocks_total", "blocks_per_s", "blocks_gained", "failures_total", "failures_gained"))
    return {**row, **none, **values, "bytes_from_blocks": False, "moved_s": t}


def moment(t: float, total: float) -> dict[str, object]:
    source = {"name": "kvbm", "kind": "endpoint", "state": "ok"}
    number = {"source": "kvbm", "name": "waiting", "labels": {}, "unit": "requests", "group": "queue", "value": 2.0}
    hits = {**number, "name": "hits", "group": "hits", "gained": total, "per_s": 1.0}
    flows, numbers = [flow(t, total)], {"counters": [hits], "gauges": [number], "pinned": [], "checks": []}
    return {"t": t, "sources": [source], "flows": flows, **numbers}


@pytest.mark.parametrize("name", SESSIONS)
def test_session_json(name: str, tmp_path: Path):
    data = encode_session(SESSIONS[name])
    check_golden(GOLDENS / f"session-{name}.json", data)
    store = Store(tmp_path)
    folder = store.folder(SESSIONS[name].name)
    folder.mkdir(parents=True)
    (folder / "session.json").write_bytes(data)
    assert store.read(SESSIONS[name].name) == SESSIONS[name]


@pytest.mark.parametrize("name", ["trace", "telemetry"])
def test_a_former_session_json_is_read_and_gets_the_present_kind(name: str, tmp_path: Path):
    store = Store(tmp_path)
    store.folder(name).mkdir(parents=True)
    (store.folder(name) / "session.json").write_bytes((FORMER / f"session-{name}.json").read_bytes())
    assert store.read(name) == SESSIONS[name]
    assert b'"kind": "%s"' % name.encode() in encode_session(store.read(name))


def test_a_former_export_is_read():
    former, present = (exchange.read(folder / "export-telemetry.kvdeck") for folder in (FORMER, GOLDENS))
    assert replace(former, source="") == replace(present, source="")


def test_a_former_summary_is_read(tmp_path: Path):
    summary_path(tmp_path).write_bytes((FORMER / "summary.json").read_bytes())
    former = read_summary(tmp_path)
    summary_path(tmp_path).write_bytes((GOLDENS / "summary.json").read_bytes())
    assert former.result() == read_summary(tmp_path).result()


def test_lines_of_samples_jsonl():
    lines = [encode_line(event) for event in EVENTS]
    check_golden(GOLDENS / "samples.jsonl", b"".join(lines))
    read = [events.decode_event(line) for line in lines]
    assert [event for event in read if not isinstance(event, events.Round)] == [
        event for event in EVENTS if not isinstance(event, events.Round)
    ]
    assert [event.values for event in read if isinstance(event, events.Round)] == [(0, 1.0, None, 1e16, 1.5e-9, None)]


def test_a_session_folded_from_events_writes_the_same_bytes():
    from kvdeck.sessions.store.store import fold

    base = Session("folded", "queued", 1.0, host={"hostname": "h"})
    check_golden(GOLDENS / "session-folded.json", encode_session(fold(base, EVENTS)))


def test_annotations_of_a_telemetry_session(tmp_path: Path):
    data = b"".join(map(encode_mark, MARKS))
    check_golden(GOLDENS / "marks.jsonl", data)
    (tmp_path / "marks.jsonl").write_bytes(data)
    assert [mark.t for mark in read_marks(tmp_path)] == [1.5, 2.0, 3.0]


def test_summary_of_a_telemetry_session(tmp_path: Path):
    summary = Summary()
    for t, total in ((10.0, 0.0), (11.0, 1e9), (12.0, 3e18)):
        summary.take(moment(t, total))
    write_summary(summary, tmp_path)
    check_golden(GOLDENS / "summary.json", summary_path(tmp_path).read_bytes())
    write_summary(read_summary(tmp_path), tmp_path)
    check_golden(GOLDENS / "summary.json", summary_path(tmp_path).read_bytes())


def test_owner_of_a_session(tmp_path: Path):
    data = owners.encode_owner(OWNER)
    check_golden(GOLDENS / "owner.json", data)
    owners.owner_path(tmp_path).write_bytes(data)
    assert owners.read_owner(tmp_path) == OWNER


def test_index_of_the_sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(index, "WORTH_KEEPING", 1)
    monkeypatch.setattr(index, "names", lambda _: list(SESSIONS))
    store = Store(tmp_path)
    for name, session in SESSIONS.items():
        store.folder(name).mkdir(parents=True)
        (store.folder(name) / "session.json").write_bytes(encode_session(session))
    (store.folder("trace") / "recorder").mkdir()
    (store.folder("trace") / "recorder" / "0-h-1.json").write_bytes(PROCESS)
    first = store.summaries()
    data = (tmp_path / "sessions.index").read_bytes()
    check_golden(GOLDENS / "sessions.index", re.sub(rb"\[\d+,\d+,(\d+)\]", rb"[1,2,\1]", data))
    assert store.summaries() == first


def test_a_former_index_is_read(tmp_path: Path):
    (tmp_path / "sessions.index").write_bytes((FORMER / "sessions.index").read_bytes())
    former = {name: summary for name, (_, summary) in index._read_index(tmp_path).items()}
    (tmp_path / "sessions.index").write_bytes((GOLDENS / "sessions.index").read_bytes())
    assert former == {name: summary for name, (_, summary) in index._read_index(tmp_path).items()}
    assert former["trace"].kind == "trace"


@pytest.mark.parametrize("form", ["json", "csv", "kvdeck", "markdown"])
@pytest.mark.parametrize("name", ["run", "imported", "telemetry"])
def test_exports(name: str, form: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("kvdeck.sessions.units.local_time", lambda *_: "then")
    check_golden(GOLDENS / f"export-{name}.{form}", exchange.encode(SESSIONS[name], form))


@pytest.mark.parametrize("name", SESSIONS)
def test_kvdecks_own_export_is_lossless(name: str, tmp_path: Path):
    path = tmp_path / "a.kvdeck.json"
    path.write_bytes(exchange.encode(SESSIONS[name], "kvdeck"))
    read = exchange.read(path)
    assert read.source == SESSIONS[name].source or read.source == str(path)
    Store(tmp_path).keep(SESSIONS[name])
    kept = Store(tmp_path).read(name if name != "run" else "a-run")
    assert encode_session(read).replace(f'"source": "{path}"'.encode(), b'"source": ""') == encode_session(kept)
