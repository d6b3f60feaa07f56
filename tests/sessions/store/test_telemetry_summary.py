"""What a recording comes to, how two stand against each other, and how that is said and passed on."""

from __future__ import annotations

import csv
import io
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from msgspec.structs import replace

from kvdeck.sessions.analysis.compare import compare
from kvdeck.sessions.analysis.compare_telemetry import compare_flows, slower
from kvdeck.sessions.errors import SessionError, UsageError
from kvdeck.sessions.formats import exchange, telemetry
from kvdeck.sessions.model.records import RunState, Session
from kvdeck.sessions.model.telemetry import FlowTotals
from kvdeck.sessions.stats import block_median_interval, median_interval
from kvdeck.sessions.store.catalogue import catalogue, matching
from kvdeck.sessions.store.owners import OWNER_GONE, owner_path
from kvdeck.sessions.store.store import Store
from kvdeck.sessions.store.telemetry import session as keeping
from kvdeck.sessions.store.telemetry.annotations import Mark
from kvdeck.sessions.store.telemetry.summary import MOST_VALUES, Sample, Summary
from kvdeck.sessions.store.telemetry.writer import Writer
from kvdeck.sessions.text.run_report import report_lines
from kvdeck.sessions.text.telemetry_comparison_report import telemetry_diff_lines, telemetry_diff_markdown

FLOW: dict[str, Any] = {
    "from": "G1",
    "to": "G2",
    "source": "http://a:1/metrics",
    "name": "kvbm offload",
    "metric": "m",
    "bytes_from_blocks": False,
    **dict.fromkeys(f"{what}_{form}" for what in ("bytes", "blocks", "failures") for form in ("total", "gained")),
    **dict.fromkeys(("bytes_per_s", "blocks_per_s", "transfers_total")),
}
T0 = 1_700_000_000.0


def moment(n: int, total: float | None, gained: float | None, rate: float | None, **more: Any) -> dict[str, Any]:
    source = more.get("source", FLOW["source"])
    flow = {**FLOW, "bytes_total": total, "bytes_gained": gained, "bytes_per_s": rate, **more}
    state = {"name": source, "kind": "kvbm", "state": "live", "reason": "", "age_s": 0.1}
    return {"t": T0 + n, "sources": [state], "flows": [flow], "counters": [], "gauges": [], "pinned": [], "checks": []}


def number(name: str, value: float, gained: float | None = None, group: str = "queue") -> dict[str, Any]:
    return {"source": FLOW["source"], "name": name, "labels": {}, "unit": "requests", "group": group, "value": value,
            "gained": gained}  # fmt: skip


def totals(moments: Sequence[dict[str, Any]]) -> FlowTotals:
    summary = Summary()
    for one in moments:
        summary.take(one)
    (flow,) = summary.result().flows
    return flow


def test_what_moved_before_the_recording_began_is_none_of_its() -> None:
    found = totals([moment(0, 900, 400, 10.0), moment(1, 950, 450, 50.0), moment(2, 950, 450, 0.0)])
    assert (found.bytes_moved, found.moving_s, found.mean) == (50, 1.0, 25.0)
    assert found.rate is not None
    assert (found.rate.moments, found.rate.median, found.rate.low) == (1, 50.0, None)


def test_a_reset_counter_and_a_sampler_begun_anew_lose_nothing() -> None:
    # The counter fell from 150 to 20 (the sampler's gained goes on), then another child took over.
    found = totals(
        [
            *(moment(0, 100, None, None), moment(1, 150, 50, 50.0), moment(2, 20, 70, None)),
            *(moment(3, 60, None, None), moment(4, 90, 30, 30.0)),
        ]
    )
    assert found.bytes_moved == 50 + 20 + 30


def test_what_nobody_told_is_null_and_not_0() -> None:
    found = totals([moment(0, None, None, None, blocks_total=5.0), moment(1, None, None, None, blocks_total=5.0)])
    assert (found.bytes_moved, found.blocks_moved, found.unit, found.rate) == (None, 0.0, "blocks/s", None)


def test_a_rate_that_is_read_again_and_again_counts_once() -> None:
    found = totals(
        [moment(0, 0, 0, None), *(moment(1 + n, 100 * (1 + n // 5), 100 * (1 + n // 5), 20.0) for n in range(20))]
    )
    assert found.rate is not None
    assert found.rate.moments == 4


def test_a_gap_is_no_time_in_which_something_moved() -> None:
    assert totals([moment(0, 0, 0, None), moment(3600, 100, 100, 1.0)]).moving_s == 0.0


def test_values_are_kept_from_all_over_the_recording() -> None:
    sample = Sample()
    for value in range(100_000):
        sample.add(float(value))
    assert len(sample.values) < MOST_VALUES
    spread = sample.spread()
    assert spread is not None
    assert spread.moments == 100_000
    assert spread.median == pytest.approx(50_000, rel=0.01)
    assert sample.values == sorted(sample.values)


def test_a_summary_goes_on_from_where_it_was_kept() -> None:
    moments = [moment(n, n * n, n * n, 2.0 * n, failures_total=n // 3, failures_gained=n // 3) for n in range(40)]
    for n, one in enumerate(moments):
        one["gauges"] = [number("waiting", float(n % 7))]
        one["counters"] = [number("preemptions", n, n)]
    whole, half = Summary(), Summary()
    for one in moments:
        whole.take(one)
    for one in moments[:17]:
        half.take(one)
    kept = Summary.from_json(orjson.loads(orjson.dumps(half.to_json())))
    for one in moments[17:]:
        kept.take(one)
    assert kept.result() == whole.result()
    assert whole.result().gauges[0].value.median == 3.0
    assert whole.result().counters[0].gained == 39


@pytest.mark.parametrize("data", [None, [], {}, {"begin": 0}, {"begin": 0, "end": 1, "moments": "x"}, b"", 3])
def test_a_damaged_summary_is_refused(data: Any) -> None:
    with pytest.raises(ValueError, match=r"summary|invalid literal"):
        Summary.from_json(data)


def test_neighbours_that_depend_on_each_other_widen_the_interval() -> None:
    """The interval of a slow wave's median must be wider than one that takes every value for a draw of its own."""
    noise = random.Random(1)
    wave = [math.sin(n / 20) + noise.gauss(0, 0.05) for n in range(400)]
    blocks, single = block_median_interval(wave), median_interval(wave)
    assert blocks is not None
    assert single is not None
    assert blocks.high - blocks.low > 1.5 * (single.high - single.low)
    assert block_median_interval(wave[:10]) is None, "too few blocks"
    shuffled = random.Random(2).sample(wave, len(wave))
    alike = block_median_interval(shuffled)
    assert alike is not None
    assert alike.high - alike.low < blocks.high - blocks.low


# --- as sessions ---


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "sessions").mkdir()
    return Store(tmp_path)


def recorded(
    store: Store,
    name: str,
    rates: Sequence[float],
    *,
    state: RunState | None = "done",
    source: str = "http://a:1/metrics",
) -> Session:
    keeping.begin(store, name, hz=1.0, sources=[source])
    writer = Writer(store.folder(name))
    summary, total = Summary(), 0.0
    for n, rate in enumerate(rates):
        total += rate
        one = moment(n, total, total if n else None, rate if n else None, source=source)
        one["gauges"] = [{**number("vllm:num_requests_waiting", 4.0), "source": source}]
        hits = [
            number(f"vllm:prefix_cache_{what}_total", n * k, n * k, "hits")
            for what, k in (("queries", 10), ("hits", 4))
        ]
        one["counters"] = [{**row, "source": source} for row in hits]
        writer.write(orjson.dumps(one))
        summary.take(one)
    writer.mark(Mark(T0 + 3, "load started"))
    writer.close()
    if state is None:
        return store.load(name)
    return keeping.end(store, name, state, None)


def rates(level: float, seed: int, count: int = 60) -> list[float]:
    noise = random.Random(seed)
    return [level * noise.uniform(0.9, 1.1) for _ in range(count)]


def text(lines: Sequence[Any]) -> str:
    return "\n".join(line.text for line in lines)


def test_a_recording_is_listed_and_reported_as_what_it_is(store: Store) -> None:
    session = recorded(store, "one", rates(1e9, 1))
    (row,) = catalogue(store)
    assert (row.kind, row.state, row.about) == ("telemetry", "done", "G1 → G2 · 59 s of 1 source")
    assert matching([row], ["G1"]) == [row]
    shown = text(report_lines(session, 100))
    assert "telemetry of 59 s" in shown
    assert "kvbm offload" in shown
    assert "load started" in shown
    assert "not independent" in shown
    assert "No transfers" not in shown, "it is no run without results"
    assert max(map(len, shown.splitlines())) <= 100
    assert max(map(len, text(report_lines(session, 60)).splitlines())) <= 60


def test_what_nobody_ended_has_one_reason_whatever_it_is(store: Store) -> None:
    recorded(store, "telemetry", rates(1e9, 1), state=None)
    store.create("run", {}, "")
    for name in ("telemetry", "run"):
        owner_path(store.folder(name)).unlink()
        assert store.load(name).reason == OWNER_GONE
    assert {row.reason for row in catalogue(store)} == {OWNER_GONE}


def test_one_that_nobody_ended_says_so_and_still_adds_up(store: Store) -> None:
    session = recorded(store, "cut", rates(1e9, 1), state=None)
    assert session.state == "queued", "the writer never said that it began"
    store.write(replace(store.read("cut"), state="running", started=T0))
    assert store.load("cut").state == "running", "its owner, this process, lives"
    owner_path(store.folder("cut")).unlink()
    session = store.load("cut")
    assert (session.state, session.reason, session.ended) == ("interrupted", OWNER_GONE, T0 + 59)
    assert session.telemetry is not None
    assert session.telemetry.moments == 60
    assert "without reporting" in text(report_lines(session, 100))
    (row,) = catalogue(store)
    assert (row.state, row.reason) == ("interrupted", OWNER_GONE)
    store.rename("cut", "kept")
    store.delete("kept")


def test_one_that_goes_on_is_not_renamed_or_deleted(store: Store) -> None:
    keeping.begin(store, "live")
    writer = Writer(store.folder("live"))
    store.write(replace(store.read("live"), state="running", started=T0))
    assert catalogue(store)[0].state == "recording"
    for what in (
        lambda: store.rename("live", "other"),
        lambda: store.delete("live"),
        lambda: store.change("live", lambda session: replace(session, note="x")),
    ):
        with pytest.raises(SessionError, match="is being recorded"):
            what()
    writer.close()


def test_before_and_after_a_change(store: Store) -> None:
    before = recorded(store, "before", rates(1.0e9, 1))
    after = recorded(store, "after", rates(1.4e9, 2), source="http://b:2/metrics")
    diff = compare_flows(before, after)
    (row,) = diff.flows
    assert row.trend == "faster"
    assert row.ratio == pytest.approx(1.4, rel=0.05)
    assert row.low is not None
    assert 1 < row.low < row.ratio
    assert not row.same_source
    assert diff.differences == ()
    assert [(g.a, g.b) for g in diff.gauges] == [(4.0, 4.0)]
    assert [(h.name, h.a, h.b) for h in diff.hit_rates] == [("vllm:prefix_cache_hit rate", 0.4, 0.4)]
    shown = text(telemetry_diff_lines(diff, 100))
    assert "matched by kind" in shown
    assert "faster" in shown
    for width in (60, 80, 120):
        assert max(map(len, text(telemetry_diff_lines(diff, width)).splitlines())) <= width
    assert "| G1 → G2 | kvbm offload |" in " ".join(telemetry_diff_markdown(diff).split())
    assert slower(diff, 5) == []
    assert [found.a.name for found in slower(compare_flows(after, before), 5)] == ["kvbm offload"]


def test_one_rate_has_no_winner(store: Store) -> None:
    diff = compare_flows(recorded(store, "a", rates(1e9, 1)), recorded(store, "b", rates(1e9, 2)))
    assert diff.flows[0].trend in ("no difference", "undecided")


def test_few_moments_decide_nothing(store: Store) -> None:
    diff = compare_flows(recorded(store, "a", rates(1e9, 1, 6)), recorded(store, "b", rates(9e9, 2, 6)))
    assert (diff.flows[0].trend, diff.flows[0].low) == ("undecided", None)
    assert slower(diff, 0) == []


def test_what_does_not_compare_is_said_first(store: Store) -> None:
    a = recorded(store, "a", rates(1e9, 1, 100))
    b = replace(
        recorded(store, "b", rates(1e9, 2, 20)), host={"hostname": "other"}, state="interrupted", reason="killed"
    )
    said = " · ".join(compare_flows(a, b).differences)
    for words in ("b is interrupted: killed", "1 min 39 s and 19 s long", "other"):
        assert words in said
    run = Session("run", "done", T0)
    for pair in ((a, run), (run, a)):
        assert any("is a telemetry session" in text for text in compare(*pair).differences)
        assert not compare(*pair).paths


def test_flows_of_one_side_stand_apart(store: Store) -> None:
    a, b = recorded(store, "a", rates(1e9, 1)), recorded(store, "b", rates(1e9, 2))
    assert a.telemetry is not None
    other = replace(a.telemetry.flows[0], name="kvbm onboard", source_tier="G2", target_tier="G1")
    a = replace(a, telemetry=replace(a.telemetry, flows=(*a.telemetry.flows, other)))
    diff = compare_flows(a, b)
    assert len(diff.flows) == 1
    assert "G2 → G1 kvbm onboard" in diff.only_a[0]
    assert diff.only_b == ()


def test_flows_over_time_as_csv_and_json(store: Store, tmp_path: Path) -> None:
    session = recorded(store, "one", rates(1e9, 1, 300))
    folder = store.folder("one")
    table = b"".join(telemetry.pieces(session, folder, "csv")).decode()
    rows = list(csv.DictReader(io.StringIO(table)))
    assert len(rows) == 300
    assert (rows[5]["from"], rows[5]["to"], rows[5]["metric"]) == ("G1", "G2", "m")
    assert float(rows[5]["t"]) == T0 + 5
    assert rows[0]["bytes_per_s"] == "", "not known is not 0"
    as_json = orjson.loads(b"".join(telemetry.pieces(session, folder, "json")))
    assert [row["bytes_total"] for row in as_json] == [float(row["bytes_total"]) for row in rows]
    lines = b"".join(telemetry.pieces(session, folder, "jsonl")).splitlines()
    assert orjson.loads(lines[7])["t"] == T0 + 7
    assert b"telemetry of" in b"".join(telemetry.pieces(session, folder, "markdown"))
    telemetry.write(session, folder, "kvdeck", tmp_path / "one.kvdeck.json")
    again = exchange.read(tmp_path / "one.kvdeck.json")
    assert again.telemetry == session.telemetry
    kept = store.keep(replace(again, name="kept", kind="imported"))
    assert "telemetry of" in text(report_lines(store.load(kept.name), 100))
    with pytest.raises(SessionError, match="are not on this host"):
        b"".join(telemetry.pieces(kept, store.folder("kept"), "csv"))
    with pytest.raises(UsageError, match="can't be written as"):
        telemetry.write(session, folder, "parquet", tmp_path / "x")
    assert not (tmp_path / "x").exists()
