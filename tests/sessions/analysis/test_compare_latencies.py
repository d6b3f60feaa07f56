"""Latencies and tiers of two telemetry sessions: what changed, in a sentence."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from kvdeck.sessions.analysis.compare_telemetry import TelemetryDiff, compare_flows
from kvdeck.sessions.model.records import Session
from kvdeck.sessions.model.telemetry import CounterTotals, GaugeTotals, HistogramTotals, Spread, TelemetryTotals
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


def held(name: str, *counters: CounterTotals, gauges: tuple[GaugeTotals, ...] = ()) -> Session:
    totals = TelemetryTotals(begin=1.0, end=61.0, moments=60, counters=counters, gauges=gauges)
    return Session(name=name, state="done", created=0.0, telemetry=totals)


def rates(diff: TelemetryDiff) -> dict[str, tuple[float | None, float | None]]:
    return {row.name: (row.a, row.b) for row in diff.hit_rates}


PROMPTS = counter("vllm:prompt_tokens_total", 1000.0)
BY_SOURCE = "vllm:prompt_tokens_cached_by_source_total"


def test_a_tier_that_one_side_has_is_a_row_with_a_dash_on_the_other() -> None:
    a = held("a", PROMPTS, counter(BY_SOURCE, 100.0, source="device"))
    b = held("b", PROMPTS, counter(BY_SOURCE, 100.0, source="device"), counter(BY_SOURCE, 640.0, source="host"))
    diff = compare_flows(a, b)
    assert rates(diff) == {"prompt tokens from device": (0.1, 0.1), "prompt tokens from host": (None, 0.64)}
    assert "no hit rate changed" not in diff.conclusion
    assert "known in B only: prompt tokens from host 64 %" in diff.conclusion
    (shown,) = [line.text for line in telemetry_diff_lines(diff, 160) if "prompt tokens from host" in line.text]
    assert shown.split()[4:7] == ["–", "64", "%"]
    assert "| prompt tokens from host | – | 64 % |" in " ".join(telemetry_diff_markdown(diff).split())
    assert "known in A only: prompt tokens from host 64 %" in compare_flows(b, a).conclusion


def test_hit_rates_are_over_all_engines_of_a_side() -> None:
    def engines(name: str, *hits: float, prefix: str = "vllm:") -> Session:
        rows = [counter(f"{prefix}prefix_cache_queries_total", 100.0, engine=str(n)) for n in range(len(hits))]
        rows += [counter(f"{prefix}prefix_cache_hits_total", hit, engine=str(n)) for n, hit in enumerate(hits)]
        return held(name, *rows)

    a, b = engines("a", 90.0, 10.0), engines("b", 10.0, 30.0, 20.0, prefix="ray_vllm_")
    assert rates(compare_flows(a, b)) == {"vllm:prefix_cache_hit rate": (0.5, 0.2)}
    counted = compare_flows(a, engines("c", 1.0, 2.0)).counters
    assert [(row.name, row.a, row.b) for row in counted] == [
        ("vllm:prefix_cache_queries_total", 200.0, 200.0),
        ("vllm:prefix_cache_hits_total", 100.0, 3.0),
    ]


def test_tiers_of_a_label_have_a_rate_each_and_other_exporters_theirs() -> None:
    stem = "vllm:kv_offload_tiering_chunk"
    tiers = (
        counter(f"{stem}_queries_total", 287_616.0, tier="0:primary"),
        counter(f"{stem}_queries_total", 41_936.0, tier="1:fs"),
        counter(f"{stem}_hits_total", 40_942.0, tier="1:fs"),
        counter("trtllm_kv_cache_reused_blocks_total", 30.0),
        counter("trtllm_kv_cache_missed_blocks_total", 70.0),
        *(counter("sglang:prompt_tokens_total", 100.0, tp_rank=rank) for rank in "01"),
        *(counter("sglang:cached_tokens_total", 25.0, tp_rank=rank, cache_source="device") for rank in "01"),
        counter("sglang:cached_tokens_total", 5.0, tp_rank="1", cache_source="host"),
    )
    found = rates(compare_flows(held("a", *tiers), held("b", *tiers)))
    assert found == {
        f"{stem}_hit rate (1:fs)": (pytest.approx(0.9763, abs=1e-4),) * 2,
        "trtllm_kv_cache_reused_blocks share": (0.3, 0.3),
        "prompt tokens from device": (0.25, 0.25),
        "prompt tokens from host": (0.05, 0.05),
    }


def test_each_engine_of_a_source_is_compared_with_its_own() -> None:
    def running(name: str, *values: float) -> Session:
        gauges = (
            GaugeTotals(":8000", "vllm", "vllm:num_requests_running", {"engine": str(n)}, "requests", "queue", value)
            for n, value in enumerate(Spread(60, value, None, None, value, value, value) for value in values)
        )
        return held(name, gauges=tuple(gauges))

    diff = compare_flows(running("a", 4.0, 7.0), running("b", 5.0, 8.0))
    assert [(row.a, row.b) for row in diff.gauges] == [(4.0, 5.0), (7.0, 8.0)]
    diff = compare_flows(running("a", 4.0, 7.0), running("b", 5.0))
    assert [(row.a, row.b) for row in diff.gauges] == [(4.0, 5.0)]


def test_a_histogram_without_buckets_has_a_mean_and_no_verdict() -> None:
    def bare(total: float) -> HistogramTotals:
        return HistogramTotals(":8000", "vllm", "vllm:ttft_seconds", {}, "ttft", "s", (), (100,), total)

    diff = compare_flows(session("a", bare(6.0)), session("b", bare(3.0)))
    assert "None" not in diff.conclusion
    assert diff.conclusion.startswith(
        "the median time to first token isn't known in both; its mean is 60.0 ms → 30.0 ms"
    )
