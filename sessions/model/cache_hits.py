"""Counters of KV-cache hits per exporter: what each counts, of which queries, and the label that names a tier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from kvdeck.sessions.model.tier_words import Tier

HitRole = Literal["hits", "asked", "missed", "tokens_in"]
PROMPT = "prompt"
"""Part of hits that are counted in the tokens of all prompts."""
ANY_PART = "*"
"""Part of queries that are asked for several counts."""


@dataclass(frozen=True, slots=True)
class HitCounter:
    """One counter."""

    metric: str
    """Canonical name."""
    role: HitRole
    """`asked`: queries of the same part. `missed`: those without a hit. `tokens_in`: the tokens of all prompts."""
    part: str = ""
    """Which hits are counted: `prefix`, `external`, …"""
    tier: Tier | None = None
    by: str = ""
    """Label whose values name the tier."""


def _pair(stem: str, part: str, tier: Tier | None = None, by: str = "") -> tuple[HitCounter, HitCounter]:
    return (
        HitCounter(f"{stem}_hits_total", "hits", part, tier, by),
        HitCounter(f"{stem}_queries_total", "asked", part, tier, by),
    )


HIT_COUNTERS: Mapping[str, tuple[HitCounter, ...]] = {
    "vLLM": (
        *_pair("vllm:prefix_cache", "prefix", "G1"),
        *_pair("vllm:gpu_prefix_cache", "prefix", "G1"),
        *_pair("vllm:external_prefix_cache", "external"),
        *_pair("vllm:kv_offload_tiering_chunk", "tier chunks", by="tier"),
        *_pair("vllm:kv_offload_tiering_block", "tier blocks", by="tier"),
        HitCounter("vllm:prompt_tokens_cached_by_source_total", "hits", PROMPT, by="source"),
        HitCounter("vllm:prompt_tokens_total", "tokens_in"),
    ),
    "SGLang": (
        HitCounter("sglang:cached_tokens_total", "hits", PROMPT, by="cache_source"),
        HitCounter("sglang:prompt_tokens_total", "tokens_in"),
    ),
    "TensorRT-LLM": (
        HitCounter("trtllm_prompt_cache_hit_tokens_total", "hits", PROMPT, by="cache_tier"),
        HitCounter("trtllm_kv_cache_reused_blocks_total", "hits", "blocks"),
        HitCounter("trtllm_kv_cache_missed_blocks_total", "missed", "blocks"),
        HitCounter("trtllm_prompt_tokens_total", "tokens_in"),
    ),
    "Dynamo": (
        HitCounter("dynamo_frontend_cached_tokens_sum", "hits", PROMPT),
        HitCounter("dynamo_frontend_input_sequence_tokens_sum", "tokens_in"),
    ),
    "LMCache": (
        HitCounter("lmcache:num_hit_tokens_total", "hits", "retrieve"),
        HitCounter("lmcache:num_requested_tokens_total", "asked", "retrieve"),
        HitCounter("lmcache:num_lookup_hits_total", "hits", "lookup"),
        HitCounter("lmcache:num_lookup_tokens_total", "asked", "lookup"),
    ),
    "LMCache server": (
        HitCounter("lmcache_mp_lookup_requested", "asked", ANY_PART),
        HitCounter("lmcache_mp_lookup_hit", "hits", "lookup"),
        HitCounter("lmcache_mp_lookup_hit_l1", "hits", "lookup in host memory", "G2"),
        HitCounter("lmcache_mp_lookup_hit_l2", "hits", "lookup in storage"),
    ),
}


def hit_roles(exporter: str) -> dict[str, dict[str, Any]]:
    """Return the roles of an exporter's counters, by metric, as definitions of metrics take them."""
    return {
        one.metric: {"role": one.role, "part": one.part, "tier": one.tier, "by": one.by}
        for one in HIT_COUNTERS[exporter]
    }
