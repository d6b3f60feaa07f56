"""Each flow as a row of figures: how fast, how large, how long, how often it failed."""

from __future__ import annotations

from dataclasses import dataclass

from kvdeck.app.tui.modes.monitor.history import flow_key
from kvdeck.engine.telemetry.sample import Flow


@dataclass(frozen=True, slots=True)
class Figure:
    """A number of the last interval, or over all there was where nothing moves now."""

    value: float | None
    now: bool = False


@dataclass(frozen=True, slots=True)
class PathRow:
    """One flow; what its source does not count is None."""

    flow: Flow
    size: Figure
    """Bytes a transfer."""
    descriptors: float | None
    """Descriptors a transfer, over all."""
    seconds: Figure
    """Seconds a transfer."""

    @property
    def key(self) -> str:
        return flow_key(self.flow)

    @property
    def moving(self) -> bool:
        return bool(self.flow.bytes_per_s or self.flow.blocks_per_s)


def path_row(flow: Flow) -> PathRow:
    """The row of a flow."""
    return PathRow(
        flow,
        _each(flow.bytes_per_s, flow.bytes_total, flow),
        _ratio(flow.descriptors_total, flow.transfers_total),
        _each(flow.seconds_per_s, flow.seconds_total, flow),
    )


def _each(per_s: float | None, total: float | None, flow: Flow) -> Figure:
    if per_s and flow.transfers_per_s:
        return Figure(per_s / flow.transfers_per_s, True)
    return Figure(_ratio(total, flow.transfers_total))


def _ratio(amount: float | None, count: float | None) -> float | None:
    return None if amount is None or not count else amount / count
