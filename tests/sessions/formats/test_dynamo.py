"""Dynamo's session files: read and written byte for byte, with every key kept."""

from __future__ import annotations

import os
import random
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvdeck.sessions.errors import SessionError
from kvdeck.sessions.formats import dynamo
from kvdeck.sessions.model.records import TransferCounts
from kvdeck.sessions.model.transfer_counts import LAYOUTS, ordered
from kvdeck.sessions.recorder import TransferCounter
from kvdeck.sessions.store import trace_counts

ONE_KEY = b"""{
  "session_name": "one",
  "session_duration_secs": 12.5,
  "metrics": {
    "HostToDisk_LayerSeparate { outer_contiguous: false }": {
      "transfer_count": 3,
      "total_bytes": 6145,
      "total_blocks": 2,
      "min_transfer_size": 2048,
      "max_transfer_size": 2049,
      "avg_transfer_size": 2048,
      "transfer_rate_bps": 491,
      "block_rate_bps": 0
    }
  }
}"""

numbers = st.integers(0, 2**64 - 1)


def counts_of(path: str, layout: str, values: tuple[int, ...]) -> TransferCounts:
    transfers, size, blocks, least, most, rate, block_rate = values
    return TransferCounts(
        path,
        layout,
        transfers=transfers,
        bytes=size,
        blocks=blocks,
        min_bytes=None if least == dynamo.NO_MINIMUM else least,
        max_bytes=most,
        stated_bytes_per_s=rate,
        stated_blocks_per_s=block_rate,
    )


keys = st.dictionaries(
    st.tuples(st.sampled_from(dynamo.DYNAMO_PATHS), st.sampled_from(LAYOUTS)),
    st.tuples(*[numbers] * 7),
    max_size=18,
)


@given(st.text(st.characters(exclude_categories=["Cs"])), st.floats(0, 1e9), keys)
def test_nothing_is_lost_on_the_way(name: str, seconds: float, held: dict[tuple[str, str], tuple[int, ...]]) -> None:
    counts = dynamo.Counts(name, seconds, ordered(counts_of(*key, values) for key, values in held.items()))
    written = dynamo.encode(counts)
    assert dynamo.parse(written) == counts
    assert dynamo.encode(dynamo.parse(written)) == written
    assert dynamo.left_out(counts.transfer_counts) == []


def test_a_file_is_written_as_it_was_read() -> None:
    assert dynamo.encode(dynamo.parse(ONE_KEY)) == ONE_KEY


def test_an_empty_session_has_its_braces_on_one_line() -> None:
    assert dynamo.encode(dynamo.Counts("e", 0.0)).endswith(b'"session_duration_secs": 0.0,\n  "metrics": {}\n}')


def test_the_eighteen_keys_stay_apart() -> None:
    transfer_counts = [
        TransferCounts(path, layout, transfers=n)
        for n, (path, layout) in enumerate((path, layout) for path in dynamo.DYNAMO_PATHS for layout in LAYOUTS)
    ]
    read = dynamo.parse(dynamo.encode(dynamo.Counts("all", 1.0, tuple(transfer_counts))))
    assert {(t.path, t.layout): t.transfers for t in read.transfer_counts} == {
        (t.path, t.layout): t.transfers for t in transfer_counts
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "truncated or invalid JSON"),
        (ONE_KEY[:-2], "truncated or invalid JSON"),
        (b"\xff\xfe{}", "truncated or invalid JSON"),
        (b"[" * 100_000, "truncated or invalid JSON"),
        (b"[]", "not an object"),
        (b'{"session_name": "a", "metrics": {}}', "'session_duration_secs' is missing"),
        (ONE_KEY.replace(b'"metrics"', b'"enabled": true, "metrics"'), "unknown field 'enabled'"),
        (ONE_KEY.replace(b'"metrics"', b'"session_name": "b", "metrics"'), "'session_name' occurs twice"),
        (ONE_KEY.replace(b"6145", b"-1"), "'total_bytes' of"),
        (ONE_KEY.replace(b"6145", b"1.5"), "'total_bytes' of"),
        (ONE_KEY.replace(b"6145", b"true"), "'total_bytes' of"),
        (ONE_KEY.replace(b"6145", b"18446744073709551616"), "18446744073709551616 does not fit"),
        (ONE_KEY.replace(b"12.5", b"-1"), "is not a duration"),
        (ONE_KEY.replace(b"12.5", b"NaN"), "truncated or invalid JSON"),
        (ONE_KEY.replace(b"HostToDisk_", b"HostToMoon_"), "unknown key 'HostToMoon_"),
        (b" " * (dynamo.MOST_BYTES + 1), "more than 4 MiB"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{len(value)} bytes",
)
def test_what_is_wrong_is_said_and_the_file_stays(tmp_path: Path, text: bytes, said: str) -> None:
    path = tmp_path / "bench_x.json"
    path.write_bytes(text)
    with pytest.raises(SessionError) as error:
        dynamo.read(path, patience=0.01)
    assert said in str(error.value)
    assert path.read_bytes() == text


def test_missing_numbers_have_their_defaults() -> None:
    text = b'{"session_name":"a","session_duration_secs":1,"metrics":{"HostToHost_FullyContiguous":{}}}'
    (found,) = dynamo.parse(text).transfer_counts
    assert (found.transfers, found.bytes, found.min_bytes, found.max_bytes) == (0, 0, None, 0)
    assert b'"min_transfer_size": 18446744073709551615' in dynamo.encode(dynamo.parse(text))


def test_mutated_files_never_crash_the_reader() -> None:
    choose = random.Random(4)
    for _ in range(10_000):
        data = bytearray(ONE_KEY)
        for _ in range(choose.randint(1, 4)):
            at = choose.randrange(len(data))
            match choose.randrange(4):
                case 0:
                    data[at] = choose.randrange(256)
                case 1:
                    del data[at : at + choose.randint(1, 40)]
                case 2:
                    data[at:at] = bytes(choose.randrange(256) for _ in range(choose.randint(1, 8)))
                case _:
                    data[at:at] = data[at : at + choose.randint(1, 60)]
            if not data:
                break
        try:
            counts = dynamo.parse(bytes(data))
        except ValueError:
            continue
        assert dynamo.parse(dynamo.encode(counts)) == counts


def test_a_reader_beside_a_writer_sees_whole_sessions_only(tmp_path: Path) -> None:
    path = tmp_path / "dynamo_benchmark_live.json"
    path.write_bytes(ONE_KEY)
    stop = threading.Event()

    def rewrite() -> None:
        number = 3
        while not stop.is_set():
            number += 1
            with path.open("wb") as file:  # as Dynamo does: cut to nothing, then written in pieces
                text = ONE_KEY.replace(b'"transfer_count": 3', b'"transfer_count": %d' % number)
                file.write(text[:200])
                file.flush()
                file.write(text[200:])

    writer = threading.Thread(target=rewrite)
    writer.start()
    try:
        seen = 0
        for _ in range(200):
            (one,) = dynamo.read(path, patience=5).transfer_counts
            assert one.transfers >= seen
            seen = one.transfers
    finally:
        stop.set()
        writer.join()


def test_the_fixture_of_test_count_100(tmp_path: Path) -> None:
    trace_counts.prepare(tmp_path)
    recorder = TransferCounter(tmp_path)
    for path, layout, size, blocks in dynamo.synthetic(100):
        recorder.record(path, layout, size, blocks, None)
    recorder.close()
    rows = {
        (t.path, t.layout): (t.transfers, t.bytes, t.blocks, t.min_bytes, t.max_bytes)
        for t in trace_counts.transfer_counts(tmp_path)
    }
    assert rows == {
        ("HostToDisk", LAYOUTS[0]): (34, 356864, 102, 8192, 12800),
        ("HostToDevice", LAYOUTS[1]): (33, 142848, 100, 2048, 6656),
        ("DeviceToHost", LAYOUTS[2]): (33, 144384, 98, 2048, 6656),
    }
    written = dynamo.encode(dynamo.Counts("test_session", 1.0, trace_counts.transfer_counts(tmp_path)))
    assert [written.count(b'"avg_transfer_size": %d,' % average) for average in (10496, 4328, 4375)] == [1, 1, 1]


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.delenv(dynamo.VARIABLE, raising=False)
    (tmp_path / "home/.dynamo").mkdir(parents=True)
    (tmp_path / "tmp").mkdir()
    return tmp_path


def test_which_session_is_active_and_why(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert dynamo.active_session() is None
    temp, home = dynamo.pointer_paths()
    home.write_text("by-home\n")
    assert dynamo.active_session() == dynamo.Active("by-home", str(home))
    temp.write_text("by-temp")
    os.utime(home, (1, 1))
    assert dynamo.active_session() == dynamo.Active("by-temp", str(temp))
    monkeypatch.setenv(dynamo.VARIABLE, "by-variable")
    found = dynamo.active_session()
    assert found is not None
    assert (found.name, "environment" in found.source) == ("by-variable", True)
    monkeypatch.setenv(dynamo.VARIABLE, "")
    assert dynamo.active_session() == dynamo.Active("", f"the environment, {dynamo.VARIABLE}")


def test_files_of_both_places_are_found(places: Path) -> None:
    temp, home = dynamo.session_paths("both")
    home.write_bytes(ONE_KEY)
    temp.write_bytes(ONE_KEY)
    os.utime(temp, (1, 1))
    dynamo.session_paths("only-temp")[0].write_bytes(ONE_KEY)
    assert dynamo.found_files() == {"both": home, "only-temp": dynamo.session_paths("only-temp")[0]}
