"""Definitions of the metrics of TensorRT-LLM's server, and of Triton with its TensorRT-LLM backend."""

from __future__ import annotations

from typing import Any

from kvdeck.engine.telemetry.metrics.metric import Group, HelpLine, Meaning, Measure, gauges, histograms, roles
from kvdeck.sessions.model.cache_hits import hit_roles
from kvdeck.sessions.model.tier_words import Tier

_TRTLLM = "TensorRT-LLM, tensorrt_llm/metrics/collector.py; no sample of its own"
_TRITON = "Triton, docs/user_guide/metrics.md, and its TensorRT-LLM backend; no sample of its own"
_HELP = {
    "trtllm_num_requests_running": "Number of active requests",
    "trtllm_num_requests_waiting": "Number of queued requests",
    "trtllm_num_paused_requests": "Number of paused requests",
    "trtllm_num_context_requests": "Number of context (prefill) requests",
    "trtllm_num_generation_requests": "Number of generation (decode) requests",
    "trtllm_kv_cache_utilization": "KV cache utilization",
    "trtllm_kv_cache_host_utilization": "KV cache host (secondary) pool utilization",
    "trtllm_kv_cache_hit_rate": "KV cache hit rate",
    "trtllm_kv_cache_iter_reuse_rate": "Per-iteration KV cache block reuse rate",
    "trtllm_kv_cache_max_blocks": "Maximum number of KV cache blocks",
    "trtllm_kv_cache_free_blocks": "Number of free KV cache blocks",
    "trtllm_kv_cache_used_blocks": "Number of used KV cache blocks",
    "trtllm_kv_cache_tokens_per_block": "Number of tokens per KV cache block",
    "trtllm_gpu_memory_usage_bytes": "GPU memory usage in bytes",
    "trtllm_pinned_memory_usage_bytes": "Pinned memory usage in bytes",
}
_ROLES: dict[str, dict[str, Any]] = {
    "trtllm_request_success_total": {"role": "finished", "by": "finished_reason"},
    "trtllm_request_error_total": {"role": "failed", "beside": True},
    "trtllm_num_requests_running": {"role": "running"},
    "trtllm_num_requests_waiting": {"role": "waiting"},
    "trtllm_generation_tokens_total": {"role": "tokens_out"},
    "trtllm_kv_cache_utilization": {"role": "kv_usage"},
    **hit_roles("TensorRT-LLM"),
    "trtllm_kv_cache_hit_rate": {"role": "share", "part": "blocks"},
}


def trtllm() -> list[Meaning]:
    """Return the metrics of `trtllm-serve`."""
    numbers: list[tuple[str, str, Group]] = [
        ("num_requests_running", "requests", "queue"),
        ("num_requests_waiting", "requests", "queue"),
        ("num_paused_requests", "requests", "queue"),
        ("num_context_requests", "requests", "queue"),
        ("num_generation_requests", "requests", "queue"),
        ("request_success_total", "requests", "queue"),
        ("num_requests_completed_total", "requests", "queue"),
        ("request_error_total", "requests", "errors"),
        ("prompt_tokens_total", "tokens", "tokens"),
        ("generation_tokens_total", "tokens", "tokens"),
        ("prompt_cached_tokens_total", "tokens", "tokens"),
        ("prompt_cache_hit_tokens_total", "tokens", "tokens"),
        ("kv_cache_utilization", "ratio", "memory"),
        ("kv_cache_host_utilization", "ratio", "memory"),
        ("kv_cache_hit_rate", "ratio", "hits"),
        ("kv_cache_iter_reuse_rate", "ratio", "hits"),
        ("kv_cache_reused_blocks_total", "blocks", "hits"),
        ("kv_cache_missed_blocks_total", "blocks", "hits"),
        ("kv_cache_gen_alloc_blocks_total", "blocks", "memory"),
        ("kv_cache_max_blocks", "blocks", "model"),
        ("kv_cache_free_blocks", "blocks", "memory"),
        ("kv_cache_used_blocks", "blocks", "memory"),
        ("kv_cache_tokens_per_block", "tokens", "model"),
        ("gpu_memory_usage_bytes", "bytes", "memory"),
        ("pinned_memory_usage_bytes", "bytes", "memory"),
    ]
    moves: list[tuple[str, Measure, Tier, Tier]] = [
        ("onboard_bytes", "bytes", "G2", "G1"),
        ("offload_bytes", "bytes", "G1", "G2"),
        ("disk_prefetch_blocks", "blocks", "G3", "G2"),
    ]
    found = [Meaning(f"trtllm_{name}", unit, _TRTLLM, group=group) for name, unit, group in numbers]
    found += [
        Meaning(
            f"trtllm_kv_cache_{name}_total",
            measure,
            _TRTLLM,
            f"trtllm {name.rpartition('_')[0].replace('_', ' ')}",
            measure,
            source,
            target,
        )
        for name, measure, source, target in moves
    ]
    seconds = {
        "trtllm_time_to_first_token_seconds": "ttft",
        "trtllm_time_per_output_token_seconds": "tpot",
        "trtllm_e2e_request_latency_seconds": "e2e",
        "trtllm_request_queue_time_seconds": "queue",
        "trtllm_request_prefill_time_seconds": "prefill",
        "trtllm_request_decode_time_seconds": "decode",
        "trtllm_request_inference_time_seconds": "inference",
    }
    return [*roles(gauges(found, _TRTLLM, _HELP), _ROLES), *histograms(_TRTLLM, "s", seconds)]


def triton() -> list[Meaning]:
    """Return the metrics of Triton and of its TensorRT-LLM backend, whose gauges differ by a label."""
    blocks = HelpLine("TRT LLM KV cache block metrics", _TRITON)
    requests = HelpLine("TRT LLM request metrics: requests by `request_type`", _TRITON)
    pending = HelpLine("Instantaneous number of pending requests awaiting execution per-model.", _TRITON)
    kinds: list[tuple[str, str, Group, dict[str, Any]]] = [
        ("fraction", "ratio", "memory", {"role": "kv_usage"}),
        ("used", "blocks", "memory", {}),
        ("free", "blocks", "memory", {}),
        ("max", "blocks", "model", {}),
        ("tokens_per", "tokens", "model", {}),
    ]
    types: list[tuple[str, dict[str, Any]]] = [
        ("active", {"role": "running"}),
        ("waiting", {"role": "waiting"}),
        ("scheduled", {}),
        ("context", {}),
        ("max", {}),
    ]
    name, of_requests = "nv_trt_llm_kv_cache_block_metrics", "nv_trt_llm_request_metrics"
    return [
        *(
            Meaning(
                name,
                unit,
                _TRITON,
                group=group,
                where=("kv_cache_block_type", kind),
                gauge=True,
                help=blocks,
                **role,
            )
            for kind, unit, group, role in kinds
        ),
        *(
            Meaning(
                of_requests,
                "requests",
                _TRITON,
                group="queue",
                where=("request_type", kind),
                gauge=True,
                help=requests,
                **role,
            )
            for kind, role in types
        ),
        Meaning("nv_inference_request_success", "requests", _TRITON, group="queue", role="finished"),
        Meaning(
            "nv_inference_request_failure",
            "requests",
            _TRITON,
            group="errors",
            role="failed",
            by="reason",
            beside=True,
        ),
        Meaning("nv_inference_pending_request_count", "requests", _TRITON, group="queue", gauge=True, help=pending),
        Meaning("nv_inference_queue_duration_us", "s", _TRITON, group="queue", scale=1e-6),
    ]
