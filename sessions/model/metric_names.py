"""Names of metrics: the one under which kvdeck defines a metric that exporters spell in several ways."""

from __future__ import annotations

import functools
import re

BARE = frozenset(
    (
        "offload_requests",
        "offload_blocks_d2h",
        "offload_blocks_h2d",
        "offload_blocks_d2d",
        "onboard_requests",
        "onboard_blocks_h2d",
        "onboard_blocks_d2d",
        "save_kv_layer_requests",
        "matched_tokens",
    )
)
"""Names of KVBM's first versions, which had no prefix."""
_UNITS = re.compile(r"_(?:chunks|tokens|requests|seconds)$")
"""Units that OpenTelemetry's exporter adds to LMCache's names."""


@functools.lru_cache(maxsize=4096)
def canonical(name: str) -> str:
    """Return the name under which a metric is defined.

    Ray exports vLLM's metrics as `ray_vllm_…`, newer SGLang writes an underscore for its colon, and LMCache's
    multi-process server has a unit and `_total` behind each name. KVBM's first versions had no prefix.
    """
    if name in BARE:
        return f"kvbm_{name}"
    if name.startswith("ray_vllm_"):
        return f"vllm:{name.removeprefix('ray_vllm_')}"
    if name.startswith("sglang_"):
        return f"sglang:{name.removeprefix('sglang_')}"
    if name.startswith("lmcache_mp_"):
        return _UNITS.sub("", name.removesuffix("_total"))
    return name
