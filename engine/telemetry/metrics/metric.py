"""One metric's place: what it measures, between which tiers, in what unit, and who says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Tier = Literal["G1", "G2", "G3", "G4", "remote"]
Measure = Literal["bytes", "blocks", "seconds", "transfers", "descriptors", "failures"]
Group = Literal["tokens", "hits", "queue", "memory", "errors", "host", "session", "model"]


@dataclass(frozen=True, slots=True)
class Meaning:
    """One metric's place. Either it measures a flow, or it is a number of its own with a `group`."""

    metric: str
    unit: str
    claim: str
    """Who says that it means this: a sample, a document, or the letters of its name."""
    flow: str = ""
    """Name of the flow; measures of one flow share it. Empty: no flow."""
    measure: Measure = "bytes"
    source: Tier | None = None
    target: Tier | None = None
    group: Group | None = None
    scale: float = 1.0
    """Multiply by this to get the unit: the exporter counts in something else."""
    where: tuple[str, str] | None = None
    """Only the series with this label."""
    twin_of: str | None = None
    """The same number under an older name: used only where this metric is missing."""
