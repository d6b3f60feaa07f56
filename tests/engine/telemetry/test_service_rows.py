"""Whether requests are served, of what real software printed before and after known requests."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kvdeck.app.text.served_text import hits_text
from kvdeck.engine.telemetry.checks import check
from kvdeck.engine.telemetry.sample import Snapshot, take
from kvdeck.engine.telemetry.service import Latency, Service, TierHits
from kvdeck.engine.telemetry.service_rows import MAX_GONE, WINDOW_S, ServiceRows, Window, between
from kvdeck.engine.telemetry.sources.prometheus import Endpoint
from kvdeck.engine.telemetry.tracker import Track
from tests.support.programs.metrics_server import sample


def samples(*texts: str, step_s: float = 10.0) -> list[Snapshot]:
    """Samples of one endpoint's answers, `step_s` seconds apart."""
    track, endpoint = Track("here", "prometheus"), Endpoint("http://127.0.0.1:1/metrics")
    found = []
    for place, text in enumerate(texts):
        now = int((100 + place * step_s) * 1e9)
        track.took(endpoint._reading(text), now)
        found.append(take([(track, 1.0)], now, wall=now / 1e9))
    return found


def before_and_after(name: str) -> ServiceRows:
    return between(*samples(*(sample(f"{name}_{when}.prom").decode() for when in ("before", "after"))))


def latency(rows: ServiceRows, what: str) -> Latency:
    (found,) = [row for row in rows.latencies if row.what == what]
    return found


def service(rows: ServiceRows) -> Service:
    (found,) = rows.services
    return found


def tier(rows: ServiceRows, what: str, tier: str | None = None) -> TierHits:
    (found,) = [row for row in rows.tiers if row.what == what and tier in (None, row.tier)]
    return found


def test_vllms_latencies_are_of_the_window() -> None:
    rows = before_and_after("vllm032_offload_native")
    ttft = latency(rows, "ttft")
    assert (ttft.count, ttft.over_s, ttft.metric) == (72, 10.0, "vllm:time_to_first_token_seconds")
    assert ttft.mean == pytest.approx(0.047485, abs=1e-6)
    # 72 requests: 4 up to 20 ms, 50 up to 40 ms; the 36th is 32 of 46 into that bucket.
    assert ttft.p50 == pytest.approx(0.02 + 0.02 * 32 / 46)
    assert (ttft.p50_low, ttft.p50_high) == (0.02, 0.04)
    assert (ttft.p99_low, ttft.p99_high) == (0.1, 0.25)
    assert latency(rows, "itl").count == 72 * 7
    assert {row.what for row in rows.latencies} >= {"e2e", "queue", "prefill", "decode", "inference", "tpot"}


def test_vllms_requests_and_tokens_are_counted_by_reason() -> None:
    found = service(before_and_after("vllm032_offload_native"))
    assert (found.kind, found.state, found.member) == ("vllm", "online", "")
    assert found.finished == {"length": 72}
    assert found.finished_per_s == pytest.approx(7.2)
    assert (found.failed_per_s, found.aborted_per_s) == (0.0, 0.0)
    assert found.tokens_in_per_s == pytest.approx(5760)
    assert found.tokens_out_per_s == pytest.approx(57.6)
    assert found.waiting_by_reason == {"capacity": 0.0, "deferred": 0.0}
    assert set(found.kv_fetch) == {"waiting_to_start", "in_progress", "completed_waiting"}


def test_each_tiers_hits_are_of_what_the_tiers_above_lacked() -> None:
    rows = before_and_after("vllm032_offload_native")
    device, host, disk = (tier(rows, "prompt", name) for name in ("G1", "G2", "G3"))
    assert (device.hits, device.asked, device.share) == (0, 57_600, 0)
    assert (host.hits, host.asked, host.share) == (36_864, 57_600, 0.64)
    assert (disk.hits, disk.asked, disk.share) == (0, 20_736, 0)
    assert tier(rows, "external").share == pytest.approx(0.64)


def test_without_an_earlier_sample_it_is_since_the_engine_started() -> None:
    (only,) = samples(sample("vllm032_offload_native_after.prom").decode())
    rows = between(None, only)
    assert latency(rows, "ttft").over_s is None
    assert latency(rows, "ttft").count == 72
    found = service(rows)
    assert found.finished == {"length": 72}
    assert found.finished_per_s is None, "a total has no rate"


def test_dynamos_frontend_and_worker() -> None:
    rows = between(*samples(*(sample(f"dynamo_fe_metrics_{name}.prom").decode() for name in ("0_idle", "d"))))
    assert latency(rows, "ttft").metric == "dynamo_frontend_time_to_first_token_seconds"
    assert latency(rows, "ttft").count == 14
    assert service(rows).finished == {"success": 14}
    assert latency(rows, "routing").unit == "s"
    assert latency(rows, "routing").mean == pytest.approx(0.000223, abs=1e-6), "milliseconds become seconds"
    worker = between(*samples(*(sample(f"dynamo_worker_metrics_{name}.prom").decode() for name in ("0_idle", "d"))))
    assert latency(worker, "ttft").metric == "vllm:time_to_first_token_seconds"


def histogram(counts: tuple[int, ...], engine: int = 0) -> str:
    edges = ("0.1", "1.0", "+Inf")
    name = "vllm:time_to_first_token_seconds"
    rows = [
        f'{name}_bucket{{engine="{engine}",le="{edge}"}} {count}' for edge, count in zip(edges, counts, strict=True)
    ]
    return "\n".join([f"# TYPE {name} histogram", *rows, f'{name}_count{{engine="{engine}"}} {counts[-1]}', ""])


def test_a_window_is_of_the_last_minute() -> None:
    window = Window()
    slow, fast = 0, 0
    rows = ServiceRows()
    texts = []
    for second in range(200):
        slow, fast = (slow + 1, fast) if second < 100 else (slow, fast + 1)
        texts.append(histogram((fast, fast, slow + fast)))
    for snapshot in samples(*texts, step_s=1.0):
        rows = window.take(snapshot, int(snapshot.t * 1e9))
    found = latency(rows, "ttft")
    assert found.over_s is not None
    assert WINDOW_S <= found.over_s <= WINDOW_S + 5
    assert found.count == found.over_s, "one request a second"
    assert found.p99_high == 0.1, "what was slow is over a minute ago"


def test_a_restart_in_the_window_takes_nothing_away() -> None:
    before, _, after = samples(histogram((50, 90, 100)), histogram((60, 100, 110)), histogram((1, 2, 4)))
    found = latency(between(before, after), "ttft")
    assert found.count == 14, "ten before the restart, four after it"


def test_data_parallel_engines_are_told_apart() -> None:
    texts = [histogram(a, 0) + histogram(b, 1) for a, b in (((0, 0, 0), (0, 0, 0)), ((9, 9, 9), (0, 5, 5)))]
    rows = between(*samples(*texts))
    found = {row.member: row for row in rows.latencies}
    assert found["engine 0"].p50_high == 0.1
    assert (found["engine 1"].p50_low, found["engine 1"].p50_high) == (0.1, 1.0)


def test_a_source_that_does_not_answer_is_down() -> None:
    track, endpoint = Track("here", "prometheus"), Endpoint("http://127.0.0.1:1/metrics")
    track.took(endpoint._reading(sample("vllm032_base_after.prom").decode()), 1)
    track.failed("cannot connect", int(5e9))
    found = service(between(None, take([(track, 1.0)], int(6e9))))
    assert (found.state, found.stale) == ("down", True)


def test_ten_thousand_buckets_of_one_source_are_read_and_counted_as_no_series() -> None:
    engines = 2500
    texts = ["".join(histogram((n, 2 * n, 3 * n), engine) for engine in range(engines)) for n in (1, 2)]
    first, last = samples(*texts)
    assert (last.sources[0].series, last.sources[0].unknown, last.sources[0].reason) == (engines, 0, "")
    rows = between(first, last).latencies
    assert len(rows) == engines
    assert {(row.count, row.p50_low, row.p50_high) for row in rows} == {(3, 0.1, 1.0)}


def windowed(*texts: str, step_s: float = 10.0) -> ServiceRows:
    """The rows of the last of some answers, with a mark at each."""
    window, rows = Window(), ServiceRows()
    for snapshot in samples(*texts, step_s=step_s):
        rows = window.take(snapshot, int(snapshot.t * 1e9))
    return rows


def served(count: float, more: str = "") -> str:
    counted = f'vllm:request_success_total{{finished_reason="stop"}} {count}\n' if count else ""
    return f"# TYPE vllm:request_success_total counter\n{more}vllm:num_requests_running 1\n{counted}"


def test_a_torn_answer_at_the_windows_begin_is_no_growth_since_sampling_began() -> None:
    # 10 requests a second for 240 s; the answer at 180 s, where the window begins, is torn.
    texts = [served(50.0 * step) for step in range(1, 50)]
    texts[36] = served(0)
    found = service(windowed(*texts, step_s=5.0))
    assert found.over_s == 60.0
    assert found.finished == {"stop": 650}, "since the answer before, 5 s earlier"
    assert found.finished_per_s == pytest.approx(10.0, rel=0.1)


def test_a_torn_answer_takes_no_histogram_away() -> None:
    texts = [histogram((50 * step, 50 * step, 50 * step)) for step in range(1, 50)]
    texts[36] = "vllm:num_requests_running 1\n"
    assert latency(windowed(*texts, step_s=5.0), "ttft").count == 650


def test_a_counter_that_a_restarted_exporter_prints_late_counts_from_its_restart() -> None:
    # As Dynamo's frontend, which prints a counter at its first use: 5,991 requests before the restart, and 9 after it.
    first, again = (f"process_start_time_seconds {started}\n" for started in (5, 125))
    before = [served(count, first) for count in (9.0, 3000.0, 6000.0)]
    idle = [served(0, again) for _ in range(8)]
    assert service(windowed(*before, *idle, served(9.0, again))).finished == {"stop": 9}


def test_what_is_carried_of_absent_series_is_bounded() -> None:
    window = Window()
    for step, snapshot in enumerate(samples(*(served(1.0) for _ in range(30)), step_s=5.0)):
        (number,) = [one for one in snapshot.counters if one.name == "vllm:request_success_total"]
        counters = tuple(replace(number, labels={"finished_reason": f"{step}.{n}"}) for n in range(200))
        window.take(replace(snapshot, counters=counters), int(snapshot.t * 1e9))
    assert max(len(mark.numbers) for mark in window._marks) == 2 * 200 + MAX_GONE


def test_a_source_that_joins_late_has_the_rate_of_its_own_time() -> None:
    first, late = Track("first", "prometheus"), Track("late", "prometheus")
    endpoints = {name: Endpoint("http://127.0.0.1:1/metrics") for name in ("first", "late")}
    window, rows = Window(), ServiceRows()
    for second in range(0, 61, 5):
        now = int((100 + second) * 1e9)
        tracks = [first, late] if second >= 40 else [first]
        for track in tracks:
            track.took(endpoints[track.name]._reading(served(1000.0 + 10 * second)), now)
        rows = window.take(take([(track, 1.0) for track in tracks], now, wall=now / 1e9), now)
    found = {row.source: (row.over_s, row.finished_per_s) for row in rows.services}
    assert found == {"first": (60.0, 10.0), "late": (20.0, 10.0)}


TIERS = """# TYPE vllm:kv_offload_tiering_chunk_queries_total counter
vllm:kv_offload_tiering_chunk_queries_total{{tier="0:primary"}} {0}
vllm:kv_offload_tiering_chunk_queries_total{{tier="1:fs"}} {1}
# TYPE vllm:kv_offload_tiering_chunk_hits_total counter
vllm:kv_offload_tiering_chunk_hits_total{{tier="1:fs"}} {2}
"""


def test_each_tier_of_a_label_has_a_share_of_its_own() -> None:
    # A run of vLLM 0.31.0 with a file system below host memory; its primary tier counts queries only.
    rows = between(*samples(TIERS.format(0, 0, 0), TIERS.format(287_616, 41_936, 40_942)))
    found = {row.what: row for row in rows.tiers}
    disk, host = found["tier chunks 1:fs"], found["tier chunks 0:primary"]
    assert (disk.tier, disk.hits, disk.asked) == ("G3", 40_942, 41_936)
    assert disk.share == pytest.approx(0.976, abs=5e-4)
    assert (host.tier, host.hits, host.asked, host.share) == ("G2", None, 287_616, None)
    assert [row.tier for row in rows.tiers] == ["G2", "G3"]
    assert [hits_text(row) for row in rows.tiers] == ["– of 287,616 chunks", "40,942 of 41,936 chunks"]


DYNAMO = """# TYPE dynamo_frontend_requests_total counter
dynamo_frontend_inflight_requests 1
dynamo_frontend_requests_total{{status="success",error_type=""}} {0}
dynamo_frontend_requests_total{{status="error",error_type="cancelled"}} {1}
dynamo_frontend_requests_total{{status="error",error_type="validation"}} {2}
dynamo_frontend_requests_total{{status="error",error_type="not_found"}} {3}
dynamo_frontend_requests_total{{status="error",error_type="internal"}} {4}
"""


def test_whose_error_it_is_decides_whether_a_request_failed() -> None:
    found = service(between(*samples(DYNAMO.format(0, 0, 0, 0, 0), DYNAMO.format(50, 20, 15, 10, 5))))
    assert found.finished_per_s == 10.0
    assert (found.failed_per_s, found.aborted_per_s) == (0.5, 2.0)
    assert found.finished["error (cancelled)"] == 20


TRTLLM = """# TYPE trtllm_request_success_total counter
trtllm_request_success_total{{finished_reason="stop"}} {0}
# TYPE trtllm_request_error_total counter
trtllm_request_error_total {1}
"""
TRITON = """# TYPE nv_inference_request_success counter
nv_inference_request_success{{model="m"}} {0}
# TYPE nv_inference_request_failure counter
nv_inference_request_failure{{model="m",reason="BACKEND"}} {1}
nv_inference_request_failure{{model="m",reason="CANCELED"}} {2}
"""


def test_failures_that_are_counted_beside_successes_are_part_of_what_ended() -> None:
    found = service(between(*samples(TRTLLM.format(0, 0), TRTLLM.format(96, 4))))
    assert (found.finished_per_s, found.failed_per_s) == (10.0, 0.4)
    assert found.finished == {"stop": 96, "failed": 4}
    found = service(between(*samples(TRITON.format(0, 0, 0), TRITON.format(90, 6, 4))))
    assert (found.finished_per_s, found.failed_per_s, found.aborted_per_s) == (10.0, 0.6, 0.4)
    assert found.finished == {"finished": 90, "BACKEND": 6, "CANCELED": 4}


@pytest.mark.parametrize(("failed", "warned"), [(50, False), (51, True)])
def test_the_limit_of_failures_is_of_all_that_ended(failed: int, warned: bool) -> None:
    before, after = samples(TRTLLM.format(0, 0), TRTLLM.format(1000 - failed, failed))
    rows = between(before, after)
    found = [one.id for one in check(replace(after, services=rows.services))]
    assert ("failing" in found) is warned, "5 % of 1,000 requests, and not 5.3 % of 950"


def replicated(count: int) -> str:
    """Two data-parallel engines of SGLang, on two ranks each that all count."""
    name = "sglang:time_to_first_token_seconds"
    ranks = [(dp, tp) for dp in (0, 1) for tp in (2 * dp, 2 * dp + 1)]
    labels = [f'dp_rank="{dp}",tp_rank="{tp}",pp_rank="0",moe_ep_rank="{tp}"' for dp, tp in ranks]
    rows = [f"sglang:num_requests_total{{{one}}} {count}" for one in labels]
    rows += [f"sglang:num_running_reqs{{{one}}} 3" for one in labels]
    rows += [f'{name}_bucket{{{one},le="{edge}"}} {count}' for one in labels for edge in ("1.0", "+Inf")]
    rows += [f"{name}_count{{{one}}} {count}" for one in labels]
    return "\n".join(["# TYPE sglang:num_requests_total counter", f"# TYPE {name} histogram", *rows, ""])


def test_replicas_of_one_engine_count_once() -> None:
    rows = between(*samples(replicated(0), replicated(40)))
    assert {row.member: (row.running, row.finished_per_s) for row in rows.services} == {
        "dp_rank 0": (3, 4.0),
        "dp_rank 1": (3, 4.0),
    }
    assert {row.member: row.count for row in rows.latencies} == {"dp_rank 0": 40, "dp_rank 1": 40}


def test_a_number_that_nobody_calls_a_counter_has_no_growth() -> None:
    # The table has it as a counter, and this exporter says that it is a gauge.
    text = "# TYPE vllm:request_success_total gauge\nvllm:num_requests_running 1\nvllm:request_success_total {}\n"
    found = service(between(*samples(text.format(5000), text.format(5010))))
    assert (found.finished, found.finished_per_s) == ({"finished": None}, None)


def test_a_share_above_1_is_not_known() -> None:
    text = """# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total {0}
# TYPE vllm:prompt_tokens_cached_by_source_total counter
vllm:prompt_tokens_cached_by_source_total{{source="host"}} {1}
"""
    found = tier(between(*samples(text.format(0, 0), text.format(100, 150))), "prompt", "G2")
    assert (found.hits, found.asked, found.share) == (150, 100, None)
