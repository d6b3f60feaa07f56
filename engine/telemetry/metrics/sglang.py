"""Definitions of SGLang's metrics, HiCache included."""

from __future__ import annotations

from typing import Any

from kvdeck.engine.telemetry.metrics.metric import Group, Meaning, gauges, histograms, roles
from kvdeck.sessions.model.cache_hits import hit_roles

_SGLANG = "SGLang, python/sglang/srt/metrics/collector.py; no sample of its own"
_HICACHE = "SGLang's HiCache, from Dynamo's HiCache dashboard; no sample of its own"
_HELP = {
    "sglang:num_running_reqs": "The number of running requests.",
    "sglang:num_queue_reqs": "The number of requests in the waiting queue.",
    "sglang:num_used_tokens": "The number of used tokens.",
    "sglang:max_total_num_tokens": "Maximum total number of tokens in the KV cache pool.",
    "sglang:token_usage": "The token usage.",
    "sglang:cache_hit_rate": "The prefix cache hit rate.",
    "sglang:gen_throughput": "The generation throughput (token/s).",
    "sglang:num_paused_reqs": "The number of paused requests by async weight sync.",
    "sglang:num_retracted_reqs": "The number of retracted requests.",
    "sglang:num_prefill_prealloc_queue_reqs": "The number of requests in the prefill prealloc queue.",
    "sglang:num_prefill_inflight_queue_reqs": "The number of requests in the prefill inflight queue.",
    "sglang:num_decode_prealloc_queue_reqs": "The number of requests in the decode prealloc queue.",
    "sglang:num_decode_transfer_queue_reqs": "The number of requests in the decode transfer queue.",
    "sglang:prefetch_occupied_ratio": "Current prefetch occupied ratio (0-1, >1 means rate limited).",
}
_HICACHE_PANELS = "title and formula of its panel in Dynamo's HiCache dashboard, not SGLang's help line"
_HICACHE_HELP = {
    "sglang:hicache_host_used_tokens": "Host KV Cache Usage %: host_used_tokens / host_total_tokens * 100",
    "sglang:hicache_host_total_tokens": "Host KV Cache Usage %: host_used_tokens / host_total_tokens * 100",
    "sglang:hicache_active_pin_count": "Active PIN Count & Cache Hit Rate: Active PINs",
}
_ROLES: dict[str, dict[str, Any]] = {
    "sglang:num_running_reqs": {"role": "running"},
    "sglang:num_queue_reqs": {"role": "waiting"},
    "sglang:token_usage": {"role": "kv_usage"},
    "sglang:num_requests_total": {"role": "finished"},
    "sglang:num_aborted_requests_total": {"role": "aborted"},
    "sglang:num_retracted_requests_total": {"role": "preempted"},
    "sglang:generation_tokens_total": {"role": "tokens_out"},
    **hit_roles("SGLang"),
    "sglang:cache_hit_rate": {"role": "share", "part": "prefix", "tier": "G1"},
    "sglang:evicted_tokens_total": {"role": "evicted", "part": "prefix", "tier": "G1"},
}


def sglang() -> list[Meaning]:
    """Return SGLang's metrics; newer versions write `sglang_` for `sglang:`, which `canonical` maps."""
    numbers: list[tuple[str, str, Group]] = [
        ("num_running_reqs", "requests", "queue"),
        ("num_queue_reqs", "requests", "queue"),
        ("num_paused_reqs", "requests", "queue"),
        ("num_retracted_reqs", "requests", "queue"),
        ("num_prefill_prealloc_queue_reqs", "requests", "queue"),
        ("num_prefill_inflight_queue_reqs", "requests", "queue"),
        ("num_decode_prealloc_queue_reqs", "requests", "queue"),
        ("num_decode_transfer_queue_reqs", "requests", "queue"),
        ("num_requests_total", "requests", "queue"),
        ("num_retracted_requests_total", "requests", "queue"),
        ("num_aborted_requests_total", "requests", "errors"),
        ("num_bootstrap_failed_reqs_total", "requests", "errors"),
        ("num_transfer_failed_reqs_total", "requests", "errors"),
        ("num_used_tokens", "tokens", "memory"),
        ("max_total_num_tokens", "tokens", "model"),
        ("token_usage", "ratio", "memory"),
        ("cache_hit_rate", "ratio", "hits"),
        ("gen_throughput", "tokens/s", "tokens"),
        ("prompt_tokens_total", "tokens", "tokens"),
        ("generation_tokens_total", "tokens", "tokens"),
        ("cached_tokens_total", "tokens", "tokens"),
        ("evicted_tokens_total", "tokens", "hits"),
        ("load_back_tokens_total", "tokens", "hits"),
        ("prefetched_tokens_total", "tokens", "hits"),
        ("backuped_tokens_total", "tokens", "hits"),
        ("prefetch_occupied_ratio", "ratio", "memory"),
    ]
    hicache: list[tuple[str, str, Group]] = [
        ("hicache_host_used_tokens", "tokens", "memory"),
        ("hicache_host_total_tokens", "tokens", "memory"),
        ("hicache_active_pin_count", "pins", "memory"),
    ]
    found = [Meaning(f"sglang:{name}", unit, _SGLANG, group=group) for name, unit, group in numbers]
    found += [Meaning(f"sglang:{name}", unit, _HICACHE, group=group) for name, unit, group in hicache]
    found = gauges(gauges(found, _SGLANG, _HELP), _HICACHE_PANELS, _HICACHE_HELP)
    seconds = {
        "sglang:time_to_first_token_seconds": "ttft",
        "sglang:inter_token_latency_seconds": "itl",
        "sglang:time_per_output_token_seconds": "tpot",
        "sglang:e2e_request_latency_seconds": "e2e",
        "sglang:queue_time_seconds": "queue",
        "sglang:eviction_duration_seconds": "eviction",
        "sglang:load_back_duration_seconds": "load_back",
    }
    return [*roles(found, _ROLES), *histograms(_SGLANG, "s", seconds)]
