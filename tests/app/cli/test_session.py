"""`kvdeck session …` as an operator types it: what it prints, where it writes, and its exit statuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kvdeck.app.cli.main import call
from kvdeck.sessions.formats import dynamo
from kvdeck.sessions.formats.exchange import CSV_HEADER
from kvdeck.sessions.model.records import Session
from kvdeck.sessions.store import trace_counts
from kvdeck.sessions.store.store import Store

Said = tuple[int, str, str]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, folder in (("HOME", "home"), ("TMPDIR", "tmp"), ("KVDECK_HOME", "kvdeck"), ("KVDECK_RUNTIME", "run")):
        (tmp_path / folder).mkdir()
        monkeypatch.setenv(name, str(tmp_path / folder))
    monkeypatch.delenv(dynamo.VARIABLE, raising=False)
    return tmp_path


@pytest.fixture
def kvdeck(home: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> Callable[..., Said]:
    def run(*arguments: str) -> Said:
        status = call(["session", *arguments])
        out, err = capfdbinary.readouterr()
        return status, out.decode(), err.decode()

    return run


def store(home: Path) -> Store:
    return Store(home / "kvdeck")


def test_without_a_session(kvdeck: Callable[..., Said]) -> None:
    status, out, _ = kvdeck("status")
    assert (status, "No benchmark session active" in out) == (0, True)
    for verb in (["report"], ["reset"], ["enable"], ["export", "csv", "x"]):
        status, out, err = kvdeck(*verb)
        assert (status, out) == (1, "")
        assert "no benchmark session active" in err


def test_init_writes_where_dynamo_looks(kvdeck: Callable[..., Said], home: Path) -> None:
    status, out, _ = kvdeck("init", "mine")
    assert status == 0
    assert "export DYNAMO_BENCHMARK_SESSION=mine" in out
    assert (home / "tmp/dynamo_benchmark_active_session.txt").read_text() == "mine"
    assert (home / "home/.dynamo/dynamo_benchmark_active_session.txt").read_text() == "mine"
    empty = b'{\n  "session_name": "mine",\n  "session_duration_secs": 0.0,\n  "metrics": {}\n}'
    assert (home / "tmp/dynamo_benchmark_mine.json").read_bytes() == empty
    assert (home / "home/.dynamo/bench_mine.json").read_bytes() == empty


def test_init_again_keeps_every_key_and_sets_a_damaged_file_aside(kvdeck: Callable[..., Said], home: Path) -> None:
    kvdeck("init", "mine")
    kvdeck("test")
    kept = dynamo.encode(dynamo.Counts("mine", 2.0, trace_counts.transfer_counts(store(home).folder("mine"))))
    (home / "tmp/dynamo_benchmark_mine.json").write_bytes(kept)
    (home / "home/.dynamo/bench_mine.json").write_bytes(b"{half")
    status, _, err = kvdeck("init", "mine")
    assert (status, "moved to" in err) == (0, True)
    assert (home / "tmp/dynamo_benchmark_mine.json").read_bytes() == kept
    assert [path.read_bytes() for path in (home / "home/.dynamo").glob("*.damaged-*")] == [b"{half"]


def test_the_round_of_dynamo_s_verbs(kvdeck: Callable[..., Said], home: Path) -> None:
    kvdeck("init", "round")
    status, out, _ = kvdeck("test", "--count", "100")
    assert status == 0
    assert out.splitlines()[-1] == "Benchmark 'round': 100 transfers, 629 KiB across 3 paths"
    _, out, _ = kvdeck("status")
    assert "Session enabled: true" in out
    assert "dynamo_benchmark_active_session.txt" in out
    _, out, _ = kvdeck("status", "--session", "round")
    assert out.splitlines()[0].startswith("Benchmark 'round': 100 transfers")

    _, report, _ = kvdeck("report", "--format", "nonsense")
    assert [line for line in report.splitlines() if line in ("HostToDisk", "HostToDevice", "DeviceToHost")] == [
        "HostToDisk",
        "HostToDevice",
        "DeviceToHost",
    ]
    assert "LayerSeparate outer" in report
    _, as_json, _ = kvdeck("report", "-f", "json")
    assert dynamo.parse(as_json.encode()).name == "round"
    _, table, _ = kvdeck("report", "-f", "csv", "-s", "round")
    assert table.splitlines()[0] == ",".join(CSV_HEADER)
    assert table.splitlines()[1].startswith("HostToDisk,FullyContiguous,34,356864,102,10496.00,8192,12800,")

    status, out, err = kvdeck("export", "--session", "round", "--output", str(home / "r.json"))
    assert (status, out, "can't hold" in err) == (0, "", True)
    assert dynamo.read(home / "r.json").transfer_counts[0].transfers == 34
    assert kvdeck("export", "csv", str(home / "r.csv"))[0] == 0
    assert (home / "r.csv").read_text() == table
    assert kvdeck("export", "xml", str(home / "r.xml"))[0] == 1

    kvdeck("disable")
    assert "ignores" in kvdeck("test", "-c", "7")[1]
    assert "Session enabled: false" in kvdeck("status")[1]
    kvdeck("enable")
    assert kvdeck("reset")[0] == 0
    assert "0 transfers" in kvdeck("status")[1]
    assert trace_counts.archived(store(home).folder("round")) == [0]


def test_test_makes_a_session_where_there_is_none(kvdeck: Callable[..., Said]) -> None:
    status, out, _ = kvdeck("test")
    assert status == 0
    assert "Benchmark 'test_session': 100 transfers, 629 KiB across 3 paths" in out


def test_dynamo_s_own_files_are_sessions(kvdeck: Callable[..., Said], home: Path) -> None:
    kvdeck("test")
    transfer_counts = trace_counts.transfer_counts(store(home).folder("test_session"))
    (home / "tmp/dynamo_benchmark_theirs.json").write_bytes(
        dynamo.encode(dynamo.Counts("theirs", 2.0, transfer_counts))
    )
    (home / "home/.dynamo").mkdir(exist_ok=True)
    (home / "home/.dynamo/bench_broken.json").write_bytes(b"\xff\x00")
    _, out, _ = kvdeck("list", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert (rows["theirs"]["kind"], rows["theirs"]["transfers"]) == ("dynamo", 100)
    assert "truncated or invalid JSON" in rows["broken"]["reason"]
    assert [row["name"] for row in json.loads(kvdeck("list", "theirs", "--json")[1])] == ["theirs"]
    assert "100 transfers" in kvdeck("status", "-s", "theirs")[1]
    assert kvdeck("show", "broken")[0] == 1


def test_both_count_into_one_session(kvdeck: Callable[..., Said], home: Path) -> None:
    kvdeck("init", "both")
    kvdeck("test")
    transfer_counts = trace_counts.transfer_counts(store(home).folder("both"))
    (home / "tmp/dynamo_benchmark_both.json").write_bytes(dynamo.encode(dynamo.Counts("both", 2.0, transfer_counts)))
    assert "200 transfers, 1.23 MiB across 3 paths" in kvdeck("status")[1]


def test_a_format_alone_is_no_file(kvdeck: Callable[..., Said], home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "here").mkdir()
    monkeypatch.chdir(home / "here")
    kvdeck("test")
    for form in ("json", "csv", "kvdeck", "markdown", "parquet"):
        status, _, said = kvdeck("export", form)
        assert (status, "the output file is missing" in said) == (2, True)
    assert list((home / "here").iterdir()) == []


def test_a_note_says_what_it_replaced(kvdeck: Callable[..., Said]) -> None:
    kvdeck("init", "noted")
    assert kvdeck("note", "noted", "first") == (0, "first\n", "")
    assert kvdeck("note", "noted", "second") == (0, "second\n", "replaced: first\n")


@pytest.mark.parametrize("form", ["json", "csv", "kvdeck", "parquet"])
def test_export_then_import_loses_nothing(kvdeck: Callable[..., Said], home: Path, form: str) -> None:
    kvdeck("test")
    kvdeck("export", form, str(home / "out"))
    status, out, _ = kvdeck("import", str(home / "out"), "--name", "back")
    assert (status, "session show back" in out) == (0, True)
    before, after = store(home).load("test_session"), store(home).load("back")

    def held(session):
        return [
            (t.path, t.layout, t.transfers, t.bytes, t.blocks, t.min_bytes, t.max_bytes)
            for t in session.transfer_counts
        ]

    assert held(before) == held(after)
    assert kvdeck("export", form, str(home / "again"), "-s", "back")[0] == 0
    if form in ("json", "csv"):
        lines = [(home / name).read_bytes().replace(b'"test_session"', b'"back"') for name in ("out", "again")]
        if form == "csv":  # rates are whole numbers once they were imported
            lines = [b"\n".join(line.rsplit(b",", 2)[0] for line in text.splitlines()) for text in lines]
        assert lines[0] == lines[1]


def test_rename_tag_note_delete(kvdeck: Callable[..., Said], home: Path) -> None:
    kvdeck("test")
    assert kvdeck("tag", "test_session", "cold", "tp8", "cold")[1] == "cold tp8\n"
    assert kvdeck("tag", "test_session", "cold", "--remove")[1] == "tp8\n"
    assert kvdeck("note", "test_session", "before the driver")[1] == "before the driver\n"
    assert [row["name"] for row in json.loads(kvdeck("list", "tp8", "driver", "--json")[1])] == ["test_session"]
    assert kvdeck("rename", "test_session", "../x")[0] == 2
    assert kvdeck("rename", "test_session", "other")[0] == 0
    assert store(home).load("other").note == "before the driver"
    status, _, err = kvdeck("delete", "other")
    assert (status, "--yes" in err) == (2, True)
    assert kvdeck("delete", "other", "--yes")[0] == 0
    assert not store(home).exists("other")
    assert kvdeck("delete", "other", "--yes")[0] == 1


def test_compare_for_a_pipeline(kvdeck: Callable[..., Said], home: Path) -> None:
    for name, time in (("fast", 0.001), ("slow", 0.002)):
        kvdeck("init", name)
        from kvdeck.sessions.recorder import TransferCounter

        recorder = TransferCounter(store(home).folder(name))
        for number in range(100):
            recorder.record("HostToDisk", "FullyContiguous", 4096, 1, time + number * 1e-6)
        recorder.close()
    status, out, _ = kvdeck("compare", "fast", "slow", "--json")
    data = json.loads(out)
    assert status == 0
    assert data["keys"][0]["ratio"] == pytest.approx(1.95, abs=0.02)
    assert data["keys"][0]["verdict"] == "slower"
    assert [item["what"] for item in data["insights"]] == ["rate"]
    assert kvdeck("compare", "fast", "slow", "--fail-on-regression", "200")[0] == 0
    status, _, err = kvdeck("compare", "fast", "slow", "--fail-on-regression", "20")
    assert (status, "regression: HostToDisk FullyContiguous" in err) == (1, True)
    assert kvdeck("compare", "slow", "fast", "--fail-on-regression", "20")[0] == 0
    kvdeck("export", "kvdeck", str(home / "fast.json"), "-s", "fast")
    _, out, _ = kvdeck("compare", str(home / "fast.json"), "slow", "--markdown")
    assert "| HostToDisk | fc | fc | 100 → 100 |" in " ".join(out.split())
    assert kvdeck("compare", "fast:ls", "slow")[0] == 1


def test_record_runs_a_command(home: Path) -> None:
    program = "import os, sys; print(os.environ['DYNAMO_BENCHMARK_SESSION'], *sys.argv[1:]); sys.exit(7)"
    command = ["record", "run", "--", sys.executable, "-c", program, "-x", "--layout"]
    result = subprocess.run(
        [sys.executable, "-m", "kvdeck.app.cli.main", "session", *command],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (result.returncode, result.stdout) == (7, "run -x --layout\n")
    assert "Benchmark 'run': 0 transfers" in result.stderr


def test_a_long_reason_takes_no_column_from_the_list(home: Path, kvdeck: Callable[..., Said]):
    store = Store(home / "kvdeck")
    store.keep(Session("failed-one", "failed", 1.0, reason="it failed because " + "of this and that " * 20))
    store.keep(Session("good-one", "done", 2.0))
    head, good, failed = kvdeck("list")[1].splitlines()
    assert {"session", "state", "created", "paths"} <= set(head.split())
    assert "done" in good
    assert failed.endswith("…")
    assert len(failed) <= 100
