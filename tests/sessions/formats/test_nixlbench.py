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
    is_nixlbench,
    parse_nixlbench,
    parse_options,
)
from kvdeck.sessions.model.records import Interval, StepResult
from kvdeck.sessions.text.comparison_report import diff_lines
from kvdeck.sessions.text.nixlbench_report import as_row, table_lines
from kvdeck.sessions.text.run_report import report_lines

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


def paired(mode: str, scheme: str, initiators: int, targets: int, storage: bool = False) -> StepResult:
    """Ours of several devices: 12 GB/s together, its processes 3, 4 and 5 by their own time."""
    pairs = max(initiators, 1 if storage else targets)
    lanes = initiators if mode == "SG" and not storage else 1
    (plain,) = as_results([NixlbenchRow(4096, pairs // lanes * 8, 12.0, 0.0)], {})
    several = {"lanes_gb_per_s": [3.0, 4.0, 5.0][:lanes]} if lanes > 1 else {}
    asked = {"mode": mode, "scheme": scheme, "initiators": initiators, "targets": targets, "storage": storage}
    return replace(plain, settings={
        "threads": 1, **several, "scheme": {**asked, "pairs": pairs, "lanes": lanes, "batch": 8, "device": "memory"},
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
    assert (row.batch, row.gb_per_s, row.aggregate_gb_per_s) == (8, pytest.approx(rate), aggregate)
    assert row.latency_us == pytest.approx(latency)
    lines = table_lines([result], 100)
    assert said in " ".join(lines)
    assert max(map(len, lines)) <= 100


def test_where_nixlbench_would_hang_there_is_no_row() -> None:
    result = paired("SG", "onetomany", 1, 3)
    assert as_row(result) is None
    assert "no row for onetomany in mode SG" in " ".join(table_lines([result], 100))
