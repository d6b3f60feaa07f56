"""The Monitor's headline: what leaves the device, what comes back, how much is reused, and who waits.

Each figure is a sum over sources that answer, and says over how many.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kvdeck.app.tui.modes.monitor.cache_figures import COMPUTED, Numbers, origins, queues
from kvdeck.app.tui.modes.monitor.served_figures import slowest
from kvdeck.app.tui.modes.monitor.tier_figures import begun, way
from kvdeck.engine.telemetry.sample import Flow, Snapshot
from kvdeck.engine.telemetry.service import Latency
from kvdeck.sessions.model.replicas import Labelled

ELSEWHERE = "from elsewhere"
PEERS = "sent by peers"
_FRONTEND = "dynamo_frontend_"
"""Prefix of what Dynamo's frontend counts; its workers are of the same kind."""


@dataclass(frozen=True, slots=True)
class Moved:
    """What moves one way between the device and the other tiers, summed over the flows that count alike."""

    flows: tuple[Flow, ...]
    """Those that the sum is over."""
    unit: str
    """`B` or `blocks`."""
    per_s: float | None
    """None without a flow, or if the rate of none is known."""
    gained: float | None
    """Bytes or blocks since watching began."""
    other: int = 0
    """Flows that have moved something in another unit, which is not in the sum."""
    unknown: int = 0
    """Flows of sources that answer whose rate isn't known, and is not in the sum."""
    down: int = 0
    """Flows of sources that don't answer."""


@dataclass(frozen=True, slots=True)
class Reused:
    """Prompt tokens whose KV was read from a tier, among those of all engines less what peers sent."""

    share: float | None
    """0 to 1 in the last interval; None without a prompt in it."""
    reused_per_s: float | None
    prompt_per_s: float | None
    whole: float | None
    """The share since the engines started; None without any tokens."""
    parts: tuple[tuple[str, str, float], ...]
    """Name, tier and tokens of each origin: per second if any prompt is read now, else since the start."""
    over: int
    """Engines that are counted."""
    down: int = 0


@dataclass(frozen=True, slots=True)
class Waiting:
    """Requests that run and wait, summed over the engines that count them."""

    running: float | None
    waiting: float | None
    preempted_per_s: float | None
    over: int
    in_flight: bool = False
    down: int = 0
    ttft: Latency | None = None
    """Time to the first token where it is longest, of the engines and frontends that answer."""


def offloaded(moment: Snapshot) -> Moved:
    """Return what goes from the device down the tiers."""
    return _moved(flow for flow in moment.flows if flow.source_tier == "G1" and way(flow) == "offload")


def onboarded(moment: Snapshot) -> Moved:
    """Return what comes from the tiers back to the device."""
    return _moved(flow for flow in moment.flows if flow.target_tier == "G1" and way(flow) == "onboard")


def _moved(flows: Iterable[Flow]) -> Moved:
    every = list(flows)
    here = [flow for flow in every if not flow.stale]
    sized = [flow for flow in here if flow.bytes_total is not None]
    blocks = [flow for flow in here if flow.bytes_total is None]
    # Bytes and blocks have no sum. Blocks lead only where no flow that counts bytes has moved any.
    led = sized if sized and (any(flow.bytes_total for flow in sized) or not blocks) else blocks or sized
    unit = "B" if led is sized else "blocks"
    led = [flow for flow in led if begun(flow)] or led
    rates = [flow.bytes_per_s if unit == "B" else flow.blocks_per_s for flow in led]
    gained = [flow.bytes_gained if unit == "B" else flow.blocks_gained for flow in led]
    known = [rate for rate in rates if rate is not None]
    got = [amount for amount in gained if amount is not None]
    return Moved(
        tuple(led),
        unit,
        sum(known) if known else None,
        sum(got) if got else None,
        sum(begun(flow) for flow in here if flow not in led),
        len(rates) - len(known),
        len(every) - len(here),
    )


def reused(moment: Snapshot) -> Reused:
    """Return the share of prompt tokens that no engine had to compute.

    What a peer sent is no reuse. Where engines that compute are watched too, its tokens are counted there, and are
    left out here; else they count as computed. Where no engine tells the origin of its tokens, a frontend's cached
    tokens are taken.
    """
    stale = {source.name for source in moment.sources if source.stale}
    found = origins(Numbers(moment))
    engines = [origin for origin in found if origin.what != "frontend prompt"]
    led = engines or found
    pulls = {flow.source for flow in moment.flows if flow.source_tier == "remote" and flow.target_tier == "G1"}
    here = [origin for origin in led if origin.source not in stale]
    sums: dict[tuple[str, str], list[float]] = {}
    rates: dict[tuple[str, str], list[float | None]] = {}
    computing = any(part.total for origin in here for part in origin.parts if is_computed(part.name))
    for origin in here:
        for part in origin.parts:
            sent = part.tier == "remote" and (part.name != ELSEWHERE or origin.source in pulls)
            if sent and computing:
                continue
            key = (PEERS if sent else part.name, part.tier)
            sums.setdefault(key, []).append(part.total)
            rates.setdefault(key, []).append(part.per_s)
    totals = {key: sum(values) for key, values in sums.items()}
    known = all(rate is not None for values in rates.values() for rate in values)
    now = {key: sum(rate or 0.0 for rate in values) for key, values in rates.items()} if known else {}
    share, got, all_of = _share(now)
    whole, _, _ = _share(totals)
    shown = now if all_of else totals
    return Reused(
        share,
        got if known and here else None,
        all_of if known and here else None,
        whole,
        tuple((name, tier, amount) for (name, tier), amount in shown.items()),
        len(here),
        len(led) - len(here),
    )


def _share(amounts: dict[tuple[str, str], float]) -> tuple[float | None, float, float]:
    """Return the share that wasn't computed, that amount, and the sum."""
    total = sum(amounts.values())
    got = sum(amount for (name, _), amount in amounts.items() if not is_computed(name))
    return (got / total if total else None), got, total


def is_computed(name: str) -> bool:
    """True for tokens that are no reuse: computed ones, as engines and frontends name them, and those of peers."""
    return name in (COMPUTED, "not cached", PEERS)


def frontends(moment: Snapshot) -> frozenset[str]:
    """Return the sources that count the requests of the engines behind them: routers, and Dynamo's frontends."""
    rows: tuple[Labelled, ...] = (*moment.counters, *moment.gauges, *moment.histograms)
    named = {row.source for row in rows if row.name.startswith(_FRONTEND)}
    return frozenset(named.union(source.name for source in moment.sources if source.kind == "router"))


def waiting(moment: Snapshot) -> Waiting:
    """Return the requests that run and wait at all engines; at the frontends where no engine counts them."""
    fronts = frontends(moment)
    stale = {source.name for source in moment.sources if source.stale}
    first = slowest(moment.latencies)
    found = queues(Numbers(moment))
    in_flight = {queue.source for queue in found if queue.in_flight}
    counted = [one for one in moment.services if one.running is not None or one.waiting is not None]
    if counted:
        led = [one for one in counted if one.source not in fronts] or counted
        answering = [one for one in led if not one.stale and one.source not in stale]
        return Waiting(
            _sum(one.running for one in answering),
            _sum(one.waiting for one in answering),
            _sum(one.preempted_per_s for one in answering),
            len(answering),
            led[0].source in fronts or led[0].source in in_flight,
            len(led) - len(answering),
            first,
        )
    engines = [queue for queue in found if queue.source not in fronts] or found
    here = [queue for queue in engines if queue.source not in stale]
    return Waiting(
        _sum(queue.running for queue in here),
        _sum(queue.waiting for queue in here),
        _sum(queue.preempted_per_s for queue in here),
        len(here),
        bool(here) and here[0].in_flight,
        len(engines) - len(here),
        first,
    )


def _sum(values: Iterable[float | None]) -> float | None:
    """Return the sum of the known values; None without any."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None
