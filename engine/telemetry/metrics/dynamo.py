"""Definitions of the metrics of Dynamo's frontend, router and workers, and of both generations of KVBM."""

from __future__ import annotations

import re
from typing import Any

from kvdeck.engine.telemetry.metrics.metric import Group, Meaning, Measure, gauges, histograms, roles
from kvdeck.engine.telemetry.source import Series
from kvdeck.sessions.model.cache_hits import hit_roles
from kvdeck.sessions.model.tier_words import Tier

_KVBM = "KVBM 1.6.1, samples dynamo_kvbm_metrics_*"
_KVBM_NAMES = "dynamo/prometheus_names.py of ai-dynamo 1.6.1; no sample prints it"
_KVBM_OLDER = "KVBM of Dynamo 0.4 to 0.7, by its names; no sample of its own"
_KVBM_NEXT = "KVBM's newer generation, read by the letters of its name: no sample"
_DYNAMO = "Dynamo 1.6.1, samples dynamo_fe_metrics_*, dynamo_worker_metrics_*"
_DYNAMO_NAMES = "dynamo/prometheus_names.py of ai-dynamo 1.6.1; no sample prints it"
_DYNAMO_LIVE = "Dynamo 1.6.1's frontend, seen under load; its help line"
_KVBM_GAUGES = "KVBM of ai-dynamo, metrics_kvbm.rs"
_KVBM_HELP = {
    "kvbm_host_cache_hit_rate": "Host cache hit rate (0.0-1.0) from the sliding window",
    "kvbm_disk_cache_hit_rate": "Disk cache hit rate (0.0-1.0) from the sliding window",
    "kvbm_object_cache_hit_rate": "Object storage cache hit rate (0.0-1.0) from the sliding window",
}
_RUNTIME = "ai-dynamo-runtime 1.6.1, the help lines in its binary"
_RUNTIME_HELP = {
    "dynamo_frontend_inflight_requests": "Number of inflight requests",
    "dynamo_frontend_queued_requests": "Number of requests in HTTP processing queue",
    "dynamo_frontend_router_queue_pending_requests": "Number of requests pending in the router scheduler queue",
    "dynamo_frontend_worker_active_prefill_tokens": "Active prefill tokens queued per worker",
    "dynamo_frontend_worker_active_decode_blocks": "Active KV cache decode blocks per worker",
    "dynamo_frontend_model_ready": (
        "Whether the frontend can route at least one inference request for the model (1 = ready, 0 = not ready)"
    ),
    "dynamo_frontend_model_kv_cache_block_size": "KV cache block size in tokens for a worker serving the model",
    "dynamo_frontend_model_total_kv_blocks": "Total KV cache blocks available for a worker serving the model",
    "dynamo_component_inflight_requests": "Number of requests currently being processed by work handler",
    "dynamo_request_queue": (
        "Current number of requests queued in Dynamo not yet in the engine (--dynamo-request-queue-limit)"
    ),
    "dynamo_engine_request": "Current number of requests being handled by the engine (--engine-request-limit)",
    "dynamo_work_handler_queue_depth": "Current items in the bounded work queue awaiting dispatcher pickup",
}
_BACKEND = "ai-dynamo 1.6.1, dynamo/common/utils/prometheus.py"
_BACKEND_HELP = {
    "dynamo_component_total_blocks": "Total number of KV cache blocks available on the worker.",
    "dynamo_component_gpu_cache_usage_percent": "GPU cache usage as a percentage (0.0-1.0).",
    "dynamo_component_kv_cache_hit_rate": "Prefix cache hit rate (0.0-1.0). Portable across engines.",
}


def kvbm() -> list[Meaning]:
    """Return the metrics on KVBM's own port.

    The letters depend on the direction: h2d is host to disk in an offload, and host to device in an onboard.
    """
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
    objects: list[tuple[str, str, Tier, Tier]] = [
        ("offload_bytes_object", "offload_blocks_d2o", "G1", "G4"),
        ("onboard_bytes_object", "onboard_blocks_o2d", "G4", "G1"),
    ]
    found = [
        *(
            Meaning(f"kvbm_{name}", "blocks", claim, f"kvbm {name}", "blocks", source, target)
            for name, source, target, claim in moves
        ),
        *(
            Meaning(f"kvbm_{name}", "bytes", _KVBM_NAMES, f"kvbm {flow}", "bytes", source, target)
            for name, flow, source, target in objects
        ),
        Meaning("kvbm_matched_tokens", "tokens", _KVBM, group="tokens"),
        *(
            Meaning(f"kvbm_{name}_requests", "requests", _KVBM_OLDER, group="queue")
            for name in ("offload", "onboard", "save_kv_layer")
        ),
        Meaning("kvbm_offload_blocks_skipped_pool_full", "blocks", _KVBM_OLDER, group="errors"),
        *(Meaning(f"kvbm_{tier}_cache_hit_rate", "ratio", _KVBM, group="hits") for tier in ("host", "disk", "object")),
        Meaning("kvbm_cache_blocks_hit", "blocks", _KVBM_NEXT, group="hits"),
        *(Meaning(f"kvbm_object_{way}_failures", "failures", _KVBM, group="errors") for way in ("read", "write")),
    ]
    return roles(gauges(found, _KVBM_GAUGES, _KVBM_HELP), _KVBM_ROLES)


_KVBM_ROLES: dict[str, dict[str, Any]] = {
    f"kvbm_{name}_cache_hit_rate": {"role": "share", "part": f"kvbm {name}", "tier": tier}
    for name, tier in (("host", "G2"), ("disk", "G3"), ("object", "G4"))
}


_TRANSFER = re.compile(r"kvbm_transfer_(?:\w+_)?(bytes|blocks|seconds|failures)(?:_sum)?")
_ROUTE = re.compile(r"g([1-4])\W*_?(?:to|2)?_?\W*g([1-4])")
_DONE = ("", "ok", "success", "completed", "complete")


def kvbm_transfer(series: Series) -> Meaning | None:
    """Return the definition of a newer KVBM transfer metric; the label `route`, such as `g1_to_g2`, gives the tiers.

    None if the name or route doesn't match, or the outcome isn't success.
    """
    found = _TRANSFER.fullmatch(series.name.removeprefix("dynamo_").removesuffix("_total"))
    route = _ROUTE.fullmatch(series.label("route").lower())
    if found is None or route is None or series.label("outcome").lower() not in _DONE:
        return None
    tiers: dict[str, Tier] = {"1": "G1", "2": "G2", "3": "G3", "4": "G4"}
    measures: dict[str, tuple[str, Measure]] = {
        "bytes": ("bytes", "bytes"),
        "blocks": ("blocks", "blocks"),
        "seconds": ("s", "seconds"),
        "failures": ("failures", "failures"),
    }
    unit, measure = measures[found[1]]
    flow = f"kvbm transfer {series.label('operation')} {series.label('route')}".replace("  ", " ").strip()
    claim = f"{_KVBM_NEXT}; the tiers by its route {series.label('route')!r}"
    return Meaning(series.name, unit, claim, flow, measure, tiers[route[1]], tiers[route[2]])


def dynamo() -> list[Meaning]:
    """Return the metrics on the frontend's HTTP port and on the workers' system port."""
    router = "dynamo_component_router_kv"
    numbers: list[tuple[str, str, str, Group]] = [
        ("dynamo_frontend_input_sequence_tokens_sum", "tokens", _DYNAMO, "tokens"),
        ("dynamo_frontend_cached_tokens_sum", "tokens", _DYNAMO, "tokens"),
        ("dynamo_frontend_input_sequence_tokens_count", "requests", _DYNAMO, "tokens"),
        ("dynamo_frontend_cached_tokens_count", "requests", _DYNAMO, "tokens"),
        ("dynamo_frontend_output_tokens_total", "tokens", _DYNAMO, "tokens"),
        (f"{router}_worker_reused_tokens_total", "tokens", _DYNAMO_LIVE, "hits"),
        (f"{router}_selected_cached_prefix_tokens_total", "tokens", _DYNAMO_LIVE, "hits"),
        ("dynamo_frontend_requests_total", "requests", _DYNAMO, "queue"),
        ("dynamo_frontend_inflight_requests", "requests", _DYNAMO, "queue"),
        ("dynamo_frontend_queued_requests", "requests", _DYNAMO, "queue"),
        ("dynamo_frontend_router_queue_pending_requests", "requests", _DYNAMO, "queue"),
        ("dynamo_frontend_worker_active_prefill_tokens", "tokens", _DYNAMO, "queue"),
        ("dynamo_component_requests_total", "requests", _DYNAMO, "queue"),
        ("dynamo_component_inflight_requests", "requests", _DYNAMO, "queue"),
        ("dynamo_request_queue", "requests", _DYNAMO_LIVE, "queue"),
        ("dynamo_engine_request", "requests", _DYNAMO_LIVE, "queue"),
        ("dynamo_work_handler_queue_depth", "items", _DYNAMO, "queue"),
        ("dynamo_frontend_worker_active_decode_blocks", "blocks", _DYNAMO, "memory"),
        ("dynamo_component_gpu_cache_usage_percent", "ratio", _DYNAMO_NAMES, "memory"),
        ("dynamo_component_kv_cache_hit_rate", "ratio", _DYNAMO_NAMES, "hits"),
        ("dynamo_rejection_request_total", "requests", _DYNAMO, "errors"),
        ("dynamo_component_errors_total", "requests", _DYNAMO_NAMES, "errors"),
        ("dynamo_component_cancellation_total", "requests", _DYNAMO, "errors"),
        ("dynamo_frontend_failures_total", "requests", _DYNAMO_NAMES, "errors"),
        ("dynamo_frontend_model_rejection_total", "requests", _DYNAMO_NAMES, "errors"),
        ("dynamo_component_kv_publisher_engines_dropped_events_total", "events", _DYNAMO, "errors"),
        ("dynamo_frontend_model_ready", "", _DYNAMO, "model"),
        ("dynamo_frontend_model_kv_cache_block_size", "tokens", _DYNAMO, "model"),
        ("dynamo_frontend_model_total_kv_blocks", "blocks", _DYNAMO, "model"),
        ("dynamo_component_total_blocks", "blocks", _DYNAMO_NAMES, "model"),
    ]
    found = [Meaning(metric, unit, claim, group=group) for metric, unit, claim, group in numbers]
    found = gauges(gauges(found, _RUNTIME, _RUNTIME_HELP), _BACKEND, _BACKEND_HELP)
    return roles([*found, *_observed()], _ROLES)


_ROLES: dict[str, dict[str, Any]] = {
    "dynamo_frontend_requests_total": {"role": "finished", "by": "status"},
    "dynamo_component_requests_total": {"role": "finished"},
    "dynamo_component_errors_total": {"role": "failed"},
    "dynamo_component_cancellation_total": {"role": "aborted"},
    "dynamo_frontend_inflight_requests": {"role": "running"},
    "dynamo_component_inflight_requests": {"role": "running"},
    "dynamo_frontend_queued_requests": {"role": "waiting"},
    "dynamo_frontend_output_tokens_total": {"role": "tokens_out"},
    **hit_roles("Dynamo"),
    "dynamo_component_gpu_cache_usage_percent": {"role": "kv_usage"},
    "dynamo_component_kv_cache_hit_rate": {"role": "share", "part": "prefix", "tier": "G1"},
}


def _observed() -> list[Meaning]:
    return [
        *histograms(
            _DYNAMO,
            "s",
            {
                "dynamo_frontend_time_to_first_token_seconds": "ttft",
                "dynamo_frontend_inter_token_latency_seconds": "itl",
                "dynamo_frontend_request_duration_seconds": "e2e",
                "dynamo_component_request_duration_seconds": "e2e",
                "dynamo_component_router_time_to_first_token_seconds": "ttft",
                "dynamo_component_router_inter_token_latency_seconds": "itl",
                "dynamo_component_router_kv_transfer_estimated_latency_seconds": "transfer_estimate",
                "dynamo_frontend_tokenize_seconds": "tokenize",
                "dynamo_request_plane_queue_seconds": "plane_queue",
                "dynamo_request_plane_send_seconds": "plane_send",
                "dynamo_request_plane_roundtrip_ttft_seconds": "plane_ttft",
                "dynamo_work_handler_permit_wait_seconds": "permit_wait",
                "dynamo_work_handler_network_transit_seconds": "transit",
                "dynamo_work_handler_time_to_first_response_seconds": "first_response",
            },
        ),
        *histograms(_DYNAMO, "s", {"dynamo_router_overhead_total_ms": "routing"}, scale=1e-3),
        *histograms(
            _DYNAMO,
            "tokens",
            {
                "dynamo_frontend_input_sequence_tokens": "prompt_tokens",
                "dynamo_frontend_output_sequence_tokens": "output_tokens",
                "dynamo_frontend_cached_tokens": "cached_tokens",
            },
        ),
        *histograms(_DYNAMO, "ratio", {"dynamo_component_router_kv_hit_rate": "router_hit_rate"}),
        *histograms(_DYNAMO, "blocks", {"dynamo_component_router_overlap_blocks_lost": "overlap_lost"}),
    ]
