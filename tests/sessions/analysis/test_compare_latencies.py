"""Latencies and tiers of two telemetry sessions: what changed, in a sentence."""

from __future__ import annotations

from typing import Any

import orjson

from kvdeck.sessions.analysis.compare_telemetry import compare_flows
from kvdeck.sessions.model.records import Session
from kvdeck.sessions.model.telemetry import CounterTotals, HistogramTotals, TelemetryTotals
from kvdeck.sessions.store.telemetry.summary import Summary
from kvdeck.sessions.text.telemetry_comparison_report import telemetry_diff_lines, telemetry_diff_markdown

EDGES = (0.02, 0.04, 0.08, 0.16)


def observed(counts: tuple[int, ...], total: float, what: str = "ttft", source: str = ":8000") -> HistogramTotals:
    return HistogramTotals(source, "vllm", f"vllm:{what}_seconds", {}, what, "s", EDGES, counts, total)


def counter(name: str, gained: float, **labels: str) -> CounterTotals:
    return CounterTotals(":8000", "vllm", name, labels, "tokens", "tokens", gained)


def session(name: str, *observations: HistogramTotals, host: float = 0.0) -> Session:
    counters = (
        counter("vllm:prompt_tokens_total", 1000.0),
        counter("vllm:prompt_tokens_cached_by_source_total", host, source="host"),
    )
    totals = TelemetryTotals(begin=1.0, end=61.0, moments=60, counters=counters, histograms=observations)
    return Session(name=name, state="done", created=0.0, telemetry=totals)


def test_the_first_token_comes_first_and_a_sentence_says_what_changed() -> None:
    a = session("a", observed((0, 0, 90, 100, 100), 6.0), observed((9, 9, 9, 9, 9), 0.1, "e2e"))
    b = session("b", observed((95, 100, 100, 100, 100), 1.0), observed((9, 9, 9, 9, 9), 0.1, "e2e"), host=640.0)
    diff = compare_flows(a, b)
    assert [row.what for row in diff.latencies] == ["ttft", "e2e"]
    first = diff.latencies[0]
    assert (first.trend, first.counts, first.means) == ("faster", (100, 100), (0.06, 0.01))
    assert diff.conclusion == (
        "B's median time to first token is faster: 62.2 ms → 10.5 ms; hits changed: prompt tokens from host 0 % → 64 %."
    )
    text = [line.text for line in telemetry_diff_lines(diff, 160)]
    assert text.index(diff.conclusion) < next(n for n, line in enumerate(text) if line == "Latencies")
    assert "62.2 ms → 10.5 ms" in telemetry_diff_markdown(diff)


def test_medians_in_buckets_that_overlap_are_undecided() -> None:
    a, b = (session(name, observed((0, n, 100, 100, 100), 4.0)) for name, n in (("a", 60), ("b", 70)))
    diff = compare_flows(a, b)
    assert diff.latencies[0].trend == "undecided"
    assert "in buckets that overlap: undecided" in diff.conclusion


def test_sessions_without_latencies_are_compared_as_before() -> None:
    diff = compare_flows(session("a"), session("b"))
    assert diff.latencies == ()
    assert all("Latencies" not in line.text for line in telemetry_diff_lines(diff))


def row(before: list[int], gained: list[int] | None) -> dict[str, Any]:
    return {
        "source": "here",
        "name": "vllm:ttft",
        "labels": {},
        "what": "ttft",
        "unit": "s",
        "edges": [0.1, 1.0],
        "before": before,
        "gained": gained,
        "sum_before": 5.0,
        "sum_gained": None if gained is None else float(gained[-1]),
    }


def moment(t: float, found: dict[str, Any]) -> dict[str, Any]:
    source = {"name": "here", "kind": "vllm", "state": "live", "age_s": 0.1, "over_s": 1.0}
    return {"t": t, "sources": [source], "histograms": [found]}


def test_a_recording_adds_up_what_its_histograms_gained() -> None:
    summary = Summary()
    summary.take(moment(1.0, row([5, 7, 7], [1, 1, 1])))  # sampled since before the recording
    summary.take(moment(2.0, row([5, 7, 7], [3, 4, 4])))
    again = Summary.from_json(orjson.loads(orjson.dumps(summary.to_json())))
    again.take(moment(3.0, row([5, 7, 7], [6, 9, 9])))
    (found,) = again.result().observed
    assert (found.counts, found.total, found.edges) == ((5, 8, 8), 8.0, (0.1, 1.0))
