"""Definitions of the metrics of stores of KV beside an engine: LMCache's multi-process server, Mooncake's master."""

from __future__ import annotations

from typing import Any

from kvdeck.engine.telemetry.metrics.metric import Group, Meaning, gauges, roles
from kvdeck.sessions.model.cache_hits import hit_roles

_LMCACHE_MP = "LMCache, docs/source/mp/observability/metrics.rst; no sample of its own"
_MOONCAKE = "Mooncake, mooncake-store/src/master_metric_manager.cpp; no sample of its own"
_MOONCAKE_HELP = {
    "master_allocated_bytes": "Total memory bytes currently allocated across all segments",
    "master_total_capacity_bytes": "Total memory capacity across all mounted segments",
    "master_allocated_file_size_bytes": "Total bytes currently allocated for file storage in 3fs/nfs",
    "master_total_file_capacity_bytes": "Total capacity for file storage in 3fs/nfs",
    "master_key_count": "Total number of keys managed by the master",
    "master_active_clients": "Total number of active clients",
}
_LMCACHE_ROLES: dict[str, dict[str, Any]] = {
    **hit_roles("LMCache server"),
    "lmcache_mp_l1_evicted": {"role": "evicted", "part": "host chunks", "tier": "G2"},
    "lmcache_mp_l2_evicted_objects": {"role": "evicted", "part": "storage chunks"},
}


def lmcache_mp() -> list[Meaning]:
    """Return the counters of LMCache's multi-process server.

    Its exporter adds units and `_total`, which `canonical` takes away. Its L1 is host memory (G2); its L2 is what its
    adapter makes of it, so of no known tier.
    """
    numbers: list[tuple[str, str, Group]] = [
        ("lookup_requested", "tokens", "hits"),
        ("lookup_hit", "tokens", "hits"),
        ("lookup_hit_l1", "tokens", "hits"),
        ("lookup_hit_l2", "tokens", "hits"),
        ("lookups", "lookups", "hits"),
        ("lookup_early_exit", "lookups", "errors"),
        ("l1_read", "chunks", "hits"),
        ("l1_write", "chunks", "hits"),
        ("l1_evicted", "chunks", "hits"),
        ("l2_store_submitted", "stores", "hits"),
        ("l2_store_submitted_objects", "chunks", "hits"),
        ("l2_store_completed", "stores", "hits"),
        ("l2_store_completed_objects", "chunks", "hits"),
        ("l2_prefetch_lookup", "lookups", "hits"),
        ("l2_prefetch_lookup_objects", "chunks", "hits"),
        ("l2_prefetch_load_submitted_objects", "chunks", "hits"),
        ("l2_prefetch_load_completed", "chunks", "hits"),
        ("l2_load_completed", "loads", "hits"),
        ("l2_evicted_objects", "chunks", "hits"),
        ("l1_allocation_failure", "failures", "errors"),
        ("l1_read_failure", "failures", "errors"),
        ("l2_prefetch_failure", "failures", "errors"),
    ]
    found = [Meaning(f"lmcache_mp_{name}", unit, _LMCACHE_MP, group=group) for name, unit, group in numbers]
    return roles(found, _LMCACHE_ROLES)


def mooncake_master() -> list[Meaning]:
    """Return the gauges and counters of Mooncake's master."""
    sizes = [name for name in _MOONCAKE_HELP if name.endswith("_bytes")]
    operations = ("put_start", "put_end", "get_replica_list", "exist_key", "remove", "batch_put_start")
    found = [
        *(Meaning(name, "bytes", _MOONCAKE, group="memory") for name in sizes),
        Meaning("master_key_count", "keys", _MOONCAKE, group="memory"),
        Meaning("master_active_clients", "clients", _MOONCAKE, group="model"),
        *(Meaning(f"master_{name}_requests_total", "operations", _MOONCAKE, group="hits") for name in operations),
        *(Meaning(f"master_{name}_failures_total", "failures", _MOONCAKE, group="errors") for name in operations),
        Meaning("master_put_start_alloc_failures_total", "failures", _MOONCAKE, group="errors"),
    ]
    return gauges(found, _MOONCAKE, _MOONCAKE_HELP)
