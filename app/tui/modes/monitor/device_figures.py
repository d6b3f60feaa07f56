"""Rates of this host's devices, both directions, with each device's limit."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from kvdeck.engine.telemetry.sample import Number, Snapshot

_NAME = re.compile(
    r"(gpu_pcie|gpu_nvlink|fabric|network|disk|nvidia_fs|process)_"
    r"(sent|received|read|write)_bytes(_per_s)?(_total)?"
)
_KINDS = {
    "gpu_pcie": "PCIe GPU",
    "gpu_nvlink": "NVLink GPU",
    "fabric": "IB",
    "network": "NIC",
    "nvidia_fs": "GDS",
    "disk": "disk",
    "process": "proc",
}
_IN = ("received", "read")


@dataclass(frozen=True, slots=True)
class Way:
    """One direction of a link."""

    per_s: float | None = None
    limit: float | None = None
    """Line rate in bytes per second; None if unknown."""
    moved: bool = False
    """True if it has moved bytes: since sampling began, or now for a gauge that is a rate."""

    @property
    def share(self) -> float | None:
        """Rate over limit; None if either is unknown."""
        return None if self.per_s is None or not self.limit else self.per_s / self.limit


@dataclass(frozen=True, slots=True)
class Link:
    """A device of this host: `into` is received or read, `out` sent or written."""

    kind: str
    device: str
    into: Way = Way()
    out: Way = Way()
    source: str = ""

    @property
    def limit(self) -> float | None:
        return self.into.limit or self.out.limit


@lru_cache(maxsize=4096)
def _named(name: str) -> tuple[str, str, bool] | None:
    """Return kind, direction, and whether the metric is a rate already; None if the metric has no device."""
    found = _NAME.fullmatch(name)
    return None if found is None else (found[1], found[2], found[3] is not None)


def links(moment: Snapshot) -> list[Link]:
    """Return every device with byte counters, by kind and name, so that the order doesn't change with the rates."""
    found: dict[tuple[str, str, str], dict[str, Way]] = {}
    for number in (*moment.counters, *moment.gauges):
        named = _named(number.name)
        if named is None:
            continue
        kind, way, rate = named
        ends = found.setdefault((kind, _device(kind, number), number.source), {})
        per_s = number.value if rate else number.per_s
        moved = bool(number.value) if rate else bool(number.gained or number.per_s)
        ends["into" if way in _IN else "out"] = Way(per_s, number.limit_per_s, moved)
    order = list(_KINDS)
    return [
        Link(_KINDS[kind], device, ends.get("into", Way()), ends.get("out", Way()), source)
        for (kind, device, source), ends in sorted(found.items(), key=lambda item: (order.index(item[0][0]), item[0]))
    ]


def worth_showing(rows: list[Link]) -> list[Link]:
    """Return the devices with a known limit or any traffic; drops loopbacks, bridges and empty slots."""
    return [row for row in rows if row.limit or row.into.moved or row.out.moved]


def _device(kind: str, number: Number) -> str:
    labels = number.labels
    if kind == "process":
        return f"{labels.get('name', '?')} {labels.get('pid', '')}".strip()
    if kind == "fabric":
        return f"{labels.get('device', '?')}:{labels.get('port', '?')}"
    return labels.get("device") or labels.get("gpu") or ""
