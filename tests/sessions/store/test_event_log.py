"""samples.jsonl: whole lines only, from any line on, whatever a dying writer left."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvdeck.sessions.errors import SessionError
from kvdeck.sessions.model.encoding import encode_line
from kvdeck.sessions.model.events import Logged, Round, StateChanged, decode_event
from kvdeck.sessions.model.run_state import LogEntry
from kvdeck.sessions.store.event_log import (
    FileLog,
    LineReader,
    append_event,
    count_lines,
    drop_last_line,
    read_events,
    read_lines,
    truncate_torn_tail,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "samples.jsonl"


def log(text: str) -> Logged:
    return Logged(1, "info", text)


@given(lines=st.lists(st.binary(max_size=40).map(lambda b: b.replace(b"\n", b"")), max_size=20), data=st.data())
def test_any_part_of_a_file_is_read_by_any_chunk(tmp_path_factory: pytest.TempPathFactory, lines, data):
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    torn = data.draw(st.sampled_from([b"", b"torn"]))
    path.write_bytes(b"".join(line + b"\n" for line in lines) + torn)
    start = data.draw(st.integers(0, len(lines) + 2))
    chunk = data.draw(st.integers(1, 50))
    reader, got = LineReader(path, start), []
    while batch := reader.read(chunk):
        got += batch
    assert got == list(enumerate(lines))[start:]
    assert count_lines(path) == len(lines)
    assert truncate_torn_tail(path) == len(torn)
    assert path.read_bytes() == b"".join(line + b"\n" for line in lines)


def test_a_reader_goes_on_when_the_torn_line_is_finished(path: Path):
    path.write_bytes(b"a\nb")
    reader = LineReader(path)
    assert reader.read() == [(0, b"a")]
    assert reader.read() == []
    with path.open("ab") as file:
        file.write(b"c\nd\n")
    assert reader.read() == [(1, b"bc"), (2, b"d")]
    assert reader.seq == 3


def test_an_event_is_appended_after_a_torn_tail(path: Path):
    append_event(path, log("one"))
    with path.open("ab") as file:
        file.write(b'{"kind":"log","t":')
    append_event(path, log("two"))
    assert list(read_events(path)) == [log("one"), log("two")]


def test_the_last_line_can_be_taken_back(path: Path):
    for text in ("one", "two"):
        append_event(path, log(text))
    drop_last_line(path)
    assert list(read_events(path)) == [log("one")]
    drop_last_line(path)
    drop_last_line(path)
    assert path.read_bytes() == b""


def test_a_full_disk_leaves_no_half_line():
    with pytest.raises(SessionError, match="can't append to /dev/full"):
        append_event(Path("/dev/full"), log("one"))


def test_damaged_and_unknown_lines_are_passed_over_and_counted(path: Path):
    path.write_bytes(b'noise\n[1]\n{"kind":"from the future"}\n{"kind":"log","t":1}\n' + encode_line(log("good")))
    assert list(read_events(path)) == [log("good")]
    assert [(entry.seq, entry.event) for entry in FileLog(path).follow(2)] == [(2, None), (3, None), (4, log("good"))]


def test_a_round_survives_the_way_to_the_file_and_back():
    event = Round(5, 1, 2, (10, 11), (20, 21), 44, (None, 1.5, 2.0))
    assert decode_event(encode_line(event)) == event


def test_following_ends_with_the_run(path: Path):
    append_event(path, log("one"))
    got: list[object] = []
    reader = threading.Thread(target=lambda: got.extend(FileLog(path, wait=True).follow()))
    reader.start()
    append_event(path, log("two"))
    end = StateChanged(3, 4.0, "done")
    append_event(path, end)
    reader.join(20)
    assert got == [LogEntry(0, log("one")), LogEntry(1, log("two")), LogEntry(2, end)]


def test_following_can_be_stopped(path: Path):
    append_event(path, log("one"))
    stop = threading.Event()
    entries = FileLog(path, wait=True, stop=stop).follow()
    assert next(entries) == LogEntry(0, log("one"))
    stop.set()
    assert list(entries) == []


def test_a_missing_file_has_no_lines(path: Path):
    assert list(read_lines(path)) == []
    assert truncate_torn_tail(path) == 0
