"""The metric definition: measure, tiers, unit and provenance of one metric."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

Tier = Literal["G1", "G2", "G3", "G4", "remote"]
Measure = Literal["bytes", "blocks", "seconds", "transfers", "descriptors", "failures"]
Group = Literal["tokens", "hits", "queue", "memory", "errors", "host", "session", "model"]


@dataclass(frozen=True, slots=True)
class HelpLine:
    """What an exporter itself says of a metric."""

    text: str
    """Its help line, word for word, or the sentence of its documentation."""
    source: str
    """Project, version and file."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """Definition of one metric, which either measures a flow or is a single number with a `group`."""

    metric: str
    unit: str
    claim: str
    """Provenance of the definition: a captured sample, a document, or the metric's name."""
    flow: str = ""
    """Name of the flow, shared by all its measures; empty if the metric belongs to none."""
    measure: Measure = "bytes"
    source: Tier | None = None
    target: Tier | None = None
    group: Group | None = None
    scale: float = 1.0
    """Factor from the exporter's unit to `unit`."""
    where: tuple[str, str] | None = None
    """Label and value that a series must have to match."""
    twin_of: str | None = None
    """Newer metric with the same number; this one is used only if that is missing."""
    gauge: bool = False
    """Whether the metric is a gauge; otherwise it is a counter, or the sum or count of a histogram."""
    help: HelpLine | None = None
    """What the exporter says of it. Every gauge has one: its name alone doesn't tell what it measures."""


def gauges(found: Iterable[Meaning], source: str, texts: Mapping[str, str]) -> list[Meaning]:
    """Return the definitions, with those of the metrics in `texts` as gauges that have this help."""
    return [
        replace(meaning, gauge=True, help=HelpLine(texts[meaning.metric], source))
        if meaning.metric in texts
        else meaning
        for meaning in found
    ]
