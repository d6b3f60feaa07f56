"""Definitions of the metrics of llm-d's router (the inference gateway's endpoint picker) and of DCGM's exporter."""

from __future__ import annotations

from typing import Any

from kvdeck.engine.telemetry.metrics.metric import Group, Meaning, gauges, histograms, roles

_ROUTER = "gateway-api-inference-extension, pkg/epp/metrics/metrics.go; no sample of its own"
_DCGM = "dcgm-exporter, etc/default-counters.csv and etc/dcp-metrics-included.csv; no sample of its own"
_ROUTER_HELP = {
    **{
        f"inference_{what}_running_requests": f"Inference {what} number of running requests in each model."
        for what in ("objective", "model")
    },
    "inference_pool_average_kv_cache_utilization": "The average kv cache utilization for an inference server pool.",
    "inference_pool_average_queue_size": "The average number of requests pending in the model server queue.",
    "inference_pool_ready_pods": "The number of ready pods in the inference server pool.",
}
_DCGM_HELP = {
    "DCGM_FI_DEV_GPU_UTIL": "GPU utilization (in %).",
    "DCGM_FI_DEV_MEM_COPY_UTIL": "Memory utilization (in %).",
    "DCGM_FI_DEV_FB_USED": "Framebuffer memory used (in MiB).",
    "DCGM_FI_DEV_FB_FREE": "Framebuffer memory free (in MiB).",
    "DCGM_FI_PROF_PCIE_TX_BYTES": (
        "The rate of data transmitted over the PCIe bus - including both protocol headers and data payloads - in bytes "
        "per second."
    ),
    "DCGM_FI_PROF_PCIE_RX_BYTES": (
        "The rate of data received over the PCIe bus - including both protocol headers and data payloads - in bytes "
        "per second."
    ),
    "DCGM_FI_PROF_NVLINK_TX_BYTES": (
        "The rate of data transmitted over NVLink, not including protocol headers, in bytes per second."
    ),
    "DCGM_FI_PROF_NVLINK_RX_BYTES": (
        "The rate of data received over NVLink, not including protocol headers, in bytes per second."
    ),
}


def router() -> list[Meaning]:
    """Return the router's metrics; before its first release its objectives were called models."""
    found: list[Meaning] = []
    of: dict[str, dict[str, Any]] = {"inference_pool_average_kv_cache_utilization": {"role": "kv_usage"}}
    seconds: dict[str, str] = {"inference_extension_scheduler_e2e_duration_seconds": "routing"}
    tokens: dict[str, str] = {}
    for what in ("objective", "model"):
        name = f"inference_{what}"
        found += [
            Meaning(f"{name}_request_total", "requests", _ROUTER, group="queue"),
            Meaning(f"{name}_request_error_total", "requests", _ROUTER, group="errors"),
            Meaning(f"{name}_running_requests", "requests", _ROUTER, group="queue"),
        ]
        of |= {
            f"{name}_request_total": {"role": "finished"},
            f"{name}_request_error_total": {"role": "failed"},
            f"{name}_running_requests": {"role": "running"},
        }
        seconds |= {
            f"{name}_request_duration_seconds": "e2e",
            f"{name}_normalized_time_per_output_token_seconds": "normalized_tpot",
        }
        tokens |= {f"{name}_input_tokens": "prompt_tokens", f"{name}_output_tokens": "output_tokens"}
    found += [
        Meaning("inference_pool_average_kv_cache_utilization", "ratio", _ROUTER, group="memory"),
        Meaning("inference_pool_average_queue_size", "requests", _ROUTER, group="queue"),
        Meaning("inference_pool_ready_pods", "pods", _ROUTER, group="model"),
    ]
    ratios = {"inference_extension_prefix_indexer_hit_ratio": "router_hit_rate"}
    return [
        *roles(gauges(found, _ROUTER, _ROUTER_HELP), of),
        *histograms(_ROUTER, "s", seconds),
        *histograms(_ROUTER, "tokens", tokens),
        *histograms(_ROUTER, "ratio", ratios),
    ]


def dcgm() -> list[Meaning]:
    """Return the gauges of DCGM's exporter that say what NVML says of a GPU.

    Older exporters call the rates of PCIe and NVLink counters, though their values are rates: those have no meaning.
    """
    rows: list[tuple[str, str, Group, float]] = [
        ("DCGM_FI_DEV_GPU_UTIL", "ratio", "host", 0.01),
        ("DCGM_FI_DEV_MEM_COPY_UTIL", "ratio", "host", 0.01),
        ("DCGM_FI_DEV_FB_USED", "bytes", "memory", float(1 << 20)),
        ("DCGM_FI_DEV_FB_FREE", "bytes", "memory", float(1 << 20)),
        *(
            (f"DCGM_FI_PROF_{link}_{way}_BYTES", "B/s", "host", 1.0)
            for link in ("PCIE", "NVLINK")
            for way in ("TX", "RX")
        ),
    ]
    found = [Meaning(metric, unit, _DCGM, group=group, scale=scale) for metric, unit, group, scale in rows]
    return gauges(found, _DCGM, _DCGM_HELP)
