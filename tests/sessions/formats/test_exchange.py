"""Files of strangers: whatever is in them, one sentence says what is wrong, and they stay as they are."""

from __future__ import annotations

import random
from pathlib import Path

import orjson
import pyarrow.parquet
import pytest
from msgspec.structs import replace

from kvdeck.sessions.errors import SessionError
from kvdeck.sessions.formats import exchange
from kvdeck.sessions.model.records import PATHS, Session, TransferCounts
from kvdeck.sessions.text.run_report import report_lines

TALLY = TransferCounts(
    "HostToDisk", "FullyContiguous", 3, 300, 2, 6, 50, 150, 1, 3, 300, 2, 0.5, ((50, 1), (125, 2)), ((0.125, 3),)
)
KEPT = Session("kept", "done", 1.0, kind="imported", transfer_counts=(TALLY,), host={"hostname": "dgx"}, tags=("cold",))


def test_our_own_json_keeps_everything(tmp_path: Path) -> None:
    path = tmp_path / "kept.kvdeck.json"
    path.write_bytes(exchange.encode(KEPT, exchange.format_of(path)))
    assert exchange.read(path) == replace(KEPT, source=str(path))


def test_what_a_format_has_no_place_for_is_said() -> None:
    assert exchange.left_out(KEPT, "kvdeck") == []
    assert set(exchange.left_out(KEPT, "json")) == {"failures", "times", "descriptors", "the distribution of sizes"}
    assert set(exchange.left_out(KEPT, "csv")) == {"failures", "times", "descriptors", "the distribution of sizes"}
    plain = replace(KEPT, transfer_counts=(TransferCounts("HostToDisk", "FullyContiguous", 1, sizes=((5, 1),)),))
    assert exchange.left_out(plain, "csv") == ["the distribution of sizes"]
    strange = replace(KEPT, transfer_counts=(TransferCounts("DiskToHost", "Unknown", 1),))
    assert exchange.left_out(strange, "json") == ["DiskToHost Unknown"]


def test_markdown_has_a_row_for_each_layout() -> None:
    text = exchange.encode(KEPT, "markdown").decode()
    assert "| HostToDisk | FullyContiguous | 3 | 300 B | 2 | 100 B | 3 |" in " ".join(text.split())


OTHER = TransferCounts("DiskToHost", "Unknown", 1, 2**64 - 1, min_bytes=2**64 - 1, max_bytes=2**64 - 1)


def test_parquet_is_a_table_to_others_and_keeps_every_count(tmp_path: Path) -> None:
    two = replace(KEPT, transfer_counts=(TALLY, OTHER))
    path = tmp_path / "counts.parquet"
    path.write_bytes(exchange.encode(two, exchange.format_of(path)))
    assert exchange.left_out(two, "parquet") == []
    columns = pyarrow.parquet.read_table(path).to_pydict()
    assert columns["session"] == ["kept", "kept"]
    assert columns["bytes"] == [300, 2**64 - 1]
    assert columns["sizes"][0] == [{"bytes": 50, "count": 1}, {"bytes": 125, "count": 2}]
    assert columns["times"] == [[{"seconds": 0.125, "count": 3}], []]
    read = exchange.read(path)
    assert (read.name, read.kind) == ("kept", "imported")
    assert set(read.transfer_counts) == {TALLY, OTHER}


def test_a_session_of_nothing_is_a_parquet_file_without_rows(tmp_path: Path) -> None:
    path = tmp_path / "empty.parquet"
    path.write_bytes(exchange.encode(replace(KEPT, transfer_counts=()), "parquet"))
    assert exchange.read(path).transfer_counts == ()


def test_other_parquet_files_are_refused_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "other.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"a": [1], "sizes": [3]}), path)
    whole = exchange.encode(KEPT, "parquet")
    for data in (path.read_bytes(), whole[: len(whole) // 2], b"PAR1" + bytes(100), b"PAR1"):
        path.write_bytes(data)
        with pytest.raises(SessionError, match="is not a session"):
            exchange.read(path)
        assert path.read_bytes() == data


def test_without_pyarrow_parquet_is_refused_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "counts.parquet"
    path.write_bytes(exchange.encode(KEPT, "parquet"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for use in (lambda: exchange.encode(KEPT, "parquet"), lambda: exchange.read(path)):
        with pytest.raises(SessionError, match="Parquet needs pyarrow, which is not installed"):
            use()


NIXLBENCH = (
    "Backend (--backend=[UCX,POSIX])      : POSIX\n"
    "Op type (--op_type=[READ,WRITE])     : READ\n"
    "Initiator seg type (--initiator_seg_type=[DRAM,VRAM]) : DRAM\n"
    + "".join(f"{name:<18}" for name in ("Block Size (B)", "Batch Size", "B/W (GB/Sec)", "Avg Lat. (us)"))
    + "\n"
    + "".join(f"{cell:<18}" for cell in ("4096", "16", "0.512300", "8.0"))
    + "\n"
).encode()


def test_nixlbench_s_output_is_a_session(tmp_path: Path) -> None:
    path = tmp_path / "bench.txt"
    path.write_bytes(NIXLBENCH)
    (result,) = exchange.read(path).results
    assert (result.path, result.block_bytes, result.batch) == ("DiskToHost", 4096, 16)
    assert result.gb_per_s is not None
    assert result.gb_per_s.median == 0.5123


def test_mutated_files_never_crash_a_reader(tmp_path: Path) -> None:
    whole = [
        exchange.encode(KEPT, "kvdeck"),
        exchange.encode(KEPT, "csv"),
        exchange.encode(KEPT, "parquet"),
        NIXLBENCH,
        orjson.dumps({"name": "x", "state": "done", "created": 1, "tallies": [], "results": [{"path": 1}]}),
    ]
    choose, path = random.Random(7), tmp_path / "mutated"
    for number in range(10_000):
        data = bytearray(whole[number % len(whole)])
        for _ in range(choose.randint(1, 3)):
            at = choose.randrange(len(data))
            kind = choose.randrange(4)
            if kind == 0:
                data[at] = choose.randrange(256)
            elif kind == 1:
                del data[at : at + choose.randint(1, 30)]
            elif kind == 2:
                data[at:at] = choose.choice([b"null", b"-1", b'"x"', b"[[[", b"1e400", b"true", b"\xff", b"{}"])
            else:
                data[at : at + 1] = data[at : at + 20] * 2
            if not data:
                break
        path.write_bytes(data)
        try:
            session = exchange.read(path)
        except SessionError:
            pass
        else:
            report_lines(session)
            exchange.encode(session, "json")
        assert path.read_bytes() == data
        path.unlink()  # a file that is made anew costs a tenth of one that is cut and written again


@pytest.mark.parametrize(
    "data", [b"", b"\x00" * 1000, b"{" * 5000, b"[1]", b"\x7fELF\x02\x01", "söß".encode("latin-1")]
)
def test_foreign_files_are_refused_in_a_sentence(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "foreign"
    path.write_bytes(data)
    with pytest.raises(SessionError, match="is not a session"):
        exchange.read(path)
    with pytest.raises(SessionError, match="can't read"):
        exchange.read(tmp_path)


def test_the_sample_of_an_h100_is_read_whole() -> None:
    """Its figures stand in docs/gpu.md."""
    sample = Path(__file__).parents[3] / "docs" / "samples" / "h100.json"
    session = exchange.read(sample)
    assert session.state == "done"
    assert {result.path for result in session.results} == set(PATHS)
    assert all(result.verified and result.status == "ok" for result in session.results)
    page = (sample.parents[1] / "gpu.md").read_text()
    for result in session.results:
        if "Device" in result.path:
            assert result.gb_per_s is not None
            figure = result.gb_per_s
            median, low, high = (f"{value:#.3g}".rstrip(".") for value in (figure.median, figure.low, figure.high))
            assert f"{median} GB/s ({low}–{high})" in page
