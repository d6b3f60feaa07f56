"""The deck's modes: one folder and one row of this table each."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from textual.screen import Screen


@dataclass(frozen=True, slots=True)
class Mode:
    """One mode of the deck. Its module is imported when the mode is first opened."""

    key: str
    """The digit that opens it."""
    id: str
    """Its name in settings and of its folder."""
    title: str
    tooltip: str
    screen: str
    """Class name of its screen, in `modes/<id>/screen.py`."""

    def open(self) -> Screen[None]:
        """Import the mode's module and return a new screen."""
        screen: Screen[None] = getattr(import_module(f"{__name__}.{self.id}.screen"), self.screen)()
        return screen


MODES = (
    Mode("1", "plan", "Plan", "Plan: a model's KV cache in blocks and bytes", "PlanScreen"),
    Mode("2", "run", "Run", "Run: compare layouts", "RunScreen"),
    Mode("3", "monitor", "Monitor", "Monitor: KV bytes between the tiers, live", "MonitorScreen"),
    Mode("4", "sessions", "Sessions", "Sessions: stored measurements", "SessionsScreen"),
    Mode("5", "traffic", "Traffic", "Traffic: patterns between ranks, alone and together", "TrafficScreen"),
    Mode("9", "doctor", "Doctor", "Doctor: paths that work on this host", "DoctorScreen"),
)
"""In status bar order."""
