"""Definitions of vLLM's metrics: scheduler, caches, and the offloading, NIXL and Mooncake connectors."""

from __future__ import annotations

from typing import Any

from kvdeck.engine.telemetry.metrics.metric import Meaning, Measure, gauges, histograms, roles
from kvdeck.engine.telemetry.source import Series
from kvdeck.sessions.model.cache_hits import hit_roles
from kvdeck.sessions.model.tier_words import Tier, tier_of

_VLLM = "vLLM 0.32.0, samples vllm032_*"
_VLLM_DOC = "vLLM's metric list; no sample"
_MOONCAKE = "vLLM 0.33's Mooncake store connector, from its source; no sample"

_SCHEDULER = "vLLM, vllm/v1/metrics/loggers.py"
_SCHEDULER_HELP = {
    "vllm:num_requests_running": "Number of requests in model execution batches.",
    "vllm:num_requests_waiting": "Number of requests waiting to be processed.",
    "vllm:num_requests_waiting_by_reason": (
        "Number of waiting requests by reason. Reason labels: 'capacity' = waiting for scheduling capacity; 'deferred' "
        "= deferred by transient constraints (LoRA budget, KV transfer, blocked status). Sum of all reasons equals "
        "vllm:num_requests_waiting."
    ),
    "vllm:num_requests_kv_fetch_by_stage": "Number of requests by asynchronous remote-KV fetch stage.",
    "vllm:engine_sleep_state": (
        "Engine sleep state; awake = 0 means engine is sleeping; awake = 1 means engine is awake; "
        "weights_offloaded = 1 means sleep level 1; discard_all = 1 means sleep level 2."
    ),
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

_SIMPLE = "vLLM's dashboard vllm_kv_cache.json; no sample of its own"
_SIMPLE_HELP = {
    "vllm:simple_kv_offload_used_blocks": "Pool blocks pinned by in-flight transfers or cache hits",
    "vllm:simple_kv_offload_pending_store_blocks": (
        "blocks in pending stores. A steadily growing pending count indicates a stuck transfer."
    ),
}
_OLDER = "vLLM 0.6 to 0.10, vllm/engine/metrics.py and vllm/v1/metrics/loggers.py"
_OLDER_SOURCE = "vLLM 0.6 to 0.10, vllm/engine/metrics.py"
_OLDER_HELP = {
    "vllm:gpu_cache_usage_perc": "GPU KV-cache usage. 1 means 100 percent usage.",
    "vllm:cpu_cache_usage_perc": "CPU KV-cache usage. 1 means 100 percent usage.",
    "vllm:gpu_prefix_cache_hit_rate": "GPU prefix cache block hit rate.",
    "vllm:cpu_prefix_cache_hit_rate": "CPU prefix cache block hit rate.",
    "vllm:num_requests_swapped": "Number of requests swapped to CPU.",
}

_TIERING: dict[str, tuple[str, Measure]] = {"bytes": ("bytes", "bytes"), "time": ("s", "seconds")}
_ROLES: dict[str, dict[str, Any]] = {
    "vllm:request_success_total": {"role": "finished", "by": "finished_reason"},
    "vllm:num_requests_running": {"role": "running"},
    "vllm:num_requests_waiting": {"role": "waiting"},
    "vllm:num_requests_waiting_by_reason": {"role": "waiting_by", "by": "reason"},
    "vllm:num_requests_kv_fetch_by_stage": {"role": "kv_fetch", "by": "stage"},
    "vllm:num_preemptions_total": {"role": "preempted"},
    "vllm:generation_tokens_total": {"role": "tokens_out"},
    "vllm:kv_cache_usage_perc": {"role": "kv_usage"},
    "vllm:gpu_cache_usage_perc": {"role": "kv_usage"},
    "vllm:engine_sleep_state": {"role": "sleep"},
    **hit_roles("vLLM"),
    "vllm:gpu_prefix_cache_hit_rate": {"role": "share", "part": "prefix", "tier": "G1"},
    "vllm:cpu_prefix_cache_hit_rate": {"role": "share", "part": "host prefix", "tier": "G2"},
}
_LATENCIES = {
    "vllm:time_to_first_token_seconds": "ttft",
    "vllm:inter_token_latency_seconds": "itl",
    "vllm:request_time_per_output_token_seconds": "tpot",
    "vllm:e2e_request_latency_seconds": "e2e",
    "vllm:request_queue_time_seconds": "queue",
    "vllm:request_prefill_time_seconds": "prefill",
    "vllm:request_decode_time_seconds": "decode",
    "vllm:request_inference_time_seconds": "inference",
    "vllm:kv_offload_lookup_sync_delay_seconds": "lookup_sync",
    "vllm:nixl_xfer_time_seconds": "transfer",
    "vllm:nixl_post_time_seconds": "post",
}
"""Histograms of times. Before 0.11, the time between tokens was called the time per output token."""
_LATENCIES_DOC = {
    "vllm:kv_offload_lookup_async_delay_seconds": "lookup_async",
    "vllm:kv_offload_tiering_lookup_sync_delay_seconds": "tier_lookup_sync",
    "vllm:kv_offload_tiering_lookup_async_delay_seconds": "tier_lookup_async",
    "vllm:kv_block_lifetime_seconds": "block_lifetime",
    "vllm:kv_block_idle_before_evict_seconds": "block_idle",
    "vllm:kv_block_reuse_gap_seconds": "block_reuse_gap",
}


def vllm() -> list[Meaning]:
    """Return all vLLM metrics whose tiers don't depend on a label."""
    found = gauges([*_offload(), *_nixl(), *_mooncake(), *_rest(), *_older(), *_simple()], _SCHEDULER, _SCHEDULER_HELP)
    return roles([*gauges(gauges(found, _OFFLOADING, _OFFLOADING_HELP), _OLDER_SOURCE, _OLDER_HELP), *_seen()], _ROLES)


def _seen() -> list[Meaning]:
    return [
        *histograms(_VLLM, "s", _LATENCIES),
        *histograms(_OLDER, "s", {"vllm:time_per_output_token_seconds": "itl"}),
        *histograms(_VLLM_DOC, "s", _LATENCIES_DOC),
        *histograms(
            _VLLM,
            "tokens",
            {
                "vllm:request_prompt_tokens": "prompt_tokens",
                "vllm:request_generation_tokens": "output_tokens",
                "vllm:request_prefill_kv_computed_tokens": "computed_tokens",
                "vllm:iteration_tokens_total": "iteration_tokens",
            },
        ),
        *histograms(
            _VLLM,
            "bytes",
            {
                "vllm:nixl_bytes_transferred": "transfer_bytes",
                "vllm:kv_offload_load_size": "load_bytes",
                "vllm:kv_offload_store_size": "store_bytes",
            },
        ),
        *histograms(_VLLM, "descriptors", {"vllm:nixl_num_descriptors": "descriptors"}),
        *histograms(_VLLM, "preemptions", {"vllm:request_num_preemptions": "preemptions"}),
    ]


def _simple() -> list[Meaning]:
    """Return the metrics of the simple CPU offload connector."""
    stem = "vllm:simple_kv_offload"
    found = [
        Meaning(f"{stem}_load_blocks_total", "blocks", _SIMPLE, "vllm simple offload load", "blocks", "G2", "G1"),
        Meaning(f"{stem}_save_outcomes_total", "stores", _SIMPLE, group="hits"),
        Meaning(f"{stem}_used_blocks", "blocks", _SIMPLE, group="memory"),
        Meaning(f"{stem}_pending_store_blocks", "blocks", _SIMPLE, group="queue"),
    ]
    return gauges(found, _SIMPLE, _SIMPLE_HELP)


def _older() -> list[Meaning]:
    """Return names of vLLM 0.6 to 0.10 that were renamed or dropped since."""
    pairs = ("gpu_prefix_cache_queries", "gpu_prefix_cache_hits")
    return [
        *(Meaning(f"vllm:{name}_total", "tokens", _OLDER, group="hits") for name in pairs),
        Meaning("vllm:gpu_cache_usage_perc", "ratio", _OLDER, group="memory"),
        Meaning("vllm:cpu_cache_usage_perc", "ratio", _OLDER, group="memory"),
        Meaning("vllm:gpu_prefix_cache_hit_rate", "ratio", _OLDER, group="hits"),
        Meaning("vllm:cpu_prefix_cache_hit_rate", "ratio", _OLDER, group="hits"),
        Meaning("vllm:num_requests_swapped", "requests", _OLDER, group="queue"),
    ]


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
    tier = tier_of(label)
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
        Meaning("vllm:kv_offload_allocation_failure_total", "failures", _VLLM_DOC, group="errors"),
        Meaning("vllm:kv_offload_stores_skipped_total", "stores", _VLLM_DOC, group="hits"),
        Meaning("vllm:kv_offload_tiering_backpressure_blocks_dropped_total", "failures", _VLLM_DOC, group="errors"),
        Meaning("vllm:nixl_num_notifications_after_expiry_total", "notifications", _VLLM_DOC, group="errors"),
        Meaning("vllm:corrupted_requests_total", "requests", _VLLM_DOC, group="errors"),
        Meaning("vllm:hf3fs_num_failed_save_total", "failures", _VLLM_DOC, group="errors"),
        Meaning("vllm:hf3fs_num_failed_load_total", "failures", _VLLM_DOC, group="errors"),
        Meaning("vllm:kv_cache_usage_perc", "ratio", _VLLM, group="memory"),
        *(
            Meaning(f"vllm:kv_offload_cpu_cache_{way}usage_perc", "ratio", _VLLM, group="memory")
            for way in ("", "read_", "write_")
        ),
        *(
            Meaning(f"vllm:num_requests_{name}", "requests", _VLLM, group="queue")
            for name in ("running", "waiting", "waiting_by_reason", "kv_fetch_by_stage")
        ),
        Meaning("vllm:engine_sleep_state", "", _VLLM, group="model"),
        Meaning("vllm:num_preemptions_total", "preemptions", _VLLM, group="queue"),
        Meaning("vllm:request_success_total", "requests", f"{_VLLM}; finished requests by reason", group="queue"),
        Meaning("vllm:iteration_tokens_total_count", "steps", f"{_VLLM}; engine steps", group="queue"),
        Meaning("vllm:admission_rejections_total", "requests", _VLLM, group="errors"),
        Meaning("vllm:cache_config_info", "", _VLLM, group="model"),
    ]
