"""What every known metric means: which tiers the bytes move between, in what unit, and who says so.

This is the one place for it. Tiers are G1 device, G2 host, G3 disk, G4 object and `remote`; a tier that a
source cannot know is None. What is not in this table is shown under its own name and never added to anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kvdeck.engine.watch.series import Series

Tier = Literal["G1", "G2", "G3", "G4", "remote"]
Measure = Literal["bytes", "blocks", "seconds", "transfers", "descriptors", "failures"]
Group = Literal["tokens", "hits", "queue", "memory", "errors", "host", "session", "model"]


@dataclass(frozen=True, slots=True)
class Meaning:
    """One metric's place. Either it measures a flow, or it is a number of its own with a `group`."""

    metric: str
    unit: str
    claim: str
    """Who says that it means this: a sample, a document, or the letters of its name."""
    flow: str = ""
    """Name of the flow; measures of one flow share it. Empty: no flow."""
    measure: Measure = "bytes"
    source: Tier | None = None
    target: Tier | None = None
    group: Group | None = None
    scale: float = 1.0
    """Multiply by this to get the unit: the exporter counts in something else."""
    where: tuple[str, str] | None = None
    """Only the series with this label."""
    twin_of: str | None = None
    """The same number under an older name: used only where this metric is missing."""


_KVBM = "KVBM 1.6.1, samples dynamo_kvbm_metrics_*"
_KVBM_NEXT = "KVBM's newer generation, read by the letters of its name: no sample"
_VLLM = "vLLM 0.32.0, samples vllm032_*"
_VLLM_DOC = "vLLM's metric list; no sample"
_NIXL = "NIXL 1.5.1, samples nixl_prom_*"
_DYNAMO = "Dynamo 1.6.1, samples dynamo_fe_metrics_*, dynamo_worker_metrics_*"
_LMCACHE = "LMCache 0.5.6's metric list; the sample is idle"


def _kvbm() -> list[Meaning]:
    # The letters change their meaning: in an offload h2d is host to disk, in an onboard host to device.
    moves: list[tuple[str, Tier, Tier, str]] = [
        ("offload_blocks_d2h", "G1", "G2", _KVBM),
        ("offload_blocks_h2d", "G2", "G3", _KVBM),
        ("offload_blocks_d2d", "G1", "G3", _KVBM),
        ("offload_blocks_d2o", "G1", "G4", _KVBM),
        ("onboard_blocks_h2d", "G2", "G1", _KVBM),
        ("onboard_blocks_d2d", "G3", "G1", _KVBM),
        ("onboard_blocks_o2d", "G4", "G1", _KVBM),
        ("onboard_blocks_d2h", "G3", "G2", _KVBM_NEXT),
    ]
    return [
        *(
            Meaning(f"kvbm_{name}", "blocks", claim, f"kvbm {name}", "blocks", source, target)
            for name, source, target, claim in moves
        ),
        Meaning("kvbm_matched_tokens", "tokens", _KVBM, group="tokens"),
        *(Meaning(f"kvbm_{tier}_cache_hit_rate", "ratio", _KVBM, group="hits") for tier in ("host", "disk", "object")),
        Meaning("kvbm_cache_blocks_hit", "blocks", _KVBM_NEXT, group="hits"),
        *(Meaning(f"kvbm_object_{way}_failures", "failures", _KVBM, group="errors") for way in ("read", "write")),
    ]


def _vllm_offload() -> list[Meaning]:
    found = []
    ways: list[tuple[str, str, Tier, Tier]] = [
        ("store", "GPU_to_CPU", "G1", "G2"),
        ("load", "CPU_to_GPU", "G2", "G1"),
    ]
    for way, twin_label, source, target in ways:
        flow, stem = f"vllm offload {way}", f"vllm:kv_offload_{way}"
        where = ("transfer_type", twin_label)
        found += [
            Meaning(f"{stem}_bytes_total", "bytes", _VLLM, flow, "bytes", source, target),
            Meaning(f"{stem}_time_total", "s", _VLLM, flow, "seconds", source, target),
            Meaning(f"{stem}_size_count", "transfers", _VLLM, flow, "transfers", source, target),
        ]
        twins: list[tuple[str, str, Measure, str]] = [
            ("vllm:kv_offload_total_bytes_total", "bytes", "bytes", f"{stem}_bytes_total"),
            ("vllm:kv_offload_total_time_total", "s", "seconds", f"{stem}_time_total"),
            ("vllm:kv_offload_size_count", "transfers", "transfers", f"{stem}_size_count"),
        ]
        found += [
            Meaning(metric, unit, _VLLM, flow, measure, source, target, where=where, twin_of=twin)
            for metric, unit, measure, twin in twins
        ]
    return found


def _vllm_nixl() -> list[Meaning]:
    measures: list[tuple[str, str, Measure]] = [
        ("bytes_transferred_sum", "bytes", "bytes"),
        ("bytes_transferred_count", "transfers", "transfers"),
        ("xfer_time_seconds_sum", "s", "seconds"),
        ("num_descriptors_sum", "descriptors", "descriptors"),
        ("num_failed_transfers_total", "failures", "failures"),
    ]
    return [
        *(
            Meaning(f"vllm:nixl_{name}", unit, _VLLM, "vllm nixl", measure, "remote", "G1")
            for name, unit, measure in measures
        ),
        Meaning("vllm:nixl_post_time_seconds_sum", "s", _VLLM, group="memory"),
        Meaning("vllm:nixl_num_failed_notifications_total", "failures", _VLLM, group="errors"),
        Meaning("vllm:nixl_num_kv_expired_reqs_total", "requests", _VLLM, group="errors"),
    ]


def _vllm_rest() -> list[Meaning]:
    tokens = ("prompt_tokens", "prompt_tokens_cached", "prompt_tokens_by_source", "prompt_tokens_cached_by_source")
    hits = ("prefix_cache_queries", "prefix_cache_hits", "external_prefix_cache_queries", "external_prefix_cache_hits")
    tiering = ("promotion_job_failures", "cascade_job_failures", "promotion_allocation_failures", "backpressure_drops")
    return [
        *(Meaning(f"vllm:{name}_total", "tokens", _VLLM, group="tokens") for name in (*tokens, "generation_tokens")),
        *(Meaning(f"vllm:{name}_total", "tokens", _VLLM, group="hits") for name in hits),
        *(
            Meaning(f"vllm:kv_offload_tiering_chunk_{name}_total", "chunks", _VLLM_DOC, group="hits")
            for name in ("queries", "hits")
        ),
        *(Meaning(f"vllm:kv_offload_tiering_{name}_total", "failures", _VLLM_DOC, group="errors") for name in tiering),
        Meaning("vllm:kv_cache_usage_perc", "ratio", _VLLM, group="memory"),
        Meaning("vllm:kv_offload_cpu_cache_usage_perc", "ratio", _VLLM, group="memory"),
        Meaning("vllm:num_requests_running", "requests", _VLLM, group="queue"),
        Meaning("vllm:num_requests_waiting", "requests", _VLLM, group="queue"),
        Meaning("vllm:num_preemptions_total", "preemptions", _VLLM, group="queue"),
        Meaning("vllm:cache_config_info", "", _VLLM, group="model"),
    ]


def _nixl() -> list[Meaning]:
    """An agent does not say what memory it moves: its tiers stay open."""
    found = []
    for way in ("tx", "rx"):
        found += [
            Meaning(f"agent_{way}_bytes_total", "bytes", _NIXL, f"nixl {way}"),
            Meaning(f"agent_{way}_requests_num_total", "transfers", _NIXL, f"nixl {way}", "transfers"),
        ]
    return [
        *found,
        Meaning("agent_xfer_time_total", "s", _NIXL, group="session", scale=1e-6),
        Meaning("agent_xfer_post_time_total", "s", _NIXL, group="session", scale=1e-6),
        Meaning("agent_memory_registered_total", "bytes", _NIXL, group="memory"),
        Meaning("agent_memory_deregistered_total", "bytes", _NIXL, group="memory"),
        Meaning("agent_errors_total", "failures", _NIXL, group="errors"),
        Meaning("agent_telemetry_events_dropped_total", "events", _NIXL, group="errors"),
    ]


def _dynamo() -> list[Meaning]:
    return [
        Meaning("dynamo_frontend_input_sequence_tokens_sum", "tokens", _DYNAMO, group="tokens"),
        Meaning("dynamo_frontend_cached_tokens_sum", "tokens", _DYNAMO, group="tokens"),
        Meaning("dynamo_frontend_output_tokens_total", "tokens", _DYNAMO, group="tokens"),
        Meaning("dynamo_frontend_requests_total", "requests", _DYNAMO, group="queue"),
        Meaning("dynamo_frontend_inflight_requests", "requests", _DYNAMO, group="queue"),
        Meaning("dynamo_frontend_queued_requests", "requests", _DYNAMO, group="queue"),
        Meaning("dynamo_component_requests_total", "requests", _DYNAMO, group="queue"),
        Meaning("dynamo_component_inflight_requests", "requests", _DYNAMO, group="queue"),
        Meaning("dynamo_frontend_model_kv_cache_block_size", "tokens", _DYNAMO, group="model"),
        Meaning("dynamo_frontend_model_total_kv_blocks", "blocks", _DYNAMO, group="model"),
    ]


def _lmcache() -> list[Meaning]:
    return [
        *(
            Meaning(f"lmcache:num_{name}_total", "tokens", _LMCACHE, group="hits")
            for name in ("requested_tokens", "hit_tokens", "stored_tokens")
        ),
        Meaning("lmcache:local_cache_usage", "bytes", _LMCACHE, group="memory"),
        Meaning("lmcache:remote_cache_usage", "bytes", _LMCACHE, group="memory"),
        Meaning("lmcache:retrieve_hit_rate", "ratio", _LMCACHE, group="hits"),
        Meaning("lmcache:lookup_hit_rate", "ratio", _LMCACHE, group="hits"),
        Meaning("lmcache:remote_put_task_num", "tasks", _LMCACHE, group="queue"),
    ]


def _ring() -> list[Meaning]:
    claim = "NIXL 1.5.1's telemetry ring, version 4; sample nixl_ring_telA.bin"
    found = []
    for way in ("tx", "rx"):
        found += [
            Meaning(f"ring_{way}_bytes", "bytes", claim, f"nixl ring {way}"),
            Meaning(f"ring_{way}_requests", "transfers", claim, f"nixl ring {way}", "transfers"),
        ]
    return [
        *found,
        Meaning("ring_xfer_time", "s", claim, group="session", scale=1e-6),
        Meaning("ring_xfer_post_time", "s", claim, group="session", scale=1e-6),
        Meaning("ring_memory_registered", "bytes", claim, group="memory"),
        Meaning("ring_memory_deregistered", "bytes", claim, group="memory"),
        Meaning("ring_errors", "failures", claim, group="errors"),
        Meaning("ring_events_dropped", "events", claim, group="errors"),
    ]


def _host() -> list[Meaning]:
    nvidia_fs = "/proc/driver/nvidia-fs/stats"
    return [
        Meaning("disk_read_bytes", "bytes", "/proc/diskstats through psutil", group="host"),
        Meaning("disk_write_bytes", "bytes", "/proc/diskstats through psutil", group="host"),
        Meaning("network_sent_bytes", "bytes", "/proc/net/dev through psutil", group="host"),
        Meaning("network_received_bytes", "bytes", "/proc/net/dev through psutil", group="host"),
        Meaning("fabric_sent_bytes", "bytes", "port_xmit_data of /sys/class/infiniband, 4-byte words", group="host"),
        Meaning("fabric_received_bytes", "bytes", "port_rcv_data of /sys/class/infiniband, 4-byte words", group="host"),
        Meaning("process_read_bytes", "bytes", "read_bytes of /proc/<pid>/io: what came from storage", group="host"),
        Meaning("process_write_bytes", "bytes", "write_bytes of /proc/<pid>/io: what went to storage", group="host"),
        Meaning("disk_tier_bytes", "bytes", "KVBM's unlinked file, seen in /proc/<pid>/fd", group="memory"),
        Meaning("nvidia_fs_read_bytes", "bytes", nvidia_fs, group="host"),
        Meaning("nvidia_fs_write_bytes", "bytes", nvidia_fs, group="host"),
        Meaning("nvidia_fs_ops", "operations", nvidia_fs, group="host"),
        Meaning("nvidia_fs_errors", "failures", nvidia_fs, group="errors"),
        Meaning("cufile_posix_ops", "operations", "cuFile's gds_stats: the compatibility path", group="host"),
        Meaning("gpu_pcie_sent_bytes_per_s", "B/s", "NVML, a 20 ms sample; the GPU sends", group="host"),
        Meaning("gpu_pcie_received_bytes_per_s", "B/s", "NVML, a 20 ms sample; the GPU receives", group="host"),
        Meaning("gpu_nvlink_sent_bytes", "bytes", "NVML's cumulative NVLink field", group="host"),
        Meaning("gpu_nvlink_received_bytes", "bytes", "NVML's cumulative NVLink field", group="host"),
        Meaning("gpu_memory_used_bytes", "bytes", "NVML", group="memory"),
        Meaning("gpu_utilisation", "ratio", "NVML", group="host"),
    ]


def _sessions() -> list[Meaning]:
    paths: list[tuple[str, Tier, Tier]] = [
        ("HostToHost", "G2", "G2"),
        ("HostToDisk", "G2", "G3"),
        ("DiskToHost", "G3", "G2"),
        ("HostToDevice", "G2", "G1"),
        ("DeviceToHost", "G1", "G2"),
        ("DeviceToDevice", "G1", "G1"),
        ("DeviceToDisk", "G1", "G3"),
        ("DiskToDevice", "G3", "G1"),
    ]
    measures: tuple[Measure, ...] = ("bytes", "blocks", "transfers", "seconds", "descriptors", "failures")
    return [
        Meaning(
            f"session_{measure}",
            measure,
            "the session's own samples",
            path,
            measure,
            source,
            target,
            where=("path", path),
        )
        for path, source, target in paths
        for measure in measures
    ]


TABLE: tuple[Meaning, ...] = (
    *_kvbm(),
    *_vllm_offload(),
    *_vllm_nixl(),
    *_vllm_rest(),
    *_nixl(),
    *_dynamo(),
    *_lmcache(),
    *_ring(),
    *_host(),
    *_sessions(),
)

_BY_METRIC: dict[str, list[Meaning]] = {}
for _meaning in TABLE:
    _BY_METRIC.setdefault(_meaning.metric, []).append(_meaning)

_TIERING: dict[str, tuple[str, Measure]] = {"bytes": ("bytes", "bytes"), "time": ("s", "seconds")}
_TIER_WORDS: tuple[tuple[str, Tier], ...] = (
    ("fs", "G3"),
    ("file", "G3"),
    ("disk", "G3"),
    ("nvme", "G3"),
    ("obj", "G4"),
    ("s3", "G4"),
    ("p2p", "remote"),
    ("remote", "remote"),
)


def meaning_of(series: Series) -> Meaning | None:
    """What a series means, or None where it is not known.

    KVBM's names are taken with or without the prefix `dynamo_` and the suffix `_total`.
    """
    name = series.name
    if name.startswith(("kvbm_", "dynamo_kvbm_")):
        name = name.removeprefix("dynamo_").removesuffix("_total")
    if name.startswith("vllm:kv_offload_tiering_"):
        tiering = _tiering(series)
        if tiering is not None:
            return tiering
    for meaning in _BY_METRIC.get(name, ()):
        if meaning.where is None or series.label(meaning.where[0]) == meaning.where[1]:
            return meaning
    return None


def _tiering(series: Series) -> Meaning | None:
    """vLLM's secondary tiers: the tier is a label such as `1:fs`, which decides where the bytes lie."""
    parts = series.name.removeprefix("vllm:kv_offload_tiering_").removesuffix("_total").split("_")
    if len(parts) != 2 or parts[0] not in ("read", "write") or parts[1] not in _TIERING:
        return None
    label = series.label("tier")
    word = label.rpartition(":")[2].lower()
    tier = next((tier for text, tier in _TIER_WORDS if word.startswith(text)), None)
    unit, measure = _TIERING[parts[1]]
    flow = f"vllm tiering {parts[0]} {label}".strip()
    claim = f"{_VLLM_DOC}; the tier by its label {label!r}"
    if parts[0] == "read":
        return Meaning(series.name, unit, claim, flow, measure, tier, "G2")
    return Meaning(series.name, unit, claim, flow, measure, "G2", tier)
