"""Table of all metric definitions, and lookup of a series' definition.

The modules of this package define the metrics, one module per exporter. Tiers are G1 (device), G2 (host), G3 (disk),
G4 (object) and `remote`; a tier that a source doesn't report is None. A metric without a definition is shown under
its own name and never added to a total.
"""

from __future__ import annotations

from kvdeck.engine.telemetry.metrics.dynamo import dynamo, kvbm, kvbm_transfer
from kvdeck.engine.telemetry.metrics.host import host, sessions
from kvdeck.engine.telemetry.metrics.metric import Group, Meaning, Measure, Tier
from kvdeck.engine.telemetry.metrics.nixl import lmcache, nixl, ring
from kvdeck.engine.telemetry.metrics.vllm import tiering, vllm
from kvdeck.engine.telemetry.source import Series

__all__ = ["TABLE", "Group", "Meaning", "Measure", "Tier", "meaning_of"]

TABLE: tuple[Meaning, ...] = (
    *kvbm(),
    *vllm(),
    *nixl(),
    *dynamo(),
    *lmcache(),
    *ring(),
    *host(),
    *sessions(),
)

_BY_METRIC: dict[str, list[Meaning]] = {}
for _meaning in TABLE:
    _BY_METRIC.setdefault(_meaning.metric, []).append(_meaning)


def meaning_of(series: Series) -> Meaning | None:
    """Return the definition of a series, or None if there is none.

    KVBM's names match with or without the prefix `dynamo_` and the suffix `_total`.
    """
    name = series.name
    if name.startswith(("kvbm_", "dynamo_kvbm_")):
        name = name.removeprefix("dynamo_").removesuffix("_total")
        if name.startswith("kvbm_transfer_"):
            return kvbm_transfer(series)
    if name.startswith("vllm:kv_offload_tiering_"):
        found = tiering(series)
        if found is not None:
            return found
    if name.startswith("vllm:mooncake_") and series.label("status") not in ("", "ok"):
        return None
    for meaning in _BY_METRIC.get(name, ()):
        if meaning.where is None or series.label(meaning.where[0]) == meaning.where[1]:
            return meaning
    return None
