"""nixlbench's output, in the format it prints, and our results in its columns."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from kvdeck.sessions.analysis.compare import compare
from kvdeck.sessions.errors import SessionError
from kvdeck.sessions.formats import exchange
from kvdeck.sessions.formats.nixlbench import (
    NixlbenchRow,
    as_results,
    as_session,
    as_sessions,
    is_nixlbench,
    parse_nixlbench,
    parse_options,
)
from kvdeck.sessions.model.records import Interval, Session, StepResult
from kvdeck.sessions.text.comparison_report import diff_lines
from kvdeck.sessions.text.nixlbench_report import as_row, table_lines
from kvdeck.sessions.text.run_report import report_lines
from tests.support.builders.nixlbench_output import (
    PAIRWISE,
    SPRING_2025,
    SWEEP,
    TODAY,
    WITH_MORE,
    cells_of,
    laid,
    nixlbench_lines,
)

STARS = "*" * 160
WIDTHS = (20, 15, 15, *[15] * 7)
NAMES = ("Block Size (B)", "Batch Size", "B/W (GB/Sec)", "Avg Lat. (us)", "Avg Prep (us)", "P99 Prep (us)",
         "Avg Post (us)", "P99 Post (us)", "Avg Tx (us)",
         "P99 Tx (us)")  # fmt: skip


def row(*cells: object, widths=WIDTHS) -> str:
    return "".join(f"{cell!s:<{width}}" for cell, width in zip(cells, widths, strict=True))


OPTIONS = "\n".join(
    f"{said:<60}: {value}"
    for said, value in {
        "Runtime (--runtime_type=[etcd])": "ETCD",
        "Backend (--backend=[UCX,GDS,POSIX])": "POSIX",
        "Op type (--op_type=[READ,WRITE])": "READ",
        "Initiator seg type (--initiator_seg_type=[DRAM,VRAM])": "DRAM",
        "Storage enable direct (--storage_enable_direct=[0,1])": "1",
        "POSIX API type (--posix_api_type=[AIO,URING])": "URING",
    }.items()
)
OUTPUT = "\n".join(
    [
        "WARNING: num_iter rounded up to 1008",
        STARS,
        "NIXLBench Configuration",
        STARS,
        OPTIONS,
        STARS,
        "",
        row(*NAMES),
        "-" * 160,
        row(4096, 1, "0.512300", "8.0", "11.0", "11.0", "1.2", "3.0", "6.4", "9.9"),
        row(8192, 1, "1.024600", "8.0", "12.0", "12.0", "1.3", "3.1", "6.5", "10.0"),
        "INFO: done",
    ]
)


def test_every_row_is_read() -> None:
    first, second = parse_nixlbench(OUTPUT)
    assert first == NixlbenchRow(4096, 1, 0.5123, 8.0, 11.0, 11.0, 1.2, 3.0, 6.4, 9.9)
    assert (second.block_bytes, second.transfer_p99_us) == (8192, 10.0)
    assert is_nixlbench(OUTPUT)


def test_the_wider_table_of_many_processes() -> None:
    names = (*NAMES[:3], "Aggregate B/W (GB/Sec)", "Network Util (%)", *NAMES[3:])
    widths = (*WIDTHS[:3], 25, 20, *WIDTHS[3:])
    cells = (4096, 8, "1.5", "12.0", "6.0", "8.0", "1.0", "1.0", "1.0", "1.0", "1.0", "1.0")
    (only,) = parse_nixlbench("\n".join([row(*names, widths=widths), row(*cells, widths=widths)]))
    assert (only.aggregate_gb_per_s, only.network_percent, only.latency_us) == (12.0, 6.0, 8.0)


def test_what_is_no_table_holds_no_row() -> None:
    assert parse_nixlbench("1 2 3\nBlock Size\n4096 1 0.5 8 1 1 1 1 1 1\n") == []
    assert not is_nixlbench('{"session_name": "x"}')
    cut = OUTPUT[: OUTPUT.index("8192") + 20]
    assert len(parse_nixlbench(cut)) == 1
    with pytest.raises(ValueError, match="no row"):
        as_session("nothing", "x", 0.0)


def test_the_configuration_decides_the_path() -> None:
    options = parse_options(OUTPUT)
    assert options["op_type"] == "READ"
    results = as_results(parse_nixlbench(OUTPUT), options)
    assert {(result.path, result.api, result.direct, result.page_cache) for result in results} == {
        ("DiskToHost", "URING", True, "bypassed")
    }
    assert results[1].gb_per_s is not None
    assert results[1].gb_per_s.median == 1.0246
    assert results[1].request_us is None


@pytest.mark.parametrize(
    ("params", "path"),
    [
        ({}, "HostToHost"),
        ({"initiator_seg_type": "VRAM"}, "DeviceToHost"),
        ({"initiator_seg_type": "VRAM", "op_type": "READ"}, "HostToDevice"),
        ({"backend": "GDS", "initiator_seg_type": "VRAM"}, "DeviceToDisk"),
        ({"backend": "OBJ", "op_type": "READ"}, "DiskToHost"),
    ],
)
def test_paths(params, path: str) -> None:
    (result,) = as_results([NixlbenchRow(4096, 1, 1.0, 4.0)], params)
    assert result.path == path
    assert as_row(result) == NixlbenchRow(4096, 1, 1.0, 4.0)


def test_a_session_of_it_says_what_its_latency_means() -> None:
    session = as_session(OUTPUT, "theirs", 1.0)
    assert (session.state, len(session.results)) == ("done", 2)
    lines = table_lines(session.results, 100)
    assert any("per descriptor" in line for line in lines)
    assert all(len(line) <= 100 for line in lines)
    assert table_lines(()) == []


def test_a_saved_output_is_imported_as_it_is(tmp_path: Path) -> None:
    saved = tmp_path / "last-night.txt"
    saved.write_bytes(OUTPUT.encode() + b"\n\xff broken tail\n")
    session = exchange.read(saved)
    assert (session.name, session.kind, session.source) == ("last-night", "imported", str(saved))
    assert [result.block_bytes for result in session.results] == [4096, 8192]
    saved.write_text(OUTPUT[: OUTPUT.index("4096")])
    with pytest.raises(SessionError, match="no row of nixlbench's table"):
        exchange.read(saved)


def test_a_single_figure_is_not_shown_as_certainty() -> None:
    theirs = as_session(OUTPUT, "theirs", 1.0)
    shown = [line.text for line in report_lines(theirs, 100)]
    assert any("no interval: nixlbench prints one figure per step" in text for text in shown)
    assert not any("0.512 (" in text for text in shown)
    measured = tuple(replace(result, settings={}, gb_per_s=Interval(0.6, 0.59, 0.61)) for result in theirs.results)
    diff = compare(replace(theirs, name="ours", results=measured), theirs)
    assert [(row.low, row.high, row.verdict) for row in diff.keys] == [(None, None, "undecided")] * 2
    text = "\n".join(line.text for line in diff_lines(diff, 100))
    assert "theirs has no interval: nixlbench prints one figure per step, so there is no verdict" in text
    assert "95 %" not in text
    assert not any("no interval" in item for item in compare(replace(theirs, results=measured), replace(
        theirs, name="again", results=measured)).differences)  # fmt: skip


def test_the_table_of_spring_2025() -> None:
    lines = ["Loaded plugin UCX", *nixlbench_lines(SPRING_2025, options={})]
    session = as_session("\n".join(lines), "april", 0.0)
    assert session.state == "done"
    assert [result.gb_per_s.median for result in session.results if result.gb_per_s] == [0.5, 1.0, 1.5]
    text = "\n".join(line.text for line in report_lines(session, 100))
    assert "assumed, because the output doesn't have its configuration: backend UCX, op_type WRITE" in text
    first = next(line.split() for line in text.splitlines() if line.split()[:1] == ["4,096"])
    assert first == ["4,096", "1", "0.500", "6.10", *["–"] * 6]
    older = "\n".join(laid(cells) for cells in (SPRING_2025[:5], ("4096", "1", "6.5", "600", "0.5859")))
    (row,) = parse_nixlbench(older)  # a fork without the column in GB
    assert row.gb_per_s == pytest.approx(0.5859 * 2**30 / 1e9)


def test_the_report_shows_all_that_the_output_has() -> None:
    session = as_session("\n".join(nixlbench_lines(PAIRWISE)), "two pairs", 0.0)
    text = "\n".join(line.text for line in report_lines(session, 130))
    cells = next(line.split() for line in text.splitlines() if line.split()[:1] == ["4,096"])
    assert cells == ["4,096", "1", "0.500", "1.00", "2.00", *(f"{4.096 + n:.1f}0" if n < 6 else f"{4.096 + n:.1f}"
                                                              for n in range(5, 12))]  # fmt: skip
    assert "aggr. B/W" in text
    narrow = [line.text for line in report_lines(session, 80)]
    assert max(map(len, narrow)) <= 80
    assert "more columns when wider" in "\n".join(narrow)
    more = as_session("\n".join(nixlbench_lines(WITH_MORE)), "a fork", 0.0)
    assert "Jitter (us)" in "\n".join(line.text for line in report_lines(more, 130))
    assert "| DeviceToDevice | 4,096          | 1          | 0.500      |" in exchange.markdown(session)


def test_cloudai_s_csv(tmp_path: Path) -> None:
    saved = tmp_path / "nixlbench.csv"
    for head in ("block_size,batch_size,avg_lat,bw_mib_sec,bw_gib_sec,bw_gb_sec", ",block_size,batch_size,bw_gb_sec"):
        number = "0," * head.startswith(",")
        rate = "6.5,600.0,0.5859,0.6291" if "avg_lat" in head else "0.6291"
        saved.write_text(f"{head}\r\n{number}4096,1,{rate}\r\n")
        (result,) = exchange.read(saved).results
        assert result.gb_per_s is not None
        assert (result.block_bytes, result.batch, result.gb_per_s.median) == (4096, 1, 0.6291)
    saved.write_text("block_size,batch_size,avg_lat,bw_gb_sec\n4096,1,6.5,0.6\n8192,1,6.")
    session = exchange.read(saved)
    assert session.state == "interrupted"
    assert [result.status for result in session.results] == ["ok", "failed"]
    saved.write_text("block_size,batch_size,avg_lat,bw_gb_sec\n")
    with pytest.raises(SessionError, match="has no row"):
        exchange.read(saved)


def test_two_runs_in_one_log_each_have_their_own_configuration(tmp_path: Path) -> None:
    reads = {**SWEEP, "backend": "POSIX", "op_type": "READ", "initiator_seg_type": "DRAM", "max_block_size": "8192"}
    lines = [*nixlbench_lines(), "done", *nixlbench_lines(blocks=(4096, 8192), options=reads, rate=0.25)]
    first, second = as_sessions("\n".join(lines), "night", 0.0)
    assert (first.name, second.name) == ("night-1", "night-2")
    assert [result.path for result in first.results] == ["DeviceToDevice"] * 3
    assert [(result.path, result.backend) for result in second.results] == [("DiskToHost", "POSIX")] * 2
    assert (first.state, second.state) == ("done", "done")
    saved = tmp_path / "night.log"
    saved.write_text("\n".join(lines))
    with pytest.raises(SessionError, match="holds 2 runs of nixlbench") as refused:
        exchange.read(saved)
    assert "session import" in str(refused.value.fix)
    dead = [*nixlbench_lines(), *nixlbench_lines(blocks=())[:-2], "E1119 nixl_worker.cpp:900] registerMem failed"]
    whole, without = as_sessions("\n".join(dead), "night", 0.0)
    assert (whole.state, without.state, without.results) == ("done", "interrupted", ())
    assert "its table has no row" in str(without.reason)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([*nixlbench_lines()[:-1], laid(cells_of(TODAY, 16384)[:6]), "E1119 10:00 createXferReq failed", "Aborted"],
         ("its row of 16,384 B × 1 is cut after 6 of 10 columns: 2 whole rows of the 3 that its configuration asks "
          "for; the output ends with: Aborted")),
        ([*nixlbench_lines()[:-1], laid(cells_of(TODAY, 16384)[:2]) + "terminate called after throwing"],
         "is cut after 2 of 10 columns"),
        ([*nixlbench_lines()[:-1], laid([*cells_of(TODAY, 16384)[:3], "nan", *cells_of(TODAY, 16384)[4:]])],
         "has nan as latency_us"),
        ([*nixlbench_lines(blocks=(4096,)), "Segmentation fault (core dumped)"],
         "its table ends early: 1 whole row of the 3 that its configuration asks for; the output ends with: Segm"),
        (["\n".join(nixlbench_lines()).rpartition(".")[0]], "is cut within its last number"),
    ],
)  # fmt: skip
def test_an_unfinished_run_says_so(lines: list[str], said: str) -> None:
    session = as_session("\n".join(lines), "x", 0.0)
    assert session.state == "interrupted"
    assert str(session.reason).startswith("unfinished: ")
    assert said in str(session.reason)
    assert all((result.gb_per_s is None) == (result.status == "failed") for result in session.results)
    assert "interrupted" in report_lines(session, 100)[0].text


def test_what_follows_a_whole_table_doesn_t_unfinish_it() -> None:
    session = as_session("\n".join([*nixlbench_lines(), "Segmentation fault (core dumped)"]), "x", 0.0)
    assert (session.state, session.reason) == ("done", None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\n".join(nixlbench_lines()[:12]), "looks like nixlbench output but has no table"),
        ("\n".join(nixlbench_lines(blocks=())), "looks like nixlbench output but has no row of nixlbench's table"),
        ("\n".join([*nixlbench_lines(blocks=()), "4096 1 0.5"]),
         "looks like nixlbench output but has no whole row: that of 4,096 B is cut after 3 of 10 columns"),
        ("\n".join(nixlbench_lines(options={**SWEEP, "target_seg_type": "FILE"})),
         "looks like nixlbench output but no path has op_type WRITE, initiator_seg_type VRAM and target_seg_type FILE"),
        ("\n".join([laid(TODAY[:4]), *["4096 1 0.5 1.0"] * 10_001]), "has 1 table with 10,001 rows"),
        ("transfer_path,layout_type\na,b\n", "looks like Dynamo's CSV but has no column transfer_count"),
        (",".join(reversed(exchange.CSV_HEADER)) + "\n", "its columns have another order"),
        ('{"a": 1}\n{"a": 2}\n', "looks like JSON Lines"),
        ("## night\n\n| path |\n", "looks like Markdown"),
        ("hello\nworld\n", "its first line is 'hello'"),
        ("[1,0]<stdout>:waiting\n", "looks like JSON but"),
        ("", "it is empty"),
        ("\x1f\x8b\x08", "it is gzip"),
    ],
)  # fmt: skip
def test_a_refusal_names_the_format_it_looks_like(tmp_path: Path, text: str, said: str) -> None:
    saved = tmp_path / "saved"
    saved.write_bytes(text.encode("latin-1", errors="ignore"))
    with pytest.raises(SessionError) as refused:
        exchange.read(saved)
    assert said in refused.value.what


def test_the_first_byte_doesn_t_decide(tmp_path: Path) -> None:
    """JSON may hold a nixlbench log or Dynamo's words, and a log may begin like JSON."""
    kept = Session("mine", "done", 1.0, note="\n".join(nixlbench_lines()) + '"session_duration_secs" "metrics"')
    saved = tmp_path / "mine.kvdeck.json"
    saved.write_bytes(exchange.encode(kept, "kvdeck"))
    assert exchange.read(saved).note == kept.note
    for first in ("[1,0]<stdout>:", "{", "[", "PAR", "transfer_path,layout_type\n"):
        saved.write_text("\n".join([f"{first}NIXL INFO", *nixlbench_lines()]))
        assert len(exchange.read(saved).results) == 3
    counts = exchange.encode(replace(kept, note=""), "json")
    saved.write_bytes(b"\xef\xbb\xbf" + counts.replace(b"\n", b"\r\n"))
    assert exchange.read(saved).name == "mine"


def test_old_flags_and_workers_decide_the_path() -> None:
    (gds,) = as_results([NixlbenchRow(4096, 1, 1.0)], {"backend": "GDS", "op_type": "READ", "gds_enable_direct": "1",
                                                       "initiator_seg_type": "VRAM"})  # fmt: skip
    assert (gds.path, gds.direct, gds.settings.get("assumed")) == ("DiskToDevice", True, None)
    (nvshmem,) = as_results([NixlbenchRow(4096, 1, 1.0)], {"worker_type": "nvshmem", "initiator_seg_type": "VRAM",
                                                           "target_seg_type": "VRAM"})  # fmt: skip
    assert (nvshmem.backend, nvshmem.path) == ("nvshmem", "DeviceToDevice")


def test_kvdeck_s_figures_are_of_the_whole_wall_time() -> None:
    """As nixlbench's: bytes over all the time, so a stall counts, which a median leaves out."""
    (plain,) = as_results([NixlbenchRow(4096, 8, 2.0)], {})
    settings = {"threads": 2, "wall_s": 0.5, "prep_lists_us": 100_000.0}
    row = as_row(replace(plain, iterations=1000, bytes=1000 * 8 * 4096, settings=settings))
    assert row is not None
    assert row.gb_per_s == pytest.approx(1000 * 8 * 4096 / 0.6 / 1e9)
    assert row.latency_us == pytest.approx(0.6e6 / (1000 / 2 * 8))
    assert as_row(replace(plain, iterations=1000, bytes=1, settings={})) is None  # an earlier version's session


def paired(mode: str, scheme: str, initiators: int, targets: int, storage: bool = False) -> StepResult:
    """Ours of several devices: 12 GB/s together, its processes 3, 4 and 5 by their own time."""
    pairs = max(initiators, 1 if storage else targets)
    lanes = initiators if mode == "SG" and not storage else 1
    (plain,) = as_results([NixlbenchRow(4096, pairs // lanes * 8, 12.0, 0.0)], {})
    walls = {"lanes_wall_s": [12 / lanes / rate for rate in (3.0, 4.0, 5.0)]} if lanes > 1 else {}
    asked = {"mode": mode, "scheme": scheme, "initiators": initiators, "targets": targets, "storage": storage}
    return replace(plain, iterations=1000, bytes=12 * 10**9, settings={
        "threads": 1, "wall_s": 1.0, **walls,
        "scheme": {**asked, "pairs": pairs, "lanes": lanes, "batch": 8, "device": "memory"},
    })  # fmt: skip


@pytest.mark.parametrize(
    ("result", "rate", "aggregate", "latency", "said"),
    [
        (paired("SG", "pairwise", 3, 3), 3.0, 12.0, 4.096 / 3, "its aggregate is the sum of all"),
        (paired("MG", "pairwise", 3, 3), 12.0, None, 4.096 / 12, "counts all devices"),
        (paired("SG", "pairwise", 3, 1, storage=True), 12.0, None, 4.096 / 12, "counts all devices"),
        (paired("MG", "onetomany", 1, 4), 3.0, None, 4.096 / 3, "the bytes of one pair of 4"),
        (paired("SG", "manytoone", 3, 1), 3.0, None, 4.096 / 3, "without a sum"),
    ],
)
def test_several_devices_are_counted_as_nixlbench_counts_them(result, rate, aggregate, latency, said: str) -> None:
    row = as_row(result)
    assert row is not None
    assert (row.batch, row.gb_per_s) == (8, pytest.approx(rate))
    assert row.aggregate_gb_per_s == (None if aggregate is None else pytest.approx(aggregate))
    assert row.latency_us == pytest.approx(latency)
    lines = table_lines([result], 100)
    assert said in " ".join(lines)
    assert max(map(len, lines)) <= 100


def test_where_nixlbench_would_hang_there_is_no_row() -> None:
    result = paired("SG", "onetomany", 1, 3)
    assert as_row(result) is None
    assert "no row for onetomany in mode SG" in " ".join(table_lines([result], 100))
