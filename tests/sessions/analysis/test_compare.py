"""Comparing: what differs is said first, layouts compare across, and both better and worse are said."""

from __future__ import annotations

import random

import pytest
from msgspec.structs import replace

from kvdeck.sessions.analysis.compare import compare, percent_change, regressions
from kvdeck.sessions.model.records import Comparison, Interval, Session, StepResult, TransferCounts
from kvdeck.sessions.stats import independent_ratio, median_interval
from kvdeck.sessions.text.comparison_report import diff_lines, diff_markdown

FC, LS = "FullyContiguous", "LayerSeparate { outer_contiguous: false }"


def step(number: int, layout: str = FC, rate: float = 10.0, **changes: object) -> StepResult:
    result = StepResult(
        step=number, trial=0, path="HostToHost", layout=layout, backend="UCX", api=None, direct=None, page_cache=None,
        durable=None, block_bytes=1 << 20, batch=16, descriptors_per_block=1 if layout == FC else 64,
        descriptors_per_request=16, merged=False, blocks=64, iterations=100, warmup_iterations=1, bytes=1600 << 20,
        prep_us=None, post_us=None, transfer_us=None, request_us=None,
        gb_per_s=Interval(rate, rate * 0.98, rate * 1.02), reference_gb_per_s=None, reference=None, efficiency=None,
        verified=True, status="ok", reason=None,
    )  # fmt: skip
    return replace(result, **changes)  # type: ignore[arg-type]


def session(name: str, *results: StepResult, **changes: object) -> Session:
    made = Session(name, "done", 1.0, host={"hostname": "dgx"}, results=results)
    return replace(made, **changes)  # type: ignore[arg-type]


def counted(name: str, *transfer_counts: TransferCounts) -> Session:
    return Session(name, "done", 1.0, kind="trace", host={"hostname": "dgx"}, transfer_counts=transfer_counts)


def said(diff) -> str:
    return "\n".join(line.text for line in diff_lines(diff, 100))


def test_layouts_compare_across() -> None:
    diff = compare(session("a", step(0, FC, 10.0)), session("b", step(0, LS, 5.0)))
    (row,) = diff.paths
    assert diff.keys == ()
    assert (row.a.layouts, row.b.layouts) == ((FC,), (LS,))
    assert (row.a.descriptors_per_block, row.b.descriptors_per_block) == (1, 64)
    assert row.ratio == pytest.approx(2.0)
    assert row.low is not None
    assert row.low < 2 < row.high
    assert row.verdict == "slower"
    assert row.b.us_per_block == pytest.approx((1 << 20) / 5e9 * 1e6)
    assert "B takes 2.00× A's time" in said(diff)
    assert diff.only_a == ()


def test_what_one_side_has_alone_is_named() -> None:
    diff = compare(session("a", step(0, FC)), session("b", step(0, FC), step(1, LS)))
    assert diff.only_a == ()
    assert diff.only_b == ("HostToHost LayerSeparate { outer_contiguous: false }, 1 MiB × 16",)
    assert len(diff.keys) == 1


def test_one_run_s_own_ratio_is_the_interleaved_one() -> None:
    comparison = Comparison(0, "HostToHost", FC, LS, 1 << 20, 16, 1.9, 1.8, 2.0, "slower")
    run = session("a", step(0, FC), step(1, LS, 5.0), comparisons=(comparison,))
    parts = [replace(run, results=(result,)) for result in run.results]
    (row,) = compare(*parts).paths
    assert (row.ratio, row.low, row.high) == (1.9, 1.8, 2.0)
    (row,) = compare(*reversed(parts)).paths
    assert (row.ratio, row.low, row.high, row.verdict) == (1 / 1.9, 1 / 2.0, 1 / 1.8, "faster")


def test_what_does_not_compare_is_said_first() -> None:
    other = session("b", step(0, block_bytes=2 << 20, backend="POSIX"), host={"hostname": "elsewhere"}, nixl="1.5")
    lines = said(compare(session("a", step(0), nixl="1.4"), other)).splitlines()
    assert lines[1] == "These differ, so compare with care:"
    for words in ("host: dgx and elsewhere", "NIXL: 1.4 and 1.5", "bytes per block: 1 MiB and 2 MiB", "backend: UCX"):
        assert any(words in line for line in lines[2:8]), words


def test_other_pages_of_memory_are_said() -> None:
    huge, plain = ({"pages": [name], "huge_pages": "huge" in name} for name in ("reserved huge pages", "4 KiB pages"))
    of_pages = "HostToHost, memory: reserved huge pages and plain pages"
    a = session("a", step(0, settings=huge))
    assert of_pages in said(compare(a, session("b", step(0, settings=plain))))
    assert of_pages in said(compare(a, session("b", step(0, settings={"huge_pages": False}))))  # an earlier version's
    assert "memory:" not in said(compare(a, session("b", step(0))))
    assert "memory:" not in said(compare(a, replace(a, name="b")))


def test_other_hosts_are_said_first() -> None:
    def between(name: str, peer: str) -> Session:
        return session(name, step(0), host={"hostname": "node1", "peers": [{"host": {"hostname": peer}}]})

    assert "not the same hosts: node1 → node2 and node1 → node3" in said(
        compare(between("one", "node2"), between("two", "node3"))
    )
    assert "not the same hosts" not in said(compare(between("one", "node2"), between("two", "node2")))


def test_insights_go_both_ways() -> None:
    before = counted("a", TransferCounts("HostToDisk", FC, transfers=100, bytes=1000, stated_bytes_per_s=100))
    after = counted("b", TransferCounts("HostToDisk", FC, transfers=80, bytes=1000, stated_bytes_per_s=90))
    found = [(item.kind, item.what) for item in compare(before, after).insights]
    assert found == [("improvement", "size"), ("improvement", "count"), ("regression", "rate")]
    back = [(item.kind, item.what) for item in compare(after, before).insights]
    assert back == [("regression", "size"), ("regression", "count"), ("improvement", "rate")]
    assert compare(before, before).insights == ()
    assert "No significant performance changes detected." in said(compare(before, before))


def test_nothing_in_common_is_not_called_unchanged() -> None:
    diff = compare(session("a", step(0)), session("b", step(0, path="DeviceToDevice")))
    assert diff.keys == ()
    assert "They have no path and layout in common." in said(diff)
    assert "No significant performance changes detected." not in said(diff)


def test_what_chance_may_explain_is_no_insight() -> None:
    unsure = session("b", step(0, gb_per_s=Interval(9.0, 5.0, 13.0)))
    assert compare(session("a", step(0)), unsure).insights == ()
    (item,) = compare(session("a", step(0, FC, 10.0)), session("b", step(0, LS, 5.0))).insights
    assert (item.kind, item.what, item.percent) == ("regression", "rate", pytest.approx(-50))


def test_the_thresholds_are_dynamo_s() -> None:
    def rate(value: int) -> Session:
        return counted("x", TransferCounts("HostToDisk", FC, transfers=1, bytes=1, stated_bytes_per_s=value))

    assert compare(rate(1000), rate(1050)).insights == ()
    assert [item.kind for item in compare(rate(1000), rate(1051)).insights] == ["improvement"]
    assert [item.percent for item in compare(rate(0), rate(5)).insights] == [None]
    assert percent_change(0, 0) == 0


def test_a_regression_needs_its_whole_interval() -> None:
    a, b = session("a", step(0, rate=10.0)), session("b", step(0, rate=9.0))
    assert len(regressions(compare(a, b), 5)) == 1
    assert regressions(compare(a, b), 20) == []
    unsure = session("b", step(0, gb_per_s=Interval(9.0, 5.0, 13.0)))
    assert regressions(compare(a, unsure), 5) == []


def test_text_and_exit_status_follow_one_rule() -> None:
    """What the text lists as a regression is what `--fail-on-regression 5` fails on, in every kind of row."""
    a = session("a", step(0, rate=10.0), step(1, rate=10.0, block_bytes=4096),
                step(2, FC, 10.0, path="HostToDisk"), step(3, rate=10.0, block_bytes=8192))  # fmt: skip
    b = session("b", step(0, rate=9.0), step(1, block_bytes=4096, gb_per_s=Interval(8.0, 8.0, 8.0)),
                step(2, LS, 5.0, path="HostToDisk"), step(3, rate=9.9, block_bytes=8192))  # fmt: skip
    diff = compare(a, b)
    failing = {(row.path, row.block_bytes) for row in regressions(diff, 5)}
    assert failing == {("HostToHost", 1 << 20), ("HostToDisk", 1 << 20)}
    assert {(item.path, item.block_bytes) for item in diff.insights if item.kind == "regression"} == failing
    assert "Undecided for 1 row: a single figure has no interval." in said(diff)


def test_changes_that_have_no_interval_are_not_called_regressions() -> None:
    before = counted("a", TransferCounts("HostToDisk", FC, transfers=100, bytes=1000, stated_bytes_per_s=100))
    after = counted("b", TransferCounts("HostToDisk", FC, transfers=200, bytes=1000, stated_bytes_per_s=50))
    diff = compare(before, after)
    assert regressions(diff, 5) == []
    assert not any(item.judged for item in diff.insights)
    assert "Changes of counts and stated rates, not judged" in said(diff)
    assert "Regressions" not in said(diff)


def test_what_a_file_doesn_t_have_is_a_dash() -> None:
    def imported(name: str, rate: float) -> Session:
        single = step(0, gb_per_s=Interval(rate, rate, rate), iterations=0, bytes=0,
                      settings={"measured_by": "nixlbench"})  # fmt: skip
        return session(name, single)

    diff = compare(imported("a", 10.0), imported("b", 5.0))
    (row,) = diff.keys
    assert (row.a.transfers, row.a.bytes, row.a.average_bytes, row.a.blocks) == (None,) * 4
    lines = said(diff).splitlines()
    cells = next(line.split() for line in lines if line.split()[:2] == ["A", "fc"])
    assert cells == ["A", "fc", "–", "–", "–", "–", "–", "10.0"]
    assert "+0.0 %" not in said(diff)
    assert "Undecided for 1 row: a single figure has no interval." in lines
    assert "No significant performance changes detected." not in lines
    assert "| – → – " in diff_markdown(diff)
    assert regressions(diff, 5) == []


def test_the_ratio_s_interval_agrees_with_a_bootstrap() -> None:
    choose = random.Random(1)
    a = [choose.lognormvariate(0, 0.1) for _ in range(60)]
    b = [choose.lognormvariate(0.3, 0.1) for _ in range(60)]
    ratio = independent_ratio(median_interval(a), median_interval(b))
    medians = sorted(sorted(choose.choices(b, k=60))[30] / sorted(choose.choices(a, k=60))[30] for _ in range(2000))
    assert ratio.low == pytest.approx(medians[50], rel=0.03)
    assert ratio.high == pytest.approx(medians[1950], rel=0.03)


def test_nothing_in_common() -> None:
    empty = counted("b")
    diff = compare(session("a", step(0)), empty)
    assert diff.differences == ("b has no transfers",)
    assert "no path and layout in common" in said(diff)
    assert diff_markdown(diff).startswith("## a and b")


@pytest.mark.parametrize("width", [60, 80, 100])
def test_the_text_fits(width: int) -> None:
    diff = compare(session("a", step(0), step(1, LS, 4.0)), session("b", step(0), step(1, LS, 9.0)))
    assert max(len(line.text) for line in diff_lines(diff, width)) <= width
