"""Sessions on disk: names, whole or not at all, and drawn anew from their samples."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from kvdeck.sessions.errors import SessionError, UsageError
from kvdeck.sessions.model.events import Compared, RunStarted, SettingTuned, StateChanged
from kvdeck.sessions.model.records import Comparison, Session, Tuned
from kvdeck.sessions.recorder import TransferCounter
from kvdeck.sessions.store import index as listing
from kvdeck.sessions.store.event_log import append_event
from kvdeck.sessions.store.index import check_name
from kvdeck.sessions.store.store import Store, fold


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


@pytest.mark.parametrize("name", ["a", "A-1_b.c", "-x", "x" * 100, "20261121-235900-hosttohost"])
def test_these_names_are_allowed(name: str):
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "a\n", "a b", "ä", "x" * 101, "a\0"])
def test_these_names_are_not(store: Store, name: str):
    with pytest.raises(UsageError, match="is not allowed"):
        store.folder(name)


@settings(max_examples=50)
@given(st.text(max_size=20))
def test_a_name_never_leaves_the_store(name: str):
    store = Store(Path("/home/x"))
    try:
        folder = store.folder(name)
    except UsageError:
        return
    assert Path(os.path.normpath(folder)).parent == store.sessions


def test_a_session_is_made_whole(store: Store):
    made = store.create(None, {"paths": ["HostToHost"]}, "paths: [HostToHost]\n", label="HostToHost", kvdeck="1")
    assert made.name.endswith("-hosttohost")
    assert store.read(made.name) == made
    assert sorted(path.name for path in store.folder(made.name).iterdir()) == [
        "owner.json", "run.yaml", "samples.jsonl", "session.json"]  # fmt: skip
    assert [path.name for path in store.sessions.iterdir()] == [made.name]


def test_generated_names_never_collide_and_sort_by_time(store: Store):
    with ThreadPoolExecutor(8) as pool:
        names = [made.name for made in pool.map(lambda _: store.create(None, {}, "{}\n"), range(40))]
    assert len(set(names)) == len(store.names()) == 40
    later = store.create(None, {}, "{}\n").created
    assert max(store.summaries(), key=lambda s: s.created) == store.summaries()[0]
    assert store.summaries()[0].created == later


def test_a_taken_name_is_refused_and_what_was_there_stays(store: Store):
    first = store.create("mine", {"a": 1}, "{}\n")
    with pytest.raises(UsageError, match="'mine' already exists"):
        store.create("mine", {"a": 2}, "{}\n")
    assert store.read("mine") == first
    assert [path.name for path in store.sessions.iterdir()] == ["mine"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(SessionError, match="can't write in"):
        Store(tmp_path / "file").create("x", {}, "{}\n")


def test_missing_and_damaged_sessions_are_told_apart(store: Store):
    with pytest.raises(SessionError, match="no session 'x'"):
        store.read("x")
    store.create("x", {"paths": ["HostToDisk"]}, "paths: [HostToDisk]\n")
    (store.folder("x") / "session.json").write_bytes(b'{"name": "x", "sta')
    with pytest.raises(SessionError, match="is damaged"):
        store.read("x")
    assert store.rebuild("x").spec == {"paths": ["HostToDisk"]}
    (row,) = store.summaries()
    assert (row.name, row.state) == ("x", "unreadable")
    store.create("large", {}, "job: traffic\ncells: " + "x" * (1 << 20))
    (store.folder("large") / "session.json").write_bytes(b"")
    assert store.rebuild("large").kind == "traffic"
    assert row.reason == "session.json: no valid JSON: Input data was truncated"


def test_a_session_is_folded_from_its_events(store: Store):
    made = store.create("x", {"a": 1}, "a: 1\n")
    compared = Comparison(0, "HostToHost", "FullyContiguous", "LayerSeparate", 4096, 1, 1.2, 1.1, 1.3, "slower")
    tuned = (3, "HostToHost", "huge_pages", "true", 0.9, 0.8, 0.95, True)
    for event in (RunStarted(1, 100.0, ()), Compared(2, compared), SettingTuned(*tuned)):
        append_event(store.samples_path("x"), event)
    assert store.load("x") == replace(
        made, state="running", started=100.0, comparisons=(compared,), tuned=(Tuned(*tuned),)
    )
    assert store.read("x").state == "queued"
    append_event(store.samples_path("x"), StateChanged(4, 101.0, "crashed", "it died"))
    store.write(store.rebuild("x"))
    kept = store.load("x")
    assert (kept.state, kept.reason, kept.ended, kept.spec) == ("crashed", "it died", 101.0, {"a": 1})
    assert store.rebuild("x") == kept


def test_folding_twice_changes_nothing():
    base = Session("x", "queued", 1.0)
    events = [RunStarted(1, 2.0, ()), StateChanged(2, 3.0, "done")]
    once = fold(base, events)
    assert fold(once, events) == once


def test_a_killed_writer_leaves_the_old_session_or_the_new(store: Store):
    """Kill a process that rewrites session.json as fast as it can: the file is whole, and no temp file is a session."""
    store.create("x", {"filler": "x" * 100_000}, "{}\n")
    code = (
        "import sys; from msgspec.structs import replace; from pathlib import Path\n"
        "from kvdeck.sessions.store.store import Store\n"
        "store = Store(Path(sys.argv[1])); s = store.read('x')\n"
        "n = 0\nwhile True:\n n += 1; store.write(replace(s, note=str(n))); print(n, flush=True)"
    )
    for _ in range(3):
        child = subprocess.Popen([sys.executable, "-c", code, str(store.home)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        said = [int(child.stdout.readline()) for _ in range(5)][-1]
        child.send_signal(signal.SIGKILL)
        said = max([said, *map(int, child.stdout.read().split())])
        child.wait()
        child.stdout.close()
        assert int(store.read("x").note) >= said
    assert store.names() == ["x"]


def test_summaries_are_the_newest_first_and_pass_over_strangers(store: Store):
    for number, name in enumerate("abc"):
        made = store.create(name, {"paths": ["HostToHost"], "layouts": ["fc"]}, "{}\n")
        store.write(replace(made, created=float(number), tags=("t",), note="n"))
    (store.sessions / "empty").mkdir()
    (store.sessions / ".new-1-1").mkdir()
    (store.sessions / "file").touch()
    listed = store.summaries()
    assert [summary.name for summary in listed] == ["empty", "c", "b", "a"]
    assert (listed[0].state, listed[0].reason) == ("unreadable", "session.json: No such file or directory")
    listed = listed[1:]
    assert (listed[0].paths, listed[0].layouts, listed[0].tags, listed[0].note) == (
        ("HostToHost",),
        ("fc",),
        ("t",),
        "n",
    )


def test_a_newer_version_s_session_can_be_read(store: Store):
    made = store.create("x", {}, "{}\n")
    path = store.folder("x") / "session.json"
    path.write_bytes(orjson.dumps({**orjson.loads(path.read_bytes()), "invented_later": [1]}))
    assert store.read("x") == made
    assert store.summaries()[0].created == pytest.approx(time.time(), abs=60)


def test_an_empty_home_has_no_sessions(tmp_path: Path):
    assert Store(tmp_path / "nowhere").summaries() == []


def test_the_index_saves_reading_and_is_never_believed_over_a_file(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(listing, "WORTH_KEEPING", 10)
    for number in range(10):
        store.write(replace(store.create(f"s{number}", {}, "{}\n"), created=float(number)))
    first = store.summaries()
    index = store.home / "sessions.index"
    assert index.exists()
    # Changed after the index was written, gone, and new: each is seen.
    store.write(replace(store.read("s5"), note="changed"))
    (store.folder("s6") / "session.json").unlink()
    store.create("new", {}, "{}\n")
    second = {summary.name: summary for summary in store.summaries()}
    assert second["s5"].note == "changed"
    assert second["s6"].state == "unreadable"
    assert set(second) == {summary.name for summary in first} | {"new"}
    assert {second[s.name] == s for s in first if s.name not in ("s5", "s6")} == {True}
    # It is the index that is used: a mark that fits is taken at its word.
    index.write_bytes(index.read_bytes().replace(b'"s7","queued"', b'"s7","failed"'))
    assert {summary.name: summary.state for summary in store.summaries()}["s7"] == "failed"
    for damage in (b"", b"{}", b"noise", b'{"version":1,"fields":[],"rows":[]}'):
        index.write_bytes(damage)
        assert {summary.name: summary for summary in store.summaries()}["s7"].state == "queued"


TAGGER = """
import sys
from msgspec.structs import replace
from pathlib import Path
from kvdeck.sessions.store.store import Store
store = Store(Path(sys.argv[1]))
for number in range(25):
    store.change("shared", lambda now: replace(now, tags=(*now.tags, f"{sys.argv[2]}{number}")))
"""


def test_processes_that_change_one_session_at_once_lose_no_change(store: Store) -> None:
    store.keep(Session("shared", "done", 1.0, kind="trace"))
    command = [sys.executable, "-c", TAGGER, str(store.home)]
    taggers = [subprocess.Popen([*command, letter]) for letter in "abcd"]
    assert [tagger.wait(timeout=60) for tagger in taggers] == [0] * 4
    wanted = {f"{letter}{number}" for letter in "abcd" for number in range(25)}
    assert sorted(store.read("shared").tags) == sorted(wanted)


def test_a_session_that_is_counted_into_can_be_tagged_and_not_renamed(store: Store) -> None:
    store.keep(Session("shared", "done", 1.0, kind="trace"))
    recorder = TransferCounter(store.folder("shared"))
    recorder.record("HostToDisk", "FullyContiguous", 1, 1, None)
    recorder.flush()
    try:
        assert store.change("shared", lambda now: replace(now, note="live")).note == "live"
        with pytest.raises(SessionError, match="is being written by"):
            store.rename("shared", "other")
    finally:
        recorder.close()
    store.rename("shared", "other")
    assert (store.load("other").note, store.load("other").transfer_counts[0].transfers) == ("live", 1)
