"""The tiers: who speaks of them, how full they are, and which way a flow goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from kvdeck.engine.telemetry.sample import Flow, Snapshot
from kvdeck.sessions.units import percent_text, size_text

Way = Literal["offload", "onboard", "peers", "within", "transfer"]
TIERS = ("remote", "G1", "G2", "G3", "G4")
"""As they are drawn, from left to right: peers beside the device, then ever farther from it."""
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
    """`offload` is down the tiers, `onboard` up; `peers` to or from another host; `transfer`: a tier is not told."""
    source, target = flow.source_tier, flow.target_tier
    if source is None or target is None:
        return "transfer"
    if "remote" in (source, target):
        return "peers"
    down = TIERS.index(target) - TIERS.index(source)
    return "offload" if down > 0 else "onboard" if down < 0 else "within"


def style_of(flow: Flow) -> str:
    """The style of a flow's arrow: its path's colour, or that of the tier it leaves the known ones for."""
    ends = (flow.source_tier or "", flow.target_tier or "")
    if ends in PATHS:
        return f"path:{PATHS[ends]}"
    other = next((tier for tier in ("remote", "G4") if tier in ends), "")
    return f"tier:{other}" if other else ""


def in_order(flows: tuple[Flow, ...]) -> list[Flow]:
    """Offload first, then onboard; near tiers before far ones. The order never depends on a rate."""
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


def begun(flow: Flow) -> bool:
    """Whether it has moved anything, or says so little that nobody knows."""
    return flow.bytes_total != 0 if flow.bytes_total is not None else flow.blocks_total != 0


@dataclass(frozen=True, slots=True)
class Fill:
    """How full a tier is, by one gauge."""

    what: str
    share: float | None
    """0 to 1; None where its size is not known."""
    text: str


_SHARES = {
    "vllm:kv_cache_usage_perc": ("G1", "KV"),
    "vllm:kv_offload_cpu_cache_usage_perc": ("G2", "KV"),
}
_SIZES = {
    "gpu_memory_used_bytes": ("G1", "mem"),
    "lmcache:local_cache_usage": ("G2", "LMC"),
    "lmcache:remote_cache_usage": ("remote", "LMC"),
}


def fills(moment: Snapshot) -> dict[str, list[Fill]]:
    """What gauges say of each tier, the fullest engine's where several speak of the same."""
    shares: dict[tuple[str, str], float] = {}
    sizes: dict[tuple[str, str], float] = {}
    limits: dict[tuple[str, str], float] = {}
    for number in moment.gauges:
        if (place := _SHARES.get(number.name)) is not None:
            shares[place] = max(shares.get(place, 0.0), number.value)
        elif (place := _SIZES.get(number.name)) is not None:
            sizes[place] = sizes.get(place, 0.0) + number.value
        elif number.name == "disk_tier_bytes":
            into = limits if number.labels.get("what") == "size" else sizes
            into["G3", "file"] = into.get(("G3", "file"), 0.0) + number.value
    found: dict[str, list[Fill]] = {}
    for (tier, what), share in shares.items():
        found.setdefault(tier, []).append(Fill(what, share, f"{what} {percent_text(share)}"))
    for (tier, what), size in sizes.items():
        limit = limits.get((tier, what))
        share_of = size / limit if limit else None
        found.setdefault(tier, []).append(Fill(what, share_of, size_text(size)))
    return found


def spoken_of(moment: Snapshot, full: Mapping[str, list[Fill]]) -> set[str]:
    """The tiers that a flow or a gauge speaks of; of the others nothing is known, which is not zero."""
    named = {tier for flow in moment.flows for tier in (flow.source_tier, flow.target_tier) if tier is not None}
    return named | set(full)
