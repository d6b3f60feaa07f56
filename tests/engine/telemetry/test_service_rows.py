"""Whether requests are served, of what real software printed before and after known requests."""

from __future__ import annotations

import pytest

from kvdeck.engine.telemetry.sample import Snapshot, take
from kvdeck.engine.telemetry.service import Latency, Service, TierHits
from kvdeck.engine.telemetry.service_rows import WINDOW_S, ServiceRows, Window, between
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
