"""Who is served, and how fast: rows per engine, and the figures of the headline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kvdeck.engine.telemetry.sample import Snapshot
from kvdeck.engine.telemetry.service import Latency, Service, TierHits
from kvdeck.sessions.units import count_text, quantity_text

TIMES = ("ttft", "itl", "tpot", "e2e", "queue", "prefill", "decode")
"""Latencies with a column, in their order."""
TITLES = {
    "ttft": "TTFT", "itl": "ITL", "tpot": "TPOT", "e2e": "E2E", "queue": "queue", "prefill": "prefill",
    "decode": "decode",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class EngineService:
    """What one engine of a source says of the requests it serves."""

    source: str
    member: str
    kind: str
    service: Service | None
    latencies: dict[str, Latency]
    tiers: tuple[TierHits, ...]


def engine_services(moment: Snapshot) -> list[EngineService]:
    """Return a row per engine that says anything of its requests, in the order of the sources."""
    order = {source.name: place for place, source in enumerate(moment.sources)}
    kinds = {source.name: source.kind for source in moment.sources}
    named = [(one.source, one.member) for one in moment.services]
    named += [(one.source, one.member) for one in moment.latencies]
    named += [(one.source, one.member) for one in moment.tiers]
    keys = dict.fromkeys(sorted(named, key=lambda key: order.get(key[0], len(order))))
    found = []
    for source, member in keys:
        mine = (source, member)
        service = next((one for one in moment.services if (one.source, one.member) == mine), None)
        latencies = {one.what: one for one in moment.latencies if (one.source, one.member) == mine}
        tiers = tuple(one for one in moment.tiers if (one.source, one.member) == mine)
        found.append(EngineService(source, member, kinds.get(source, ""), service, latencies, tiers))
    return found


def slowest(latencies: Iterable[Latency], what: str = "ttft") -> Latency | None:
    """Return the one with the largest median of those that answer and saw requests; None without any."""
    seen = [one for one in latencies if one.what == what and one.count and not one.stale]
    return max(seen, key=_median, default=None)


def _median(latency: Latency) -> float:
    """Return the median, or the edge beyond which it lies."""
    value = latency.p50 if latency.p50 is not None else latency.p50_low
    return 0.0 if value is None else value


def quantile(latency: Latency | None, percent: int) -> str:
    """Return `340 ms`, `> 2,560 s` beyond the last bucket, or a dash if nothing was observed.

    Args:
        percent: 50, 95 or 99.
    """
    if latency is None:
        return "–"
    value, low = getattr(latency, f"p{percent}"), getattr(latency, f"p{percent}_low")
    if value is not None:
        return quantity_text(value, latency.unit)
    return f"> {quantity_text(low, latency.unit)}" if latency.count and low is not None else "–"


def counts_text(counts: Mapping[str, float | None]) -> str:
    """Return `stop 180, length 3, error –`, those that aren't 0; empty without any."""
    return ", ".join(f"{name} {count_text(count)}" for name, count in counts.items() if count != 0)
