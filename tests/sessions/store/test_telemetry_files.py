"""A recording's files: what is read is what was written, whoever else writes, thins, tears or damages them."""

from __future__ import annotations

import gzip
import itertools
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from kvdeck.sessions.errors import SessionError, UsageError
from kvdeck.sessions.store.catalogue import catalogue
from kvdeck.sessions.store.store import Store
from kvdeck.sessions.store.telemetry import annotations as marks
from kvdeck.sessions.store.telemetry import session as keeping
from kvdeck.sessions.store.telemetry.annotations import Mark, encode_mark, is_written, marks_path, read_marks
from kvdeck.sessions.store.telemetry.delta import Encoder, decode
from kvdeck.sessions.store.telemetry.reader import MomentReader
from kvdeck.sessions.store.telemetry.segments import segments
from kvdeck.sessions.store.telemetry.writer import SEGMENT_MOMENTS, Writer, _every_second
from kvdeck.sessions.text.run_report import telemetry_inside

CELL = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([0.0, -0.0, 1.0, 1e-9, 2.5, 1e300]),
    st.text(max_size=3),
)
AGE = st.one_of(st.none(), st.integers(0, 10**18).map(lambda ns: ns / 1e9))
ROW = st.fixed_dictionaries({"name": st.sampled_from("abc"), "value": CELL, "moved_s": AGE})
MOMENT = st.fixed_dictionaries(
    {"t": st.floats(0, 1e10), "sources": st.lists(ROW, max_size=4), "flows": st.lists(ROW, max_size=3)}
)


@given(st.lists(MOMENT, max_size=12))
def test_what_is_decoded_is_what_was_encoded_to_the_byte(moments: list[dict[str, Any]]) -> None:
    encoder, before = Encoder(), None
    for moment in moments:
        raw = orjson.dumps(moment)
        before = decode(encoder.line(raw), before)
        assert orjson.dumps(before) == raw


def test_ages_that_only_grow_take_no_room() -> None:
    encoder = Encoder()
    rows = [{"name": f"counter {n}", "moved_s": n + 0.123456789} for n in range(50)]
    encoder.line(orjson.dumps({"t": 1.0, "counters": rows}))
    older = [{**row, "moved_s": (round(row["moved_s"] * 1e9) + 100_000_007) / 1e9} for row in rows]
    assert encoder.line(orjson.dumps({"t": 1.1, "counters": older})) == b'{"t":1.1,"ns":100000007}\n'


@settings(max_examples=200)
@given(st.binary(max_size=60), st.integers(0, 400), st.booleans())
def test_damage_is_passed_over(junk: bytes, place: int, cut: bool) -> None:
    encoder = Encoder()
    lines = [encoder.line(orjson.dumps(moment(n))) for n in range(3)]
    encoder.restart()
    lines += [encoder.line(orjson.dumps(moment(n))) for n in range(3, 5)]
    data = b"".join(lines)
    place = min(place, len(data))
    data = data[:place] + junk + data[place + (len(junk) if cut else 0) :]
    before = None
    for line in data.split(b"\n"):
        try:
            before = decode(line, before)
        except ValueError:
            before = None
        else:
            assert before is None or isinstance(before["t"], (int, float))


def moment(number: int, rows: int = 3) -> dict[str, Any]:
    flows = [
        {"source": "s", "name": f"flow {n}", "bytes_total": float(number * 1000 + n), "moved_s": 0.5}
        for n in range(rows)
    ]
    return {"t": 1000.0 + number / 10, "sources": [{"name": "s", "kind": "kvbm", "state": "live"}], "flows": flows}


def written(folder: Path, count: int, limit: int = 10**9, rows: int = 3, close: bool = True) -> Writer:
    folder.mkdir(exist_ok=True)
    writer = Writer(folder, limit)
    for number in range(count):
        writer.write(orjson.dumps(moment(number, rows)))
    if close:
        writer.close()
    return writer


def test_every_moment_is_found_by_its_time(tmp_path: Path) -> None:
    written(tmp_path, 3 * SEGMENT_MOMENTS + 20)
    reader = MomentReader(tmp_path)
    assert (reader.begin, reader.end) == (1000.0, 1000.0 + (3 * SEGMENT_MOMENTS + 19) / 10)
    assert [m["t"] for m in reader.moments()] == [1000.0 + n / 10 for n in range(3 * SEGMENT_MOMENTS + 20)]
    for number in random.Random(1).sample(range(3 * SEGMENT_MOMENTS + 20), 60):
        assert reader.at(1000.0 + number / 10 + 0.04) == moment(number)
    assert reader.at(999.9) is None
    assert reader.at(5000.0) == moment(3 * SEGMENT_MOMENTS + 19)
    assert [m["t"] for m in reader.moments(1030.0, 1030.5)] == [1030.0 + n / 10 for n in range(6)]


def test_a_reader_sees_what_is_written_meanwhile(tmp_path: Path) -> None:
    writer = written(tmp_path, 5, close=False)
    reader = MomentReader(tmp_path)
    moments = reader.moments()
    seen = [next(moments)["t"] for _ in range(5)]
    for number in range(5, 2 * SEGMENT_MOMENTS):
        writer.write(orjson.dumps(moment(number)))
        seen.append(next(moments)["t"])
        if number % 50 == 0:
            reader.refresh()
            assert reader.at(9999.0) == moment(number)
    assert next(moments, None) is None
    assert seen == [1000.0 + n / 10 for n in range(2 * SEGMENT_MOMENTS)]
    writer.close()
    reader.refresh()
    assert reader.at(9999.0) == moment(2 * SEGMENT_MOMENTS - 1)


def test_a_recording_stays_within_its_limit_and_says_so(tmp_path: Path) -> None:
    limit, count = 1_000_000, 12_000
    folder = tmp_path
    writer = Writer(folder, limit)
    noise = random.Random(3)
    most = 0
    for number in range(count):
        rows = [{"name": f"{n}", "bytes_total": noise.random(), "moved_s": None} for n in range(30)]
        writer.write(orjson.dumps({"t": 1000.0 + number / 10, "flows": rows}))
        if number % 50 == 0:
            most = max(most, sum(path.stat().st_size for path in folder.rglob("*.*")))
            writer.mark(Mark(1000.0 + number / 10, f"mark {number}"))
    writer.close()
    assert most <= limit
    reader = MomentReader(folder)
    times = [m["t"] for m in reader.moments()]
    assert times[0] == 1000.0, "the first moment stays"
    assert times[-1] == 1000.0 + (count - 1) / 10, "and the last"
    assert times == sorted(times)
    said_marks = read_marks(folder)
    assert [mark.text for mark in said_marks if mark.kind == "note"] == [f"mark {n}" for n in range(0, count, 50)]
    (said,) = [mark for mark in said_marks if mark.kind == "thinned"]
    assert "limit of 977 KiB" in said.text
    spans = reader.thinned
    assert spans[0][0] == 1000.0
    assert [every for _, _, every in spans] == sorted((every for _, _, every in spans), reverse=True), (
        "the older, the thinner"
    )
    for begin, end, every in spans:
        kept = sum(begin <= t < end for t in times)
        assert kept == pytest.approx((end - begin) * 10 / every, rel=0.05, abs=3)


def test_a_reader_goes_on_while_what_it_reads_is_thinned(tmp_path: Path) -> None:
    writer = Writer(tmp_path, 1_000_000)
    noise = random.Random(4)

    def write(number: int) -> None:
        rows = [{"name": f"{n}", "bytes_total": noise.random()} for n in range(30)]
        writer.write(orjson.dumps({"t": 1000.0 + number / 10, "flows": rows}))

    for number in range(2000):
        write(number)
    reader = MomentReader(tmp_path)
    seen = []
    for number, found in enumerate(reader.moments()):
        seen.append(found["t"])
        if number < 4000:
            write(2000 + number)
    writer.close()
    assert seen == sorted(set(seen))
    assert seen[-1] >= 1000.0 + 3000 / 10
    assert max(b - a for a, b in itertools.pairwise(seen)) <= 6.5, "thinned, but nowhere cut off"


def test_a_kill_between_thinning_and_tidying_up_shows_nothing_twice(tmp_path: Path) -> None:
    def thin(every: int) -> None:
        writer = Writer(tmp_path, 1_000_000)
        pair = writer._closed[1:3]
        writer._closed[1:3] = [writer._replace(pair, _every_second(pair), every)]
        writer.close()

    written(tmp_path, 4 * SEGMENT_MOMENTS)
    old = {path: path.read_bytes() for path in (tmp_path / "moments").iterdir()}
    thin(2)
    thinned = [m["t"] for m in MomentReader(tmp_path).moments()]
    assert len(thinned) == 3 * SEGMENT_MOMENTS
    for path, data in old.items():
        path.write_bytes(data)  # as if the old ones had not been removed any more
    times = [m["t"] for m in MomentReader(tmp_path).moments()]
    assert set(thinned) <= set(times) <= {*thinned, 1000.0 + (3 * SEGMENT_MOMENTS - 1) / 10}
    assert times == sorted(set(times))
    thin(4)  # and the next recorder thins what is there twice without harm
    again = [m["t"] for m in MomentReader(tmp_path).moments()]
    assert again == sorted(set(again))
    assert set(again) < set(times)


def test_a_clock_that_is_set_back_loses_no_moment(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    reader, seen = MomentReader(tmp_path), list[float]()
    times = [1000.0, 1001.0, 1002.0, 500.0, 501.0, 1003.0]
    for t in times[:2]:
        writer.write(orjson.dumps({"t": t, "flows": []}))
    reader.refresh()
    moments = reader.moments()
    for t in times[2:]:
        seen.append(next(moments)["t"])
        writer.write(orjson.dumps({"t": t, "flows": []}))
    seen += [moment["t"] for moment in moments]
    writer.close()
    assert seen == times
    assert [moment["t"] for moment in MomentReader(tmp_path).moments()] == times


def test_a_torn_last_line_is_no_moment(tmp_path: Path) -> None:
    written(tmp_path, 5, close=False)
    (path,) = (tmp_path / "moments").iterdir()
    with path.open("ab") as file:
        file.write(b'{"t":1000.5,"flo')
    reader = MomentReader(tmp_path)
    assert reader.end == 1000.4
    assert len(list(reader.moments())) == 5
    assert reader.damaged == 0


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\x1f\x8b not gzip"),
        lambda path: path.write_bytes(gzip.compress(b'{"key":3}\n{"t":1}\nnull\n[]\n"x"\n')),
        lambda path: path.write_bytes(path.read_bytes()[:200]),
        lambda path: path.write_bytes(gzip.compress(b"\n" * (1 << 20))),
    ],
)
def test_a_damaged_segment_costs_only_itself(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    written(tmp_path, 3 * SEGMENT_MOMENTS)
    spoil(segments(tmp_path / "moments")[1].path)
    reader = MomentReader(tmp_path)
    times = {m["t"] for m in reader.moments()}
    assert times >= {
        1000.0 + n / 10 for n in (*range(SEGMENT_MOMENTS), *range(2 * SEGMENT_MOMENTS, 3 * SEGMENT_MOMENTS))
    }
    found = reader.at(1000.0 + 1.5 * SEGMENT_MOMENTS / 10)
    assert found is not None
    assert found["t"] >= 1000.0 + (SEGMENT_MOMENTS - 1) / 10


@pytest.mark.parametrize("place", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("spoil", [lambda data, at: data[:at], lambda data, at: data[:at] + b"\xff" * 40])
def test_a_damaged_packed_segment_gives_what_is_before_the_damage(tmp_path: Path, spoil: Any, place: float) -> None:
    randomly = random.Random(1)
    writer = Writer(tmp_path)
    for number in range(SEGMENT_MOMENTS + 10):
        rows = [{"name": "a", "value": randomly.random()}]
        writer.write(orjson.dumps({"t": 1000.0 + number, "sources": [], "flows": rows}))
    writer.close()
    first, second = segments(tmp_path / "moments")
    data = first.path.read_bytes()
    first.path.write_bytes(spoil(data, int(place * len(data))))
    reader = MomentReader(tmp_path)
    times = [moment["t"] for moment in reader.moments()]
    left = [t for t in times if t < second.begin]
    assert left == [1000.0 + number for number in range(len(left))]
    assert place - 0.3 < len(left) / SEGMENT_MOMENTS < place + 0.1
    assert [t for t in times if t >= second.begin] == [second.begin + number for number in range(10)]
    assert reader.damaged >= 1


def test_foreign_files_are_left_alone(tmp_path: Path) -> None:
    written(tmp_path, 3)
    for name in ("notes.txt", "000000.jsonl", "000009-1-1.jsonl", ".000000-1000000000000-1.jsonl.gz.7"):
        (tmp_path / "moments" / name).write_text("mine")
    assert len(list(MomentReader(tmp_path).moments())) == 3


def test_only_one_process_writes(tmp_path: Path) -> None:
    writer = written(tmp_path, 1, close=False)
    assert is_written(tmp_path)
    with pytest.raises(UsageError, match="another process is writing"):
        Writer(tmp_path)
    writer.close()
    assert not is_written(tmp_path)


def test_after_kill_9_nothing_that_was_written_is_lost(tmp_path: Path) -> None:
    code = (
        "import orjson, sys, time; from pathlib import Path\n"
        "from kvdeck.sessions.store.telemetry.writer import Writer\n"
        f"writer = Writer(Path({str(tmp_path)!r}))\n"
        "n = 0\n"
        "while True:\n"
        "    writer.write(orjson.dumps({'t': 1000.0 + n, 'flows': [{'name': 'a', 'bytes_total': float(n)}]})); n += 1\n"
        "    print(n, flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = 0
    for line in process.stdout:
        said = int(line)
        if said == 700:
            process.kill()
            break
    said = max([said, *(int(line) for line in process.stdout if line.endswith("\n"))])
    process.wait()
    assert not is_written(tmp_path)
    times = [m["t"] for m in MomentReader(tmp_path).moments()]
    assert times[:said] == [1000.0 + n for n in range(said)]
    assert len(times) <= said + 1


def test_marks_are_kept_whatever_they_say(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.mark(Mark(2.0, "load\nstarted \x1b[31m", "note"))
    writer.mark(Mark(1.0, "x" * 5000, "thresh\nold"))
    writer.close()
    with marks_path(tmp_path).open("ab") as file:
        file.write(b'{"t": "soon", "text": 3}\nnull\n{"t": 5.0, "te')
    first, second = read_marks(tmp_path)
    assert (first.t, len(first.text), first.kind) == (1.0, 500, "note")
    assert (second.t, second.text) == (2.0, "load started [31m")


def test_marks_have_their_limit(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    long = Mark(1.0, "word " * 90)
    for _ in range(marks.MOST_BYTES // len(encode_mark(long))):
        writer.mark(long)
    with pytest.raises(SessionError, match="can't hold more annotations"):
        writer.mark(long)
    writer.mark(Mark(1e9, "the recording ended", "end"))
    writer.close()
    assert read_marks(tmp_path)[-1].kind == "end"


def test_a_full_disk_is_said_and_leaves_whole_lines(tmp_path: Path) -> None:
    code = (
        "import orjson, resource, signal; from pathlib import Path\n"
        "from kvdeck.sessions.store.telemetry.writer import Writer\n"
        "from kvdeck.sessions.errors import SessionError\n"
        f"writer = Writer(Path({str(tmp_path)!r})); n = 0\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))\n"
        "try:\n"
        "    while True:\n"
        "        writer.write(orjson.dumps({'t': 1000.0 + n, 'flows': [{'v': 'x' * 50 + str(n)}]})); n += 1\n"
        "except SessionError as error:\n"
        "    print(n, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    count, _, said = done.stdout.partition(" ")
    assert "can't write in" in said
    assert len(list(MomentReader(tmp_path).moments())) == int(count) > 10
    (path,) = (tmp_path / "moments").iterdir()
    assert path.read_bytes().endswith(b"\n")
    assert path.stat().st_mode & 0o077 == 0


ASKER = """
import sys
from pathlib import Path
from kvdeck.sessions.store.telemetry.annotations import is_written
print("ready", flush=True)
while True:
    is_written(Path(sys.argv[1]))
"""


def test_asking_whether_a_recording_is_written_keeps_no_writer_out(tmp_path: Path):
    marks_path(tmp_path).touch()
    askers = [subprocess.Popen([sys.executable, "-c", ASKER, str(tmp_path)], stdout=subprocess.PIPE) for _ in range(2)]
    try:
        for asker in askers:
            assert asker.stdout is not None
            assert asker.stdout.readline() == b"ready\n"
        for _ in range(300):
            fd = os.open(marks_path(tmp_path), os.O_WRONLY)
            assert marks.lock_as_writer(fd)
            assert marks.is_written(tmp_path)
            os.close(fd)
    finally:
        for asker in askers:
            asker.kill()
            asker.wait()
            assert asker.stdout is not None
            asker.stdout.close()


def test_a_recording_whose_keeper_lives_is_not_interrupted_between_two_writers(tmp_path: Path) -> None:
    """The engine starts another sampling process when one dies; meanwhile nobody holds the files."""
    store = Store(tmp_path)
    session = store.create("kept", {}, "")
    store.write(replace(session, kind="telemetry", state="running"))
    folder = store.folder("kept")
    writer = Writer(folder)
    assert keeping.state_now(folder, "running") == "running"
    writer.close()
    assert keeping.state_now(folder, "running") == "running"
    assert [row.state for row in catalogue(store)] == ["recording"]
    assert store.load("kept").state == "running"
    code = (
        "import sys; from kvdeck.sessions.host.processes import own_identity\n"
        "from kvdeck.sessions.store.owners import encode_owner\n"
        "sys.stdout.buffer.write(encode_owner(own_identity()))"
    )
    gone = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True).stdout
    (folder / "owner.json").write_bytes(gone)
    assert keeping.state_now(folder, "running") == "interrupted"
    assert [row.state for row in catalogue(store)] == ["interrupted"]
    assert store.load("kept").state == "interrupted"


def test_a_recording_inside_a_run_that_failed_says_why_in_the_runs_report(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.create("run", {}, "")
    keeping.begin_inside(store, "run", hz=1.0, sources=())
    keeping.end(store.inside("run"), keeping.INSIDE, "failed", "the sampling process died of SIGKILL")
    session = store.load("run")
    text = [line.text for line in telemetry_inside(session, 80)]
    assert text == [
        "",
        "Telemetry of that time: no samples",
        "  The recording did not end well: the sampling process died of SIGKILL",
    ]
