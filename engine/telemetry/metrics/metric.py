"""The metric definition: measure, tiers, unit and provenance of one metric."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from kvdeck.sessions.model.tier_words import Tier

Measure = Literal["bytes", "blocks", "seconds", "transfers", "descriptors", "failures"]
Group = Literal["tokens", "hits", "queue", "memory", "errors", "host", "session", "model", "latency"]
Role = Literal[
    "finished",
    "failed",
    "aborted",
    "tokens_in",
    "tokens_out",
    "preempted",
    "running",
    "waiting",
    "waiting_by",
    "kv_fetch",
    "kv_usage",
    "sleep",
    "hits",
    "asked",
    "missed",
    "evicted",
    "share",
]
"""What a counter or gauge is in the question whether requests are served; see `Service` and `TierHits`.

`finished`: requests that ended, in whichever way; the label that `by` names says how. `failed` and `aborted`: those of
them that an exporter counts apart. `hits`, `asked`, `missed`, `evicted` and `share` are of the tier and the count
`part`; what is asked for several counts has the part `*`.
"""


@dataclass(frozen=True, slots=True)
class HelpLine:
    """What an exporter itself says of a metric."""

    text: str
    """Its help line, word for word, the sentence of its documentation, or a dashboard's panel if `source` says so."""
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
    histogram: str = ""
    """What a histogram observes: `ttft`, …; `metric` is then its name without `_bucket`, `_sum` and `_count`."""
    role: Role | None = None
    by: str = ""
    """Label whose values tell the parts of a `finished`, `failed`, `waiting_by` or `kv_fetch` metric apart, or the
    tiers of hits and queries."""
    part: str = ""
    """Which hits are counted: `prefix`, `external`, …"""
    tier: Tier | None = None
    """Tier of hits and evictions."""
    beside: bool = False
    """Whether a `failed` metric counts requests that the `finished` one leaves out; otherwise they are part of it."""


def gauges(found: Iterable[Meaning], source: str, texts: Mapping[str, str]) -> list[Meaning]:
    """Return the definitions, with those of the metrics in `texts` as gauges that have this help."""
    return [
        replace(meaning, gauge=True, help=HelpLine(texts[meaning.metric], source))
        if meaning.metric in texts
        else meaning
        for meaning in found
    ]


def roles(found: Iterable[Meaning], of: Mapping[str, Mapping[str, Any]]) -> list[Meaning]:
    """Return the definitions, with the role, `by`, `part` and `tier` of those of the metrics in `of`."""
    return [replace(meaning, **of[meaning.metric]) if meaning.metric in of else meaning for meaning in found]


def histograms(claim: str, unit: str, names: Mapping[str, str], scale: float = 1.0) -> list[Meaning]:
    """Return the definitions of histograms, given what each observes."""
    return [
        Meaning(metric, unit, claim, group="latency", scale=scale, histogram=what) for metric, what in names.items()
    ]
