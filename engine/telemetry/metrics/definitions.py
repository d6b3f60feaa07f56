"""Table of all metric definitions, and lookup of a series' definition.

The modules of this package define the metrics, one module per exporter. Tiers are G1 (device), G2 (host), G3 (disk),
G4 (object) and `remote`; a tier that a source doesn't report is None. A metric without a definition is shown under
its own name and never added to a total.
"""

from __future__ import annotations

import functools

from kvdeck.engine.telemetry.metrics.cluster import dcgm, router
from kvdeck.engine.telemetry.metrics.dynamo import dynamo, kvbm, kvbm_transfer
from kvdeck.engine.telemetry.metrics.host import host, sessions
from kvdeck.engine.telemetry.metrics.metric import Group, Meaning, Measure, Role
from kvdeck.engine.telemetry.metrics.nixl import lmcache, nixl, ring
from kvdeck.engine.telemetry.metrics.sglang import sglang
from kvdeck.engine.telemetry.metrics.stores import lmcache_mp, mooncake_master
from kvdeck.engine.telemetry.metrics.tensorrt import triton, trtllm
from kvdeck.engine.telemetry.metrics.vllm import tiering, vllm
from kvdeck.engine.telemetry.source import Series
from kvdeck.sessions.model.metric_names import canonical
from kvdeck.sessions.model.tier_words import Tier

__all__ = ["TABLE", "Group", "Meaning", "Measure", "Role", "Tier", "meaning_of"]

TABLE: tuple[Meaning, ...] = (
    *kvbm(),
    *vllm(),
    *nixl(),
    *dynamo(),
    *lmcache(),
    *ring(),
    *host(),
    *sessions(),
    *sglang(),
    *trtllm(),
    *triton(),
    *lmcache_mp(),
    *mooncake_master(),
    *router(),
    *dcgm(),
)

_BY_METRIC: dict[str, list[Meaning]] = {}
_HISTOGRAMS: dict[str, Meaning] = {}
for _meaning in TABLE:
    if _meaning.histogram:
        _HISTOGRAMS[_meaning.metric] = _meaning
    else:
        _BY_METRIC.setdefault(_meaning.metric, []).append(_meaning)
_PLACES = {meaning.metric: place for place, meaning in reversed(list(enumerate(TABLE)))}
_PARTS = ("_bucket", "_sum", "_count")


def is_histogram(name: str) -> bool:
    """True if a histogram of this name, without `_bucket`, is defined."""
    return canonical(name) in _HISTOGRAMS


@functools.lru_cache(maxsize=4096)
def histogram_of(name: str) -> tuple[str, Meaning] | None:
    """Return name and definition of the histogram of which a series of this name is a bucket, sum or count, if any."""
    base, _, part = name.rpartition("_")
    meaning = _HISTOGRAMS.get(canonical(base)) if f"_{part}" in _PARTS else None
    return None if meaning is None else (base, meaning)


@functools.lru_cache(maxsize=4096)
def is_counted(name: str) -> bool:
    """True if a metric is defined as a counter, or is the sum or the count of a defined histogram."""
    found = _BY_METRIC.get(canonical(name))
    if found is not None:
        return all(not meaning.gauge for meaning in found)
    return meaning_of(Series(name)) is not None


@functools.lru_cache(maxsize=4096)
def with_roles(name: str) -> tuple[Meaning, ...]:
    """Return the definitions of a number's metric if any has a role; most have none."""
    found = _BY_METRIC.get(canonical(name), ())
    return tuple(found) if any(meaning.role for meaning in found) else ()


def place_of(name: str) -> int:
    """Return the place of a metric in the table: of several that say the same, the first that a source has counts."""
    return _PLACES[canonical(name)]


def meaning_of(series: Series) -> Meaning | None:
    """Return the definition of a series, or None if there is none.

    KVBM's names match with or without the prefix `dynamo_` and the suffix `_total`. What the table has as a gauge has
    no definition where its exporter says that it is a counter.
    """
    name = canonical(series.name)
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
            return None if meaning.gauge and series.counter else meaning
    observed = histogram_of(series.name)
    return None if observed is None else observed[1]
