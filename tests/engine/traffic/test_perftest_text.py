"""Texts of a traffic test: columns flush right, and the outcome of a verification."""

from __future__ import annotations

from kvdeck.engine.traffic.config import TrafficPattern
from kvdeck.engine.traffic.matrix import Matrix
from kvdeck.engine.traffic.perftest_text import received_lines, table, verified_lines

PATTERNS = [TrafficPattern(Matrix(((0, 5), (7, 0)))), TrafficPattern(Matrix(((0, 0), (0, 0))))]


def test_columns_are_as_upstream_s() -> None:
    rows = [("4.945", "35.047"), ("0.129", "-")]
    assert table(("Transfer size (GB)", "Latency (ms)"), rows) == [
        "Transfer size (GB)  Latency (ms)",
        "------------------  ------------",
        "             4.945        35.047",
        "             0.129             -",
    ]
    assert table(("A", "B"), []) == ["A  B", "-  -"]


def test_wrong_cells_are_listed_up_to_a_number() -> None:
    assert verified_lines(PATTERNS, []) == ["Verified: all 12 bytes of 2 patterns are right, each checked alone"]
    assert verified_lines(PATTERNS, ["one"]) == ["Wrong bytes:", "one"]
    assert verified_lines(PATTERNS, ["one"] * 22)[-1] == "and 2 cells more"


def test_received_messages_are_a_table() -> None:
    lines = received_lines(3, [(1, 0, 5, "0011223344", "deadbeef")])
    assert lines[0] == "Received in pattern 3"
    assert lines[3].split() == ["1", "0", "5", "0011223344", "deadbeef"]
