"""Moments of the Monitor, the same every time: real samples drawn out over two minutes, and a host made up beside."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache

from kvdeck.engine.telemetry.checks import check
from kvdeck.engine.telemetry.sample import Snapshot, take
from kvdeck.engine.telemetry.service_rows import Window
from kvdeck.engine.telemetry.source import Kind, Reading, Series
from kvdeck.engine.telemetry.sources.exposition import Parser
from kvdeck.engine.telemetry.tracker import Track
from tests.support.programs.metrics_server import sample

BEGIN = 1_767_268_800.0
"""2026-01-01 12:00:00 UTC."""
SECONDS = 150
SECOND_NS = 1_000_000_000
BLOCK_BYTES = 2 << 20
PIN = "kvbm_matched_tokens"

Values = Mapping[Series, float]


def values(name: str) -> Values:
    """What a sample says."""
    return Parser().parse(sample(f"{name}.prom").decode()).values


def between(before: Values, after: Values, share: float, times: float = 1.0) -> Values:
    """Counters on their way from one sample to the next, `times` as far; gauges as the later one has them."""
    return {
        series: before.get(series, 0.0) + (value - before.get(series, 0.0)) * share * times if series.counter else value
        for series, value in after.items()
    }


def course(second: float) -> float:
    """A load that comes in waves: the share of the way, never falling."""
    return (second + 18 * math.sin(second / 9.0) / 3) / SECONDS


def host(second: float) -> tuple[Values, Values]:
    """Devices of a host that was made up, and what they can carry."""
    found: dict[Series, float] = {}
    limits: dict[Series, float] = {}
    for device, most, share in (("ens1", 50e9, 0.04), ("ens2", 50e9, 0.0), ("mlx5_0:1", 50e9, 0.62)):
        kind, labels = "network", (("device", device),)
        if ":" in device:
            kind, labels = "fabric", (("device", "mlx5_0"), ("port", "1"))
        for way, part in (("sent", 0.3), ("received", 1.0)):
            series = Series(f"{kind}_{way}_bytes", labels)
            found[series], limits[series] = most * share * part * second, most
    for gpu in range(2):
        for way, part in (("sent", 0.35 + gpu / 10), ("received", 0.93 - gpu / 2)):
            series = Series(f"gpu_pcie_{way}_bytes_per_s", (("gpu", str(gpu)),), False)
            found[series], limits[series] = 63.0e9 * part * (1 + 0.02 * math.sin(second)), 63.0e9
        found[Series("gpu_memory_used_bytes", (("gpu", str(gpu)),), False)] = 61.2e9
    for way, rate in (("read", 1.9e9), ("write", 0.4e9)):
        found[Series(f"disk_{way}_bytes", (("device", "nvme0n1"),))] = rate * second
        found[Series(f"disk_{way}_bytes", (("device", "nvme1n1"),))] = 0.0
    return found, limits


KINDS: dict[str, Kind] = {
    "http://127.0.0.1:6880/metrics": "kvbm",
    "http://127.0.0.1:8000/metrics": "vllm",
    "http://127.0.0.1:8100/metrics": "vllm",
    "host": "fabric",
}
GONE = "http://127.0.0.1:9090/metrics"


def moments(seconds: int = SECONDS, block_bytes: float | None = None) -> Iterator[Snapshot]:
    """One moment a second."""
    tracks = {name: Track(name, kind) for name, kind in KINDS.items()}
    gone, window = Track(GONE, "prometheus"), Window()
    kvbm, repeat = values("dynamo_kvbm_metrics_host_cold"), values("dynamo_kvbm_metrics_host_repeat")
    offload = values("vllm032_offload_native_before"), values("vllm032_offload_native_after")
    decode = values("vllm032_nixl_d_before"), values("vllm032_nixl_d_after")
    for second in range(seconds):
        now, share = (second + 1) * SECOND_NS, course(second)
        read: dict[str, tuple[Values, Values]] = {
            "http://127.0.0.1:6880/metrics": (between(kvbm, repeat, share, 400), {}),
            "http://127.0.0.1:8000/metrics": (_busy(between(*offload, share, 2000)), {}),
            "http://127.0.0.1:8100/metrics": (between(*decode, share if second < 100 else course(100), 3000), {}),
            "host": host(second),
        }
        for name, (found, limits) in read.items():
            tracks[name].took(Reading(now, found, limits=limits), now)
        gone.failed("cannot connect: Connection refused", now)
        moment = take(
            [*((track, 1.0) for track in tracks.values()), (gone, 1.0)],
            now,
            block_bytes=block_bytes,
            pins=frozenset({PIN, "vllm:kv_offload_cpu_allocation_size_sum"}),
            wall=BEGIN + second,
        )
        yield served(moment, window, now)


def served(moment: Snapshot, window: Window, now: int) -> Snapshot:
    """The moment with its checks, and what it says of the requests in the window."""
    rows = window.take(moment, now)
    return replace(moment, latencies=rows.latencies, services=rows.services, tiers=rows.tiers, checks=check(moment))


def _busy(found: Values) -> Values:
    """The engine as it is under load; the sample was taken when it idled."""
    gauges = {"vllm:num_requests_running": 12.0, "vllm:num_requests_waiting": 3.0, "vllm:kv_cache_usage_perc": 0.87,
              "vllm:kv_offload_cpu_cache_usage_perc": 0.41}  # fmt: skip
    return {series: gauges.get(series.name, value) for series, value in found.items()}


@cache
def all_moments() -> tuple[Snapshot, ...]:
    """The whole course, made once."""
    return tuple(moments())


@cache
def sized_moments() -> tuple[Snapshot, ...]:
    """The course with the size of a block known."""
    return tuple(moments(block_bytes=BLOCK_BYTES))


@cache
def troubled_moments() -> tuple[Snapshot, ...]:
    """A course on which much is to be looked at: nothing matches, the disk tier is never written, transfers fail."""
    kvbm = Track("http://127.0.0.1:6880/metrics", "kvbm")
    vllm, tier, gone = Track("http://gpu-7:8000/metrics", "vllm"), Track("disk tier", "process"), Track(GONE, "nixl")
    cold, decode = values("dynamo_kvbm_metrics_host_cold"), values("vllm032_nixl_d_after")
    failed = next(series for series in decode if series.name == "vllm:nixl_num_failed_transfers_total")
    file = (("inode", "77"), ("name", "dynamo.vllm"), ("path", "/mnt/nvme0/kvbm"), ("pid", "4711"))
    held = {
        Series("disk_tier_bytes", (*file, ("what", "allocated")), False): 0.0,
        Series("disk_tier_bytes", (*file, ("what", "size")), False): 200e9,
    }
    found = []
    for second in range(60):
        now = (second + 1) * SECOND_NS
        grown = {s: v * second if s.counter and s.name != "kvbm_matched_tokens" else v for s, v in cold.items()}
        kvbm.took(Reading(now, grown), now)
        vllm.took(Reading(now, {**{s: v * second for s, v in decode.items()}, failed: second // 20}), now)
        tier.took(Reading(now, held), now)
        gone.failed("answers 401: it wants a token", now)
        moment = take([(kvbm, 1.0), (vllm, 1.0), (tier, 2.0), (gone, 1.0)], now, wall=BEGIN + second)
        found.append(replace(moment, checks=check(moment)))
    return tuple(found)
