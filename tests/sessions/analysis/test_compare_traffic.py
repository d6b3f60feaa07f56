"""Two traffic tests compared: where the congestion ratio changed, and what can't be compared."""

from __future__ import annotations

from msgspec.structs import replace

from kvdeck.sessions.analysis.compare_traffic import TrafficDiff, change, compare_traffic, grown, judged
from kvdeck.sessions.model.measures import Interval
from kvdeck.sessions.model.records import Session
from kvdeck.sessions.model.traffic import PatternResult, TrafficResult
from kvdeck.sessions.text.traffic_comparison_report import traffic_diff_lines, traffic_diff_markdown


def row(pattern: int, together: Interval, ratio: Interval, size: int = 5000) -> PatternResult:
    return PatternResult(pattern, "WRITE", "DRAM", 1, size, 2, 2, None, together, ratio=ratio)


NARROW, WIDE = Interval(10.0, 9.9, 10.1), Interval(20.0, 19.8, 20.2)
ONE, TWO = Interval(1.0, 0.99, 1.01), Interval(2.0, 1.98, 2.02)


def session(name: str, *patterns: PatternResult, hosts: tuple[str, ...] = ()) -> Session:
    traffic = TrafficResult("sequential", 4, 2, hosts, patterns=patterns)
    return Session(name, "done", 0.0, kind="traffic", traffic_result=traffic)


def compared() -> TrafficDiff:
    a = session("a", row(0, NARROW, ONE), row(1, NARROW, ONE), row(2, NARROW, ONE), row(3, NARROW, ONE))
    b = session("b", row(0, WIDE, TWO), row(1, NARROW, ONE), row(2, NARROW, ONE, size=1), hosts=("far",))
    return compare_traffic(a, b)


def test_it_says_where_the_ratio_changed() -> None:
    diff = compared()
    assert [one.verdict for one in diff.rows] == ["slower", "no difference"]
    assert diff.rows[0].ratio is not None
    assert diff.rows[0].ratio.low < 2 < diff.rows[0].ratio.high
    assert diff.only_a == (3,)
    assert diff.differences == (
        "other hosts: none in A, far in B",
        "pattern 2 is a WRITE of 5,000 B ≈ 4.88 KiB by 2 senders, DRAM in A and a WRITE of 1 B by 2 senders, DRAM in B",
    )
    assert [one.pattern for one in grown(diff, 5)] == [0]
    assert grown(diff, 150) == []


def test_without_intervals_there_is_no_verdict() -> None:
    found = change(Interval(1.0, 1.0, 1.0), TWO)
    assert found is not None
    assert (found.median, found.known, judged(found)) == (2.0, False, "undecided")
    assert change(None, TWO) is None


def test_nixl_s_own_file_is_compared_by_bytes_and_senders() -> None:
    ours = session("a", row(0, NARROW, ONE))
    theirs = replace(row(0, NARROW, ONE), operation="unknown", memory="unknown")
    file = Session(
        "b", "done", 0.0, kind="imported", traffic_result=TrafficResult("sequential", 0, 0, patterns=(theirs,))
    )
    diff = compare_traffic(ours, file)
    assert (len(diff.rows), diff.differences) == (1, ())


def test_the_texts_have_a_row_for_each_pattern() -> None:
    lines = [line.text for line in traffic_diff_lines(compared())]
    assert "  differs: other hosts: none in A, far in B" in lines
    cells = next(line.split() for line in lines if line.split()[:1] == ["0"])
    assert cells[1:3] == ["10.000", "20.000"]
    assert cells[-1] == "slower"
    assert "Only in A: pattern 3" in lines
    assert "| slower" in traffic_diff_markdown(compared())
