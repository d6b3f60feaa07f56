"""What a traffic test needs of a host: kinds of memory, and enough of it."""

from __future__ import annotations

from dataclasses import replace

from kvdeck.engine.host.gpu import driver_present
from kvdeck.engine.traffic.config import TrafficPattern
from kvdeck.engine.traffic.placement import check_memory, divide, memories
from kvdeck.engine.traffic.spec import TrafficSpec
from kvdeck.sessions.errors import UsageError


def resolved(spec: TrafficSpec) -> TrafficSpec:
    """Return the spec with its patterns' memory types filled in.

    Raises:
        UsageError: A pattern needs what this host hasn't.
    """
    return replace(spec, patterns=tuple(_resolved(number, one) for number, one in enumerate(spec.patterns)))


def _resolved(number: int, pattern: TrafficPattern) -> TrafficPattern:
    if pattern.storage is not None:
        raise UsageError(f"pattern {number}: storage phases aren't supported yet", "remove storage")
    if pattern.memory == "VRAM":
        why = "GPU memory isn't supported here yet" if driver_present() else "this host has no NVIDIA driver"
        raise UsageError(f"pattern {number} needs GPU memory: {why}", "give --mem-type dram, or mem_type: dram")
    return replace(pattern, memory="DRAM")


def region_bytes(spec: TrafficSpec, available: int) -> int:
    """Return the bytes of all ranks' regions.

    Raises:
        UsageError: Those of the ranks that are played on this host are more than `available`.
    """
    if not spec.patterns:
        return 0
    regions = memories(spec.patterns, spec.ranks)
    own = divide(spec.ranks, 1 + len(spec.peer))[0]
    check_memory(regions[own.start : own.stop], available)
    return sum(region.size for region in regions)
