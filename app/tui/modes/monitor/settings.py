"""Saved settings of the Monitor: sources, sampling rate, pinned series, alerts, block size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from kvdeck.sessions.host.addresses import carries_credentials

RATES_HZ = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings saved between runs of the deck as plain JSON; `hz` is in samples per second, `block_bytes` in bytes."""

    sources: tuple[str, ...] | None = None
    """Names as `--source` takes them, or as discovered; None until the operator has seen the source dialog."""
    known: tuple[str, ...] = ()
    """Sources offered before, selected or not."""
    hz: float = 1.0
    pins: tuple[str, ...] = ()
    thresholds: Mapping[str, str] = field(default_factory=dict)
    block_bytes: float | None = None
    block_from: str = ""
    pane: str = "checks"
    """Pane shown below the tiers when only one fits."""

    def faster(self, by: int) -> Settings:
        """Return settings with the sampling rate moved `by` places in `RATES_HZ`, limited to its ends."""
        here = min(range(len(RATES_HZ)), key=lambda place: abs(RATES_HZ[place] - self.hz))
        return replace(self, hz=RATES_HZ[max(0, min(len(RATES_HZ) - 1, here + by))])

    def to_memory(self) -> dict[str, Any]:
        """Return the settings as JSON values, without empty ones."""
        data = {
            "sources": None if self.sources is None else list(self.sources),
            "known": list(self.known),
            "hz": self.hz,
            "pins": list(self.pins),
            "thresholds": dict(self.thresholds),
            "block_bytes": self.block_bytes,
            "block_from": self.block_from,
            "pane": self.pane,
        }
        return {name: value for name, value in data.items() if value not in (None, [], {}, "")}


def recalled(memory: object) -> Settings:
    """Return the settings in untrusted saved data; a value that is invalid is replaced by its default."""
    data = memory if isinstance(memory, dict) else {}
    hz, block = _number(data.get("hz")), _number(data.get("block_bytes"))
    thresholds = data.get("thresholds")
    return Settings(
        sources=_addresses(data["sources"]) if isinstance(data.get("sources"), list) else None,
        known=_texts(data.get("known")),
        hz=hz if hz is not None and RATES_HZ[0] <= hz <= RATES_HZ[-1] else 1.0,
        pins=_texts(data.get("pins")),
        thresholds={str(k): str(v) for k, v in thresholds.items()} if isinstance(thresholds, dict) else {},
        block_bytes=block if block is not None and block > 0 else None,
        block_from=str(data.get("block_from") or "as typed") if block is not None else "",
        pane=str(data.get("pane") or "checks"),
    )


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _addresses(values: list[Any]) -> tuple[str, ...]:
    """Return the sources, without those with a credential: an earlier version may have saved one."""
    return tuple(text for text in _texts(values) if not carries_credentials(text))


def _texts(value: object) -> tuple[str, ...]:
    return tuple(str(item) for item in value) if isinstance(value, list) else ()
