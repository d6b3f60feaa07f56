"""Files that somebody else may have put there, opened without waiting and without end; copies and odd folders."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest

from kvdeck.sessions.host.files import NotRegular, open_regular, read_regular
from kvdeck.sessions.model.records import Session
from kvdeck.sessions.store.store import Store


def plant(place: Path, kind: str) -> None:
    if kind == "fifo":
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()
    elif kind == "zero":
        place.symlink_to("/dev/zero")
    elif kind == "loop":
        place.symlink_to(place)
    elif kind == "socket":
        folder = os.open(place.parent, os.O_PATH)
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(f"/proc/self/fd/{folder}/{place.name}")  # a socket's path is short, whatever the folder's is
        os.close(folder)
    elif kind == "nothing":
        place.symlink_to(place.with_name("gone"))


KINDS = ["fifo", "folder", "zero", "loop", "socket", "nothing"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shared", [False, True])
def test_only_regular_files_are_opened_and_nobody_waits(tmp_path: Path, kind: str, shared: bool):
    plant(tmp_path / "odd", kind)
    begun = time.monotonic()
    with pytest.raises(OSError, match=r"\[Errno \d+\] \w+"):
        read_regular(tmp_path / "odd", shared=shared)
    assert time.monotonic() - begun < 1


def test_links_and_other_users_files_are_refused_where_others_can_write(tmp_path: Path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "link") == b"x"
    with pytest.raises(NotRegular, match="is a link"):
        open_regular(tmp_path / "link", shared=True)
    if os.geteuid() == 0:
        os.chown(tmp_path / "file", 12345, 12345)
        with pytest.raises(NotRegular, match="belongs to user 12345"):
            open_regular(tmp_path / "file", shared=True)


def test_a_file_is_read_up_to_its_limit(tmp_path: Path):
    (tmp_path / "file").write_bytes(bytes(100))
    assert len(read_regular(tmp_path / "file", 100)) == 100
    with pytest.raises(NotRegular, match="is longer than 99 bytes"):
        read_regular(tmp_path / "file", 99)


def kvdeck(folder: Path, *arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "KVDECK_HOME": str(folder / "home"), "KVDECK_RUNTIME": str(folder / "run"),
                   "TMPDIR": str(folder), "HOME": str(folder)}  # fmt: skip
    argv = [sys.executable, "-m", "kvdeck.app.cli.main", *arguments]
    return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=30, **options)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "home")
    made.keep(Session("good", "done", 2.0, note="mine"))
    return made


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("file", ["session.json", "samples.jsonl", "run.yaml"])
def test_a_session_of_odd_files_is_one_row_and_the_rest_goes_on(store: Store, tmp_path: Path, kind: str, file: str):
    folder = store.folder("odd")
    shutil.copytree(store.folder("good"), folder)
    (folder / file).unlink(missing_ok=True)
    plant(folder / file, kind)
    rows = {row.name: row for row in store.summaries()}
    assert rows["good"].state == "done"
    if file == "session.json":
        assert rows["odd"].state == "unreadable"
        assert rows["odd"].reason
    for verb in (["session", "list"], ["sessions"], ["session", "show", "odd"], ["report", "odd"], ["attach", "odd"]):
        done = kvdeck(tmp_path, *verb)
        assert "unexpected" not in done.stderr, (verb, done.stderr)
        assert "Traceback" not in done.stderr
    assert kvdeck(tmp_path, "session", "delete", "odd", "--yes").returncode == 0
    assert store.read("good").note == "mine"


ODD_VALUES = [5, [], {}, "x", None, True, -1, 1e300, [[[]]], "\ud800"]


@pytest.mark.parametrize("value", [v for v in ODD_VALUES if v != "\ud800"], ids=repr)
def test_every_field_of_a_wrong_type_is_one_row(store: Store, tmp_path: Path, value: object):
    base = orjson.loads((store.folder("good") / "session.json").read_bytes())
    for field in base:
        folder = store.folder(f"odd-{field}")
        folder.mkdir()
        (folder / "session.json").write_bytes(orjson.dumps({**base, field: value}))
    rows = {row.name for row in store.summaries()}
    assert rows == {"good", *(f"odd-{field}" for field in base)}
    assert kvdeck(tmp_path, "session", "list").returncode == 0


def test_an_odd_index_costs_time_and_nothing_else(store: Store):
    for data in (b"", b"[]", b'{"version":2}', b'{"version":2,"fields":["name"],"rows":[[1]]}', b"[" * 10_000):
        (store.home / "sessions.index").write_bytes(data)
        assert [row.name for row in store.summaries()] == ["good"]
    (store.home / "sessions.index").unlink()
    os.mkfifo(store.home / "sessions.index")
    assert [row.name for row in store.summaries()] == ["good"]


@pytest.mark.parametrize("edit", [("tag", "new"), ("note", "new"), ("rename", "third"), ("delete", "--yes")])
def test_a_copied_folder_is_a_session_of_its_own(store: Store, tmp_path: Path, edit: tuple[str, str]):
    shutil.copytree(store.folder("good"), store.folder("copy"))
    before = (store.folder("good") / "session.json").read_bytes()
    done = kvdeck(tmp_path, "session", edit[0], "copy", edit[1])
    assert done.returncode == 0, done.stderr
    assert (store.folder("good") / "session.json").read_bytes() == before
    assert store.read("good").name == "good"
    if edit[0] in ("tag", "note"):
        assert store.read("copy").name == "copy"
        assert "new" in (store.read("copy").tags if edit[0] == "tag" else store.read("copy").note)


def test_what_a_cut_rename_leaves_is_edited_where_it_is(store: Store, tmp_path: Path):
    store.folder("good").rename(store.folder("renamed"))
    store.keep(Session("good", "done", 3.0, note="another"))
    assert kvdeck(tmp_path, "session", "note", "renamed", "mine still").returncode == 0
    assert (store.read("good").note, store.read("renamed").note) == ("another", "mine still")


@pytest.mark.parametrize("what", ["fifo", "folder", "text", "half", "list"])
def test_whatever_lies_in_active_the_engine_starts(store: Store, tmp_path: Path, what: str):
    active = store.home / "active"
    active.mkdir()
    store.create("left", {}, ": : :\n")
    place = active / "left.json"
    if what in ("fifo", "folder"):
        plant(place, what)
    else:
        place.write_text({"text": "no json", "half": '{"engine": {', "list": "[1]"}[what])
    (active / "stray").mkdir()
    started = kvdeck(tmp_path, "engine", "start")
    assert started.returncode == 0, started.stderr
    assert kvdeck(tmp_path, "engine", "stop", "--force").returncode == 0
    assert store.load("left").state in ("interrupted", "queued")


@pytest.mark.parametrize("file", ["/dev/zero", "/dev/null", "/", "fifo", "/dev/tty"])
@pytest.mark.parametrize("verb", [["run"], ["plan", "--model"], ["session", "show"], ["session", "import"]])
def test_what_is_no_file_is_said_in_a_sentence(tmp_path: Path, verb: list[str], file: str):
    if file == "fifo":
        file = str(tmp_path / "fifo")
        os.mkfifo(file)
    done = kvdeck(tmp_path, *verb, file)
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    assert "unexpected" not in done.stderr
    assert "kvdeck: " in done.stderr


VERBS = [
    ["sessions"],
    ["session", "list"],
    ["plan", "--models"],
    ["config"],
    ["--help"],
    ["session", "list", "--json"],
]


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_a_full_device_is_said_in_a_sentence(store: Store, tmp_path: Path, verb: list[str]):
    environment = {**os.environ, "KVDECK_HOME": str(tmp_path / "home"), "KVDECK_RUNTIME": str(tmp_path / "run")}
    with open("/dev/full", "wb") as full:
        argv = [sys.executable, "-m", "kvdeck.app.cli.main", *verb]
        done = subprocess.run(argv, env=environment, stdout=full, stderr=subprocess.PIPE, text=True, timeout=30)
    assert done.returncode == 1, done.stderr
    assert done.stderr.strip().count("\n") == 0, done.stderr
    assert "No space left on device" in done.stderr
