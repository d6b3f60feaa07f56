"""Definitions of vLLM's metrics: scheduler, caches, and the offloading, NIXL and Mooncake connectors."""

from __future__ import annotations

from kvdeck.engine.telemetry.metrics.metric import Meaning, Measure, Tier, gauges
from kvdeck.engine.telemetry.source import Series

_VLLM = "vLLM 0.32.0, samples vllm032_*"
_VLLM_DOC = "vLLM's metric list; no sample"
_MOONCAKE = "vLLM 0.33's Mooncake store connector, from its source; no sample"

_SCHEDULER = "vLLM, vllm/v1/metrics/loggers.py"
_SCHEDULER_HELP = {
    "vllm:num_requests_running": "Number of requests in model execution batches.",
    "vllm:num_requests_waiting": "Number of requests waiting to be processed.",
    "vllm:kv_cache_usage_perc": "KV-cache usage. 1 means 100 percent usage.",
    "vllm:cache_config_info": "Information of the LLMEngine CacheConfig",
}
_OFFLOADING = "vLLM, the CPU offloading specification in vllm/v1/kv_offload"
_OFFLOADING_HELP = {
    "vllm:kv_offload_cpu_cache_usage_perc": (
        "Fraction of CPU KV-cache space currently pinned by active transfers (0.0 = idle, 1.0 = saturated). Sustained "
        "high values indicate transfers (stores or promotions) may be dropped due to insufficient capacity."
    ),
    "vllm:kv_offload_cpu_cache_write_usage_perc": (
        "Fraction of CPU KV-cache space currently pinned by in-flight stores that have not yet completed "
        "(0.0 = idle, 1.0 = saturated)."
    ),
    "vllm:kv_offload_cpu_cache_read_usage_perc": (
        "Fraction of CPU KV-cache space currently pinned by in-flight loads that have not yet completed "
        "(0.0 = idle, 1.0 = saturated)."
    ),
}

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
"""Tier of a secondary tier by the start of its name."""


def vllm() -> list[Meaning]:
    """Return all vLLM metrics whose tiers don't depend on a label."""
    found = gauges([*_offload(), *_nixl(), *_mooncake(), *_rest()], _SCHEDULER, _SCHEDULER_HELP)
    return gauges(found, _OFFLOADING, _OFFLOADING_HELP)


def _offload() -> list[Meaning]:
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


def tiering(series: Series) -> Meaning | None:
    """Return the definition of a secondary-tier metric; the label `tier`, such as `1:fs`, gives the tier.

    None if the name doesn't match; the tier is None if the label isn't known.
    """
    parts = series.name.removeprefix("vllm:kv_offload_tiering_").removesuffix("_total").split("_")
    if len(parts) != 2 or parts[0] not in ("read", "write") or parts[1] not in _TIERING:
        return None
    label = series.label("tier")
    word = label.rpartition(":")[2].lower()
    tier = next((tier for text, tier in _TIER_WORDS if word.startswith(text)), None)
    if tier is None and "filesystem" in word:  # a custom tier manager is labelled with its class name
        tier = "G3"
    unit, measure = _TIERING[parts[1]]
    flow = f"vllm tiering {parts[0]} {label}".strip()
    claim = f"{_VLLM_DOC}; the tier by its label {label!r}"
    if parts[0] == "read":
        return Meaning(series.name, unit, claim, flow, measure, tier, "G2")
    return Meaning(series.name, unit, claim, flow, measure, "G2", tier)


def _nixl() -> list[Meaning]:
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


def _mooncake() -> list[Meaning]:
    """Return the Mooncake store metrics; `meaning_of` skips failed operations, whose bytes didn't arrive."""
    ways: list[tuple[str, Tier, Tier]] = [("load_get", "remote", "G1"), ("save_put", "G1", "remote")]
    measures: list[tuple[str, str, Measure]] = [
        ("operation_bytes_total", "bytes", "bytes"),
        ("operation_total", "transfers", "transfers"),
        ("operation_time_seconds_sum", "s", "seconds"),
        ("operation_failed_keys_total", "failures", "failures"),
    ]
    return [
        Meaning(
            f"vllm:mooncake_store_{name}",
            unit,
            _MOONCAKE,
            f"vllm mooncake {operation}",
            measure,
            source,
            target,
            where=("operation", operation),
        )
        for operation, source, target in ways
        for name, unit, measure in measures
    ]


def _rest() -> list[Meaning]:
    tokens = ("prompt_tokens", "prompt_tokens_cached", "prompt_tokens_by_source", "prompt_tokens_cached_by_source")
    hits = ("prefix_cache_queries", "prefix_cache_hits", "external_prefix_cache_queries", "external_prefix_cache_hits")
    failures = ("promotion_job_failures", "cascade_job_failures", "promotion_allocation_failures")
    drops = ("backpressure_drops", "backpressure_stores_dropped")
    return [
        *(Meaning(f"vllm:{name}_total", "tokens", _VLLM, group="tokens") for name in (*tokens, "generation_tokens")),
        *(Meaning(f"vllm:{name}_total", "tokens", _VLLM, group="hits") for name in hits),
        *(
            Meaning(f"vllm:kv_offload_tiering_{what}_{name}_total", f"{what}s", _VLLM_DOC, group="hits")
            for what in ("chunk", "block")
            for name in ("queries", "hits")
        ),
        *(
            Meaning(f"vllm:kv_offload_tiering_{name}_total", "failures", _VLLM_DOC, group="errors")
            for name in (*failures, *drops)
        ),
        Meaning("vllm:kv_cache_usage_perc", "ratio", _VLLM, group="memory"),
        *(
            Meaning(f"vllm:kv_offload_cpu_cache_{way}usage_perc", "ratio", _VLLM, group="memory")
            for way in ("", "read_", "write_")
        ),
        *(Meaning(f"vllm:num_requests_{name}", "requests", _VLLM, group="queue") for name in ("running", "waiting")),
        Meaning("vllm:num_preemptions_total", "preemptions", _VLLM, group="queue"),
        Meaning("vllm:request_success_total", "requests", f"{_VLLM}; finished requests by reason", group="queue"),
        Meaning("vllm:iteration_tokens_total_count", "steps", f"{_VLLM}; engine steps", group="queue"),
        Meaning("vllm:admission_rejections_total", "requests", _VLLM, group="errors"),
        Meaning("vllm:cache_config_info", "", _VLLM, group="model"),
    ]
