"""Definitions of the metrics of NIXL's exporters and telemetry rings, and of LMCache."""

from __future__ import annotations

from kvdeck.engine.telemetry.metrics.metric import Meaning, Measure, gauges, histograms, roles
from kvdeck.sessions.model.cache_hits import hit_roles
from kvdeck.sessions.model.tier_words import Tier

_NIXL = "NIXL 1.5.1, samples nixl_prom_*"
_LMCACHE = "LMCache 0.5.6's metric list; the sample is idle and prints none of it"
_LMCACHE_GAUGES = "LMCache, lmcache/observability.py"
_LMCACHE_HELP = {
    "lmcache:local_cache_usage": "Local cache usage (bytes) of lmcache",
    "lmcache:remote_cache_usage": "Remote cache usage (bytes) of lmcache",
    "lmcache:local_storage_usage": "Local storage usage (bytes) of lmcache",
    "lmcache:retrieve_hit_rate": "Hit rate of lmcache retrieve requests since last log",
    "lmcache:lookup_hit_rate": "Hit rate of lmcache lookup requests since last log",
    "lmcache:remote_put_task_num": "The number of remote put tasks",
}
_REMOTE: tuple[tuple[str, str, Measure], ...] = (
    ("bytes", "bytes", "bytes"),
    ("requests", "transfers", "transfers"),
)


def nixl() -> list[Meaning]:
    """Return the exporter's metrics; tiers are None, since an agent doesn't report the memory type of a transfer."""
    found = []
    for way in ("tx", "rx"):
        found += [
            Meaning(f"agent_{way}_bytes_total", "bytes", _NIXL, f"nixl {way}"),
            Meaning(f"agent_{way}_requests_num_total", "transfers", _NIXL, f"nixl {way}", "transfers"),
        ]
    return [
        *found,
        *histograms(_NIXL, "s", {"agent_xfer_time_us": "transfer", "agent_xfer_post_time_us": "post"}, scale=1e-6),
        Meaning("agent_xfer_time_total", "s", _NIXL, group="session", scale=1e-6),
        Meaning("agent_xfer_post_time_total", "s", _NIXL, group="session", scale=1e-6),
        Meaning("agent_memory_registered_total", "bytes", _NIXL, group="memory"),
        Meaning("agent_memory_deregistered_total", "bytes", _NIXL, group="memory"),
        Meaning("agent_errors_total", "failures", _NIXL, group="errors"),
        Meaning("agent_telemetry_events_dropped_total", "events", _NIXL, group="errors"),
    ]


def ring() -> list[Meaning]:
    """Return the metrics of NIXL's telemetry rings; tiers are None, as in `nixl`."""
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


def lmcache() -> list[Meaning]:
    """Return LMCache's metrics; it counts tokens, except for the bytes of its remote backend."""
    tokens = ("requested", "hit", "stored", "lookup", "vllm_hit")
    remote: list[tuple[str, Tier, Tier]] = [("read", "remote", "G2"), ("write", "G2", "remote")]
    found = [
        *(Meaning(f"lmcache:num_{name}_tokens_total", "tokens", _LMCACHE, group="hits") for name in tokens),
        Meaning("lmcache:num_lookup_hits_total", "tokens", _LMCACHE, group="hits"),
        *(
            Meaning(
                f"lmcache:num_remote_{way}_{name}_total",
                unit,
                _LMCACHE,
                f"lmcache remote {way}",
                measure,
                source,
                target,
            )
            for way, source, target in remote
            for name, unit, measure in _REMOTE
        ),
        *(
            Meaning(f"lmcache:{name}_usage", "bytes", _LMCACHE, group="memory")
            for name in ("local_cache", "remote_cache", "local_storage")
        ),
        *(Meaning(f"lmcache:{name}_hit_rate", "ratio", _LMCACHE, group="hits") for name in ("retrieve", "lookup")),
        Meaning("lmcache:remote_put_task_num", "tasks", _LMCACHE, group="queue"),
    ]
    return roles(gauges(found, _LMCACHE_GAUGES, _LMCACHE_HELP), hit_roles("LMCache"))
