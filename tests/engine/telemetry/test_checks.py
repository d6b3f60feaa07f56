"""Each check, from the moment at which it must speak and from one at which it must not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kvdeck.engine.telemetry.checks import check
from kvdeck.engine.telemetry.sample import Flow, Number, Snapshot, take
from kvdeck.engine.telemetry.sources.prometheus import Endpoint
from kvdeck.engine.telemetry.tracker import SourceStatus, Track
from tests.support.programs.metrics_server import sample

GB = 1e9


def moved(name: str, source: str | None, target: str | None, gained: float, **more: float) -> Flow:
    return Flow("s", name, source, target, "m", "c", gained, bytes_gained=gained, **more)  # type: ignore[arg-type]


def blocks(name: str, source: str, target: str, total: float) -> Flow:
    return Flow("kvbm", name, source, target, "m", "c", blocks_total=total)  # type: ignore[arg-type]


def number(name: str, gained: float | None, value: float = 0.0, **labels: str) -> Number:
    return Number("s", name, labels, "bytes", "host", value, gained=gained)


def verdicts(*flows: Flow, counters: tuple[Number, ...] = (), gauges: tuple[Number, ...] = ()) -> dict[str, str]:
    found = check(Snapshot(0.0, flows=flows, counters=counters, gauges=gauges))
    for one in found:
        assert one.evidence
        assert one.advice or one.verdict == "ok", "what is to be looked at comes with what to try"
    return {one.id: one.verdict for one in found}


def test_nothing_known_nothing_said() -> None:
    assert check(Snapshot(0.0)) == ()


@pytest.mark.parametrize(("nixl", "verdict"), [(GB, "ok"), (1.01e9, "ok"), (2e9, "warning"), (5e8, "warning")])
def test_vllm_against_nixl(nixl: float, verdict: str) -> None:
    pulled = moved("vllm nixl", "remote", "G1", GB)
    assert verdicts(pulled, moved("nixl rx", None, None, nixl)) == {"vllm-nixl-bytes": verdict}
    assert verdicts(pulled) == {}, "without NIXL's own count there is nothing to compare"


@pytest.mark.parametrize(("written", "verdict"), [(GB, "ok"), (0.1 * GB, "warning")])
def test_disk_writes(written: float, verdict: str) -> None:
    disk = number("disk_write_bytes", written, device="nvme0n1")
    twice = number("disk_write_bytes", 5 * GB, device="dm-0")
    assert verdicts(moved("a", "G2", "G3", GB), counters=(disk, twice)) == {"disk-writes": verdict}
    unknown = replace(disk, gained=None)
    assert verdicts(moved("a", "G2", "G3", GB), counters=(unknown,)) == {}


def test_the_compatibility_path() -> None:
    assert verdicts(counters=(number("cufile_posix_ops", None, 12),)) == {"cufile-posix": "warning"}
    assert verdicts(counters=(number("cufile_posix_ops", None, 0),)) == {}


def test_a_disk_tier_that_is_never_written() -> None:
    to_host = blocks("kvbm offload_blocks_d2h", "G1", "G2", 500)
    to_disk = blocks("kvbm offload_blocks_h2d", "G2", "G3", 0)
    tier = number("disk_tier_bytes", None, 1e9)
    matched = number("kvbm_matched_tokens", None, 10)
    assert "disk-tier-unwritten" in verdicts(to_host, to_disk, counters=(matched,), gauges=(tier,))
    assert "disk-tier-unwritten" not in verdicts(to_host, to_disk, counters=(matched,)), "no tier is no fault"
    written = replace(to_disk, blocks_total=3)
    assert "disk-tier-unwritten" not in verdicts(to_host, written, counters=(matched,), gauges=(tier,))


def test_nothing_matches() -> None:
    offload = blocks("kvbm offload_blocks_d2h", "G1", "G2", 500)
    assert verdicts(offload, counters=(number("kvbm_matched_tokens", None, 0),)) == {"matched-zero": "warning"}
    assert verdicts(offload, counters=(number("dynamo_kvbm_matched_tokens_total", None, 0),)) == {
        "matched-zero": "warning"
    }
    assert verdicts(offload, counters=(number("kvbm_matched_tokens", None, 64),)) == {}
    assert verdicts(offload) == {}, "a metric that is missing is not zero"


def test_matches_without_onboarding() -> None:
    onboard = blocks("kvbm onboard_blocks_h2d", "G2", "G1", 0)
    matched = number("kvbm_matched_tokens", None, 64)
    assert verdicts(onboard, counters=(matched,)) == {"onboard-zero": "info"}
    assert verdicts(replace(onboard, blocks_total=1.0), counters=(matched,)) == {}
    assert verdicts(counters=(matched,)) == {}, "no onboard counter is no zero"


@pytest.mark.parametrize(("carried", "verdict"), [(GB, "ok"), (0.0, "warning")])
def test_a_card_that_stands_still(carried: float, verdict: str) -> None:
    card = number("fabric_received_bytes", carried, device="mlx5_0")
    assert verdicts(moved("x", "remote", "G1", GB), counters=(card,)) == {"nic-counters": verdict}
    assert verdicts(moved("x", "remote", "G1", GB)) == {}, "without a card there is nothing to hold it against"
    assert verdicts(moved("x", "remote", "G1", 1e6), counters=(card,)) == {}


def test_a_silent_prefill_side_is_normal() -> None:
    puller = moved("vllm nixl", "remote", "G1", 0.0, transfers_total=26)
    silent = replace(moved("vllm nixl", "remote", "G1", 0.0, transfers_total=0), source="prefill")
    assert verdicts(puller, silent) == {"prefill-silent": "info"}
    assert verdicts(silent, silent) == {}


def test_failures_are_counted_while_watched() -> None:
    failing = moved("vllm nixl", "remote", "G1", 0.0, failures_total=9, failures_gained=2, failures_before=7)
    assert verdicts(failing) == {"failures": "warning", "failed-before": "info"}
    assert verdicts(replace(failing, failures_gained=0)) == {"failed-before": "info"}, "old failures are history"


def test_a_full_ring() -> None:
    status = SourceStatus("ring a", "ring", "partial", "full: no longer live", 0.1)
    assert [found.id for found in check(Snapshot(0.0, sources=(status,)))] == ["ring-full"]
    live = SourceStatus("ring a", "ring", "partial", "another process drains this ring", 0.1)
    assert check(Snapshot(0.0, sources=(live,))) == ()


def test_dropped_telemetry_is_no_failed_transfer() -> None:
    assert verdicts(counters=(number("ring_events_dropped", 340, 340),)) == {"telemetry-dropped": "warning"}
    assert verdicts(counters=(number("ring_events_dropped", 0, 0),)) == {}


def error(name: str, gained: float, unit: str, **labels: str) -> Number:
    return Number("s", name, labels, unit, "errors", gained, gained=gained)


def test_failures_and_lost_requests_are_two_things() -> None:
    failed = error("agent_errors_total", 2, "failures", status="remote_disconnect")
    lost = error("dynamo_rejection_request_total", 3, "requests")
    assert verdicts(counters=(failed,)) == {"failures": "warning"}
    assert verdicts(counters=(lost,)) == {"requests-lost": "info"}
    assert verdicts(counters=(replace(lost, gained=0.0), replace(failed, gained=None))) == {}


@pytest.mark.parametrize(
    ("name", "warned"),
    [
        ("vllm:kv_offload_stores_skipped_total", False),
        ("kvbm_offload_blocks_skipped_pool_full", True),
        ("dynamo_kvbm_offload_blocks_skipped_pool_full_total", True),
        ("vllm:kv_offload_tiering_backpressure_blocks_dropped_total", True),
    ],
)
def test_what_a_filter_keeps_out_is_no_dropped_store(name: str, warned: bool) -> None:
    """vLLM's `stores_skipped` counts what `store_threshold` keeps from being stored."""
    assert verdicts(counters=(error(name, 100, "blocks"),)) == ({"stores-dropped": "warning"} if warned else {})


@pytest.mark.parametrize(("mine", "speaks"), [(0.0, True), (GB, False), (None, True)])
def test_a_container_whose_processes_are_silent(mine: float | None, speaks: bool) -> None:
    whole = number("container_read_bytes", GB, container="docker a")
    process = number("process_read_bytes", mine, container="docker a", pid="7")
    other = number("process_read_bytes", GB, container="docker b", pid="8")
    expected = {"container-io": "info"} if speaks else {}
    assert verdicts(counters=(whole, process, other)) == expected
    assert verdicts(counters=(replace(whole, gained=1000.0), process)) == {}, "too little to say"


# What real software printed


def after(*names: str, then: tuple[str, ...] = ()) -> Snapshot:
    """A moment in which each sample was read, and then each of `then` by the same sources in their order."""
    tracks = []
    for place, name in enumerate(names):
        endpoint = Endpoint(f"http://127.0.0.1:{place + 1}/metrics")
        track = Track(endpoint.name, "prometheus")
        for second, read in enumerate((name, then[place] if then else name)):
            reading = endpoint._reading(sample(f"{read}.prom").decode())
            track.took(replace(reading, t_ns=second * 10**9, changed=None), second * 10**9)
        tracks.append((track, 1.0))
    snapshot = take(tracks, 10**9)
    return replace(snapshot, checks=check(snapshot))


def speak(snapshot: Snapshot) -> list[str]:
    return [found.id for found in snapshot.checks]


def test_a_real_pair_of_prefill_and_decode() -> None:
    """Both sides as vLLM printed them; NIXL's own exporter beside such a pair was never sampled."""
    assert speak(after("vllm032_nixl_p_after", "vllm032_nixl_d_after")) == ["prefill-silent"]
    assert speak(after("vllm032_nixl_d_after")) == []
    assert speak(after("vllm032_nixl_p_after")) == [], "alone it may just be idle"
    before_and_after = after("vllm032_nixl_d_before", then=("vllm032_nixl_d_after",))
    assert speak(before_and_after) == [], "40 MB are too little to hold against anything"


def test_real_kvbm_before_and_after_a_match() -> None:
    assert speak(after("dynamo_kvbm_metrics_idle")) == [], "nothing offloaded, nothing expected"
    assert speak(after("dynamo_kvbm_metrics_host_cold")) == ["matched-zero"]
    for name in ("repeat", "evict", "replay"):
        assert speak(after(f"dynamo_kvbm_metrics_host_{name}")) == []


def test_real_kvbm_beside_a_disk_tier_that_stays_empty() -> None:
    replay = after("dynamo_kvbm_metrics_host_replay")
    assert speak(replay) == []
    tier = number("disk_tier_bytes", None, 1e9)
    assert [found.id for found in check(replace(replay, gauges=(*replay.gauges, tier)))] == ["disk-tier-unwritten"]


@pytest.mark.parametrize(
    "name",
    [
        "vllm032_base_after",
        "vllm032_offload_native_after",
        "dynamo_fe_metrics_d",
        "dynamo_worker_metrics_d",
        "nixl_prom_agent",
        "nixl_prom_mp",
        "lmcache056_exposition_idle",
    ],
)
def test_what_is_well_in_the_samples_stays_quiet(name: str) -> None:
    assert speak(after(name)) == []


RUNNING, TOKENS = "vllm:num_requests_running", "vllm:generation_tokens_total"


def gauge(name: str, value: float, above_0_s: float | None, **labels: str) -> Number:
    return Number("s", name, labels, "requests", "queue", value, above_0_s=above_0_s)


def counter(name: str, moved_s: float | None, **labels: str) -> Number:
    return Number("s", name, labels, "tokens", "tokens", 100.0, gained=1.0, moved_s=moved_s)


@pytest.mark.parametrize(
    ("running", "above_0_s", "moved_s", "stuck"),
    [
        (4.0, 40.0, 35.0, True),
        (4.0, 40.0, None, True),
        (4.0, 40.0, 2.0, False),
        (4.0, 10.0, 300.0, False),
        (0.0, None, 300.0, False),
    ],
)
def test_requests_that_run_without_progress_are_stuck(
    running: float, above_0_s: float | None, moved_s: float | None, stuck: bool
) -> None:
    here = verdicts(gauges=(gauge(RUNNING, running, above_0_s),), counters=(counter(TOKENS, moved_s),))
    assert here == ({"stuck": "warning"} if stuck else {})


def test_the_time_since_a_late_answer_is_no_standstill() -> None:
    """What moves at each answer isn't stuck, however seldom the answers are."""
    late = SourceStatus("s", "vllm", "live", "", 25.0)
    moved = Snapshot(0.0, (late,), counters=(counter(TOKENS, 25.0),), gauges=(gauge(RUNNING, 4.0, 50.0),))
    assert check(moved, stuck_s=20.0) == ()
    still = replace(moved, counters=(counter(TOKENS, 50.0),))
    assert [one.id for one in check(still, stuck_s=25.0)] == ["stuck"]
    assert "for 25 s no token" in check(still, stuck_s=25.0)[0].evidence
    assert check(still, stuck_s=26.0) == ()


def test_an_engine_that_counts_no_tokens_may_work_on_a_long_request() -> None:
    """Dynamo's worker counts finished requests only."""
    gauges = (gauge("dynamo_component_inflight_requests", 1.0, 100.0),)
    assert check(Snapshot(0.0, gauges=gauges, counters=(counter("dynamo_component_requests_total", 100.0),))) == ()


def test_one_of_two_engines_behind_one_address_is_stuck() -> None:
    gauges = tuple(gauge(RUNNING, 2.0, 60.0, engine=engine) for engine in "01")
    found = check(
        Snapshot(0.0, gauges=gauges, counters=(counter(TOKENS, 1.0, engine="0"), counter(TOKENS, 50, engine="1")))
    )
    assert [one.id for one in found] == ["stuck-s-1"]
    assert found[0].evidence.startswith("s (1): 2 requests running for 1 min 00 s, and for 50 s no token was generated")


def test_an_idle_engine_and_one_that_is_only_asked_for_less_than_the_limit_are_not_stuck() -> None:
    here = Snapshot(0.0, gauges=(gauge(RUNNING, 4.0, 40.0),), counters=(counter(TOKENS, 35.0),))
    assert [one.id for one in check(here, stuck_s=36.0)] == []
    assert [one.id for one in check(here, stuck_s=35.0)] == ["stuck"]


def test_a_source_that_does_not_answer_proves_nothing() -> None:
    failing = moved("vllm nixl", "remote", "G1", 0.0, failures_total=2, failures_gained=2)
    assert verdicts(replace(failing, stale=True)) == {}
    stuck = replace(gauge(RUNNING, 4.0, 60.0), stale=True)
    assert verdicts(gauges=(stuck,), counters=(counter(TOKENS, None),)) == {}


def test_stores_that_a_slow_tier_drops_are_no_fault_of_a_peer() -> None:
    dropped = error("vllm:kv_offload_tiering_backpressure_stores_dropped_total", 3, "failures", tier="1:fs")
    (found,) = check(Snapshot(0.0, counters=(dropped,)))
    assert (found.id, found.verdict) == ("stores-dropped", "warning")
    assert "peer" not in found.advice
    assert "faster disk" in found.advice


def test_what_failed_before_watching_is_an_info() -> None:
    old = Number("s", "vllm:nixl_num_kv_expired_reqs_total", {}, "requests", "errors", 7.0, gained=0.0, before=7.0)
    failing = moved("vllm nixl", "remote", "G1", 0.0, failures_total=6, failures_before=6)
    (found,) = check(Snapshot(0.0, flows=(failing,), counters=(old,)))
    assert (found.id, found.verdict) == ("failed-before", "info")
    assert found.evidence == "before sampling began: 6 transfers failed, vllm:nixl_num_kv_expired_reqs_total 7"


def test_the_serving_processes_own_writes_come_before_the_disks() -> None:
    disk = number("disk_write_bytes", 5 * GB, device="nvme0n1")
    own = number("process_write_bytes", 0.1 * GB, pid="7")
    assert verdicts(moved("a", "G2", "G3", GB), counters=(disk, own)) == {"disk-writes": "warning"}
    assert verdicts(moved("a", "G2", "G3", GB), counters=(disk, replace(own, gained=GB))) == {"disk-writes": "ok"}
