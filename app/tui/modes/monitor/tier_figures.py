"""The KV-cache tiers: names, occupancy, and the direction of flows between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from kvdeck.engine.telemetry.sample import Flow, Snapshot
from kvdeck.sessions.units import moved_text, percent_text

Way = Literal["offload", "onboard", "peers", "within", "transfer"]
TIERS = ("remote", "G1", "G2", "G3", "G4")
"""In display order, left to right: peers, the device, then by distance from the device."""
NAMES = {"remote": "peers", "G1": "G1 device", "G2": "G2 host", "G3": "G3 disk", "G4": "G4 object"}
WAYS: tuple[Way, ...] = ("offload", "onboard", "peers", "within", "transfer")
PATHS = {
    ("G1", "G1"): "DeviceToDevice",
    ("G1", "G2"): "DeviceToHost",
    ("G2", "G1"): "HostToDevice",
    ("G1", "G3"): "DeviceToDisk",
    ("G3", "G1"): "DiskToDevice",
    ("G2", "G2"): "HostToHost",
    ("G2", "G3"): "HostToDisk",
    ("G3", "G2"): "DiskToHost",
}


def way(flow: Flow) -> Way:
    """Return `offload` (down the tiers), `onboard` (up), `within`, `peers` (another host) or `transfer` (unknown)."""
    source, target = flow.source_tier, flow.target_tier
    if source is None or target is None:
        return "transfer"
    if "remote" in (source, target):
        return "peers"
    down = TIERS.index(target) - TIERS.index(source)
    return "offload" if down > 0 else "onboard" if down < 0 else "within"


def style_of(flow: Flow) -> str:
    """Return the style of a flow's arrow: its path's, else that of `remote` or G4; empty without either."""
    ends = (flow.source_tier or "", flow.target_tier or "")
    if ends in PATHS:
        return f"path:{PATHS[ends]}"
    other = next((tier for tier in ("remote", "G4") if tier in ends), "")
    return f"tier:{other}" if other else ""


def in_order(flows: tuple[Flow, ...]) -> list[Flow]:
    """Return flows by direction (`WAYS`), then tiers from near to far; the order doesn't depend on rates."""
    places = {tier: place for place, tier in enumerate(TIERS)}
    return sorted(
        flows,
        key=lambda flow: (
            WAYS.index(way(flow)),
            places.get(flow.source_tier or "", 9),
            places.get(flow.target_tier or "", 9),
            flow.name,
            flow.source,
        ),
    )


def largest(flows: tuple[Flow, ...]) -> dict[tuple[str, str, str], float]:
    """Return the largest rate of each edge (source tier, target tier, `bytes` or `blocks`)."""
    found: dict[tuple[str, str, str], float] = {}
    for flow in flows:
        unit = "blocks" if flow.bytes_total is None else "bytes"
        rate = flow.blocks_per_s if unit == "blocks" else flow.bytes_per_s
        if rate and flow.source_tier is not None and flow.target_tier is not None:
            key = (flow.source_tier, flow.target_tier, unit)
            found[key] = max(found.get(key, 0.0), rate)
    return found


def begun(flow: Flow) -> bool:
    """True if the flow has moved anything, or reports no totals."""
    return flow.bytes_total != 0 if flow.bytes_total is not None else flow.blocks_total != 0


@dataclass(frozen=True, slots=True)
class Fill:
    """Occupancy of a tier, from one gauge."""

    what: str
    share: float | None
    """0 to 1; None if the capacity is unknown."""
    text: str
    stale: bool = False
    """True if its source doesn't answer."""


_SHARES = {
    "vllm:kv_cache_usage_perc": ("G1", "KV"),
    "dynamo_component_gpu_cache_usage_percent": ("G1", "KV"),
}
_SIZES = {
    "gpu_memory_used_bytes": ("G1", "mem"),
    "lmcache:local_cache_usage": ("G2", "LMC"),
    "lmcache:remote_cache_usage": ("remote", "LMC"),
}


def fills(moment: Snapshot) -> dict[str, list[Fill]]:
    """Return occupancies by tier: of shares the maximum over engines, of sizes their sum in bytes.

    KVBM allocates its whole disk file when it starts, so the file's size is a capacity. Nothing says how full it is.
    """
    shares: dict[tuple[str, str], float] = {}
    sizes: dict[tuple[str, str], float] = {}
    capacity = 0.0
    stale: set[tuple[str, str]] = set()
    for number in moment.gauges:
        if (place := _SHARES.get(number.name)) is not None:
            shares[place] = max(shares.get(place, 0.0), number.value)
            stale |= {place} if number.stale else set()
        elif (place := _SIZES.get(number.name)) is not None:
            sizes[place] = sizes.get(place, 0.0) + number.value
            stale |= {place} if number.stale else set()
        elif number.name == "disk_tier_bytes" and number.labels.get("what") == "size":
            capacity += number.value
    found: dict[str, list[Fill]] = {}
    for (tier, what), share in shares.items():
        found.setdefault(tier, []).append(Fill(what, share, f"{what} {percent_text(share)}", (tier, what) in stale))
    for (tier, what), size in sizes.items():
        found.setdefault(tier, []).append(Fill(what, None, moved_text(size), (tier, what) in stale))
    if capacity:
        found.setdefault("G3", []).append(Fill("file", None, f"of {moved_text(capacity)}"))
    return found


def spoken_of(moment: Snapshot, full: Mapping[str, list[Fill]]) -> set[str]:
    """Return the tiers that a flow or a gauge names; the others are unknown, not empty."""
    named = {tier for flow in moment.flows for tier in (flow.source_tier, flow.target_tier) if tier is not None}
    return named | set(full)
