"""Size, descriptors and duration per transfer of each flow."""

from __future__ import annotations

from dataclasses import dataclass

from kvdeck.app.tui.modes.monitor.history import flow_key
from kvdeck.engine.telemetry.sample import Flow

MERGED = "vllm nixl"
"""Flow whose descriptors are counted after NIXL has merged neighbours: 204 of 512 posted ones in a measured case."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A value of the last interval (`now`), or the average since start if nothing moves now; None if unknown."""

    value: float | None
    now: bool = False


@dataclass(frozen=True, slots=True)
class PathRow:
    """One flow with its averages per transfer; None where the source has no counter."""

    flow: Flow
    size: Figure
    """Bytes per transfer."""
    descriptors: float | None
    """Descriptors per transfer, averaged since start. None if none was counted."""
    merged: bool
    """Whether these are what NIXL merged the posted ones into, as vLLM counts; kvdeck's runs count posted ones."""
    seconds: Figure
    """Seconds per transfer."""

    @property
    def key(self) -> str:
        return flow_key(self.flow)

    @property
    def moving(self) -> bool:
        return bool(self.flow.bytes_per_s or self.flow.blocks_per_s)


def path_row(flow: Flow) -> PathRow:
    """Return the averages per transfer of a flow."""
    return PathRow(
        flow,
        _each(flow.bytes_per_s, flow.bytes_total, flow),
        _ratio(flow.descriptors_total or None, flow.transfers_total),
        flow.name == MERGED,
        _each(flow.seconds_per_s, flow.seconds_total, flow),
    )


def _each(per_s: float | None, total: float | None, flow: Flow) -> Figure:
    if per_s and flow.transfers_per_s:
        return Figure(per_s / flow.transfers_per_s, True)
    return Figure(_ratio(total, flow.transfers_total))


def _ratio(amount: float | None, count: float | None) -> float | None:
    return None if amount is None or not count else amount / count
