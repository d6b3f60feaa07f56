"""Texts of a traffic test: columns flush right, dashes for what is unknown, and the outcome of a verification."""

from __future__ import annotations

from kvdeck.sessions.model.measures import Interval
from kvdeck.sessions.model.traffic import PatternResult, RankResult, TrafficResult
from kvdeck.sessions.text.traffic_report import rank_table, received_text, table, traffic_text, upstream_text

ROW = PatternResult(0, "WRITE", "DRAM", 1, 12, 1, 1, ratio=Interval(2.0, 1.5, 2.5))


def test_columns_are_as_upstream_s() -> None:
    rows = [("4.945", "35.047"), ("0.129", "-")]
    assert table(("Transfer size (GB)", "Latency (ms)"), rows) == [
        "Transfer size (GB)  Latency (ms)",
        "------------------  ------------",
        "             4.945        35.047",
        "             0.129             -",
    ]
    assert table(("A", "B"), []) == ["A  B", "-  -"]
    row = {"size": 1, "latency": None, "isolated_latency": None, "num_senders": 0, "mean_bw": None}
    lines = upstream_text({"iterations_results": [[row]] * 12})
    assert lines[:2] == [
        "Iteration 1", "Transfer size (GB)  Latency (ms)  Isolated Latency (ms)  Num Senders  Mean BW (GB/s)",
    ]  # fmt: skip
    assert lines[-1] == "2 iterations more: see --json-output-path"


def test_wrong_cells_are_listed_up_to_a_number() -> None:
    def end(*patterns: PatternResult, verified: bool | None) -> list[str]:
        return traffic_text(TrafficResult("sequential", 2, 1, patterns=patterns, verified=verified))

    right = PatternResult(0, "WRITE", "DRAM", 1, 12, 1, 1, verified=True)
    assert end(right, verified=True)[-1] == "Verified: all 12 bytes of 1 pattern are right, each checked alone"
    wrong = PatternResult(0, "WRITE", "DRAM", 1, 12, 1, 1, verified=False, wrong=("one",) * 22)
    assert end(wrong, verified=False)[-22] == "Wrong bytes:"
    assert end(wrong, verified=False)[-1] == "and 2 cells more"
    assert "erified" not in end(right, verified=None)[-1]


def test_a_ratio_stands_with_its_interval() -> None:
    lines = traffic_text(TrafficResult("sequential", 2, 1, patterns=(ROW,)))
    (row,) = (line.split() for line in lines if line.split()[:2] == ["0", "WRITE"])
    assert row[8:10] == ["2.00", "1.50-2.50"]
    assert row[4:6] == ["-", "-"]


def test_of_many_ranks_the_slowest_are_shown() -> None:
    ranks = [RankResult(rank, "", 5, float(rank) or None) for rank in range(64)]
    lines = rank_table(ranks)
    assert lines[0] == "The 32 slowest of 64 ranks"
    assert [line.split()[0] for line in lines[3:5]] == ["1", "2"]


def test_received_messages_are_a_table() -> None:
    lines = received_text([(3, 1, 0, 5, "0011223344", "deadbeef")])
    assert lines[0] == "Received in pattern 3"
    assert lines[3].split() == ["1", "0", "5", "0011223344", "deadbeef"]
