"""One row per engine: its queue, its prompt tokens by origin, and its hit rates."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kvdeck.app.tui.modes.monitor.cache_figures import Hits, Numbers, PromptPart, Queue, hits, origins, queues
from kvdeck.app.tui.modes.monitor.served_figures import slowest
from kvdeck.engine.telemetry.sample import Snapshot
from kvdeck.engine.telemetry.service import Latency


@dataclass(frozen=True, slots=True)
class EngineRow:
    """Requests, prompt tokens and hits of one source; None and empty where it has no metric."""

    source: str
    kind: str
    queue: Queue | None
    parts: tuple[PromptPart, ...]
    per_s: float | None
    """Prompt tokens per second, over all origins."""
    prefix: Hits | None
    """Hits in the engine's own prefix cache."""
    external: Hits | None
    """Hits beyond it, by a connector or by LMCache; the frontend's cached tokens."""
    tiers: tuple[Hits, ...] = ()
    """Hit rates by tier, as KVBM exports them."""
    ttft: Latency | None = None
    itl: Latency | None = None
    failed_per_s: float | None = None
    """Requests that ended with an error, per second over the window."""
    age_s: float | None = None
    """Age of the values, if the source doesn't answer."""


_TIERS = ("host", "disk", "object")


def engine_rows(moment: Snapshot) -> list[EngineRow]:
    """Return a row for each source that counts requests, prompt tokens or hits, in the order of the sources."""
    numbers = Numbers(moment)
    all_queues, all_origins, all_hits = queues(numbers), origins(numbers), hits(numbers)
    rows = []
    for source in moment.sources:
        queue = next((queue for queue in all_queues if queue.source == source.name), None)
        services = [one for one in moment.services if one.source == source.name]
        if queue is None and any(one.running is not None or one.waiting is not None for one in services):
            sums = (_sum(one.running for one in services), _sum(one.waiting for one in services))
            queue = Queue(source.name, *sums, None, None, source.kind == "dynamo")
        times = [one for one in moment.latencies if one.source == source.name]
        parts = next((origin.parts for origin in all_origins if origin.source == source.name), ())
        mine = [hit for hit in all_hits if hit.source == source.name]
        if queue is None and not parts and not mine and not times:
            continue
        rates = [part.per_s for part in parts]
        known = [rate for rate in rates if rate is not None]
        rows.append(
            EngineRow(
                source.name,
                source.kind,
                queue,
                parts,
                sum(known) if rates and len(known) == len(rates) else None,
                _only(mine, "prefix"),
                _only(mine, "external") or _only(mine, "LMCache") or _only(mine, "frontend"),
                tuple(hit for hit in mine if hit.what in _TIERS),
                slowest(times),
                slowest(times, "itl") or slowest(times, "tpot"),
                _sum(one.failed_per_s for one in services),
                source.age_s if source.stale else None,
            )
        )
    return rows


def _sum(values: Iterable[float | None]) -> float | None:
    """Return the sum; None if nothing is known."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _only(found: list[Hits], what: str) -> Hits | None:
    """Return the hit rate of that name; None without one, or if several engines have one of their own each."""
    named = [hit for hit in found if hit.what == what]
    return named[0] if len(named) == 1 else None
