"""The bytes of every message, both ways, and of the engine's own records, and that they come back from them."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from kvdeck.engine import protocol
from kvdeck.engine.daemon import recovery, runtime
from kvdeck.engine.daemon.stream import to_line
from kvdeck.engine.daemon.watcher import watch_line
from kvdeck.engine.protocol import (
    Annotate,
    Cancel,
    EventMessage,
    Goodbye,
    Hello,
    RecordingsChanged,
    RecordingState,
    Reply,
    RunInfo,
    RunsChanged,
    SampleMessage,
    StartRecording,
    Status,
    StopEngine,
    StopRecording,
    Submit,
    Subscribe,
    WatchPast,
    WatchSample,
    WatchTelemetry,
)
from kvdeck.engine.spec import RunSpec
from kvdeck.sessions.host.processes import ProcessIdentity
from kvdeck.sessions.model.encoding import encode_line
from kvdeck.sessions.store.store import Store
from tests.goldens import check_golden
from tests.sessions.test_golden_files import EVENTS

GOLDENS = Path(__file__).parent / "goldens"

RUNS = (
    RunInfo("a", "running", 1.5, None, 12, 0.25, 1e16, 9, ("HostToHost", "HostToDisk"), None),
    RunInfo("b", "queued", 2, 1),
)
RECORDINGS = (RecordingState("t", "running", 100.5, 4096), RecordingState("u", "failed", reason='"why" ü'))
FROM_ENGINE: list[protocol.FromEngine] = [
    Hello(1, 12, "0.1.0", 1.5, 99, "/home/ü", runs=RUNS),
    Hello(1, 12, "0.1.0", 1.5, 99, "/home"),
    Reply(1, True),
    Reply(2, True, {"session": "a", "live_from": 3}),
    Reply(3, False, error="what", fix="how", mend="how", exit_code=2),
    RunsChanged(RUNS),
    RunsChanged(()),
    EventMessage("a", 3, {"kind": "log", "t": 1, "nested": {"b": [1, None], "a": 1e22}}),
    SampleMessage("a", 4, 17, (0.0, 1, None, 1e16), 2),
    WatchSample({"t": 1.0, "flows": []}, 3),
    WatchSample({"t": 1.0}, request=2),
    WatchPast(17, "eJyrrgUAAXUA+Q==", 2),
    RecordingsChanged(RECORDINGS),
    Goodbye("it ends"),
]
FROM_CLIENT: list[protocol.Command] = [
    Subscribe(1),
    Subscribe(2, "a", 5, 0, True),
    Submit(3, {"paths": ["HostToHost"], "params": {"x": "1"}, "hz": 1e17}, "a"),
    Submit(4, {}),
    Cancel(5, "a"),
    Status(6),
    WatchTelemetry(7),
    WatchTelemetry(8, 2.5, ("nixl:/a", "kvbm:http://h"), 1e6, ("x",)),
    WatchTelemetry(16, stuck_s=5.0, after_ns=17, quiet=True),
    WatchTelemetry(17, 0.5, request=3),
    StartRecording(9, "t"),
    StartRecording(10, "t", 2, ("a",), 2.0, ("b",), 1 << 40),
    StopRecording(11, "t"),
    Annotate(12, "t", "text"),
    Annotate(13, "t", "text", "threshold"),
    StopEngine(14),
    StopEngine(15, True),
]
OWNER = ProcessIdentity(12, 345, "boot", "pid:[4026531836]", "host")


@pytest.mark.parametrize(("name", "messages"), [("from_engine", FROM_ENGINE), ("from_client", FROM_CLIENT)])
def test_messages(name: str, messages: list[protocol.Message]):
    lines = [protocol.encode(message) for message in messages]
    check_golden(GOLDENS / f"{name}.jsonl", b"".join(lines))
    again = [message for line in lines if (message := protocol.decode(line)) is not None]
    assert again == messages
    assert list(map(type, again)) == list(map(type, messages))


def test_lines_of_a_run_as_messages():
    lines = [to_line("a", seq, encode_line(event).rstrip(b"\n")) for seq, event in enumerate(EVENTS)]
    data = b"".join(line.encode(5) for line in lines) + watch_line(b'{"t":1.0}', 2)
    check_golden(GOLDENS / "lines.jsonl", data)
    assert [line.kind for line in lines if line.kind != "event"] == ["sample", "reference"]


def test_records_of_the_engine(tmp_path: Path):
    record = runtime.EngineRecord(OWNER, 1.5, "/home", "0.1.0")
    runtime.write_record(tmp_path, record)
    check_golden(GOLDENS / "engine.json", (tmp_path / "engine.json").read_bytes())
    assert runtime.read_record(tmp_path) == record
    for name, worker in (("owner", None), ("owner-of-a-worker", replace(OWNER, pid=13))):
        recovery.write_owner(Store(tmp_path), "a", recovery.Owner(OWNER, worker))
        check_golden(GOLDENS / f"{name}.json", (tmp_path / "active" / "a.json").read_bytes())


def test_run_yaml():
    check_golden(GOLDENS / "run.yaml", RunSpec().to_yaml().encode())


def test_reply_that_holds_records():
    reply = Reply(4, True, {"runs": list(RUNS), "recordings": list(RECORDINGS)})
    check_golden(GOLDENS / "status.json", protocol.encode(reply))
