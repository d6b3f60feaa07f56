"""Table of all metric definitions, and lookup of a series' definition.

The modules of this package define the metrics, one module per exporter. Tiers are G1 (device), G2 (host), G3 (disk),
G4 (object) and `remote`; a tier that a source doesn't report is None. A metric without a definition is shown under
its own name and never added to a total.
"""

from __future__ import annotations

from collections.abc import Mapping

from kvdeck.engine.telemetry.metrics.dynamo import dynamo, kvbm, kvbm_transfer
from kvdeck.engine.telemetry.metrics.host import host, sessions
from kvdeck.engine.telemetry.metrics.metric import Group, Meaning, Measure, Role, Tier
from kvdeck.engine.telemetry.metrics.nixl import lmcache, nixl, ring
from kvdeck.engine.telemetry.metrics.vllm import tiering, vllm
from kvdeck.engine.telemetry.source import Series

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
)

_BY_METRIC: dict[str, list[Meaning]] = {}
_HISTOGRAMS: dict[str, Meaning] = {}
for _meaning in TABLE:
    if _meaning.histogram:
        _HISTOGRAMS[_meaning.metric] = _meaning
    else:
        _BY_METRIC.setdefault(_meaning.metric, []).append(_meaning)
ORDER = {meaning.metric: place for place, meaning in reversed(list(enumerate(TABLE)))}
"""Place of each metric in the table: of several that say the same, the first that a source has counts."""
_PARTS = ("_bucket", "_sum", "_count")


def is_histogram(name: str) -> bool:
    """True if a histogram of this name, without `_bucket`, is defined."""
    return name in _HISTOGRAMS


def histogram_of(name: str) -> Meaning | None:
    """Return the definition of the histogram of which a series of this name is a bucket, sum or count, if any."""
    base, _, part = name.rpartition("_")
    return _HISTOGRAMS.get(base) if f"_{part}" in _PARTS else None


def number_meaning(name: str, labels: Mapping[str, str]) -> Meaning | None:
    """As `meaning_of`, for a number of a sample, also of a recorded one."""
    for meaning in _BY_METRIC.get(name, ()):
        if meaning.where is None or labels.get(meaning.where[0], "") == meaning.where[1]:
            return meaning
    return None


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
    return histogram_of(name)
