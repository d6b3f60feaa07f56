"""Checks whether requests are served within limits, and whether what is offloaded comes back."""

from __future__ import annotations

from collections.abc import Iterable

from kvdeck.engine.telemetry.limits import ENOUGH_BLOCKS, ENOUGH_BYTES, ServiceLimits
from kvdeck.engine.telemetry.sample import Check, Flow, Number, Snapshot
from kvdeck.engine.telemetry.service import Latency, Service
from kvdeck.engine.telemetry.service_rows import SERVING, latency_text
from kvdeck.sessions.units import count_text, duration_text, many, number_text, quantity_text, seconds_text, size_text

MOST_SHOWN = 4
"""Engines that one check's evidence names."""


def service_checks(snapshot: Snapshot, limits: ServiceLimits) -> list[Check]:
    """Return the results of the checks that apply, from the rows of the sampler's window.

    Rows of a source that doesn't answer are left out; that it is down is a check of its own.
    """
    services = [row for row in snapshot.services if not row.stale]
    latencies = [row for row in snapshot.latencies if not row.stale and row.over_s is not None]
    found = [
        _down(snapshot),
        _slow("slow-ttft", "ttft", latencies, limits.ttft_p99_s),
        _slow("slow-itl", "itl", latencies, limits.itl_p99_s),
        _slow("slow-e2e", "e2e", latencies, limits.e2e_p99_s),
        _failing(services, limits.failed_share),
        _kv_full(services, limits.kv_usage),
        _waiting(services, limits.waiting),
        _preempting(services, limits.preemptions_per_s),
        written_never_reused(snapshot),
        lookup_nothing_loaded(snapshot),
    ]
    return [check for check in found if check is not None]


def _named(row: Latency | Service) -> str:
    return f"{row.source} ({row.member})" if row.member else row.source


def _listed(parts: list[str]) -> str:
    more = len(parts) - MOST_SHOWN
    return "; ".join(parts[:MOST_SHOWN]) + (f"; and {count_text(more)} more" if more > 0 else "")


def _down(snapshot: Snapshot) -> Check | None:
    gone = [s for s in snapshot.sources if s.kind in SERVING and s.stale and s.age_s is not None]
    if not gone:
        return None
    parts = [f"{s.name} ({s.kind}) has not answered for {duration_text(int(s.age_s or 0))}" for s in gone]
    return Check(
        "engine-down",
        "warning",
        _listed(parts),
        "no figure says whether it serves; look whether its process lives and at its log",
    )


def _warned(name: str, what: str, parts: Iterable[str], advice: str) -> Check | None:
    """Return the warning that `what` holds of each of the parts; None without any."""
    found = list(parts)
    return Check(name, "warning", f"{what}: {_listed(found)}", advice) if found else None


def _slow(name: str, what: str, latencies: Iterable[Latency], limit_s: float) -> Check | None:
    """Warn if the 99th percentile is above the limit, as interpolated, or if all of its bucket is."""
    slow = [
        row
        for row in latencies
        if row.what == what
        and row.p99_low is not None
        and (row.p99 > limit_s if row.p99 is not None else row.p99_low >= limit_s)
    ]
    title = {"ttft": "time to first token", "itl": "time between tokens", "e2e": "time of a whole request"}[what]
    advice = {
        "ttft": "compare it with the queue and prefill times: a queue wants more engines or more KV, a slow prefill "
        "fewer computed tokens; with offload or disaggregation, look at the lookup and transfer times",
        "itl": "large prefills between the decode steps, preemptions and a full batch slow the tokens down",
        "e2e": "compare it with the queue, prefill and decode times to see which part takes it",
    }[what]
    return _warned(
        name,
        f"p99 of the {title} is above {seconds_text(limit_s)}",
        (f"{_named(row)} {latency_text(row, 99)} of {count_text(row.count)}" for row in slow),
        advice,
    )


def _failing(services: Iterable[Service], limit: float) -> Check | None:
    return _warned(
        "failing",
        f"more than {number_text(100 * limit)} % of the requests end with an error",
        (
            f"{_named(row)} {number_text(row.failed_per_s)} of {number_text(row.finished_per_s)} a second"
            for row in services
            if row.failed_per_s and row.finished_per_s is not None and row.failed_per_s > limit * row.finished_per_s
        ),
        "the engine's or the frontend's log names the error",
    )


def _kv_full(services: Iterable[Service], limit: float) -> Check | None:
    return _warned(
        "kv-full",
        f"the device's KV cache is more than {number_text(100 * limit)} % full",
        (
            f"{_named(row)} {quantity_text(row.kv_usage, 'ratio')}"
            for row in services
            if row.kv_usage is not None and row.kv_usage > limit
        ),
        "requests wait or are preempted when it is full: give it more memory, shorter contexts or fewer sequences",
    )


def _waiting(services: Iterable[Service], limit: float) -> Check | None:
    def part(row: Service) -> str:
        why = ", ".join(f"{reason} {count_text(n)}" for reason, n in row.waiting_by_reason.items() if n)
        return f"{_named(row)} {count_text(row.waiting)}" + (f" ({why})" if why else "")

    return _warned(
        "waiting",
        f"more than {count_text(limit)} requests wait",
        (part(row) for row in services if row.waiting is not None and row.waiting > limit),
        "`capacity` waits for KV blocks or a place in the batch, `deferred` for a transfer of KV or another transient "
        "reason; if it lasts, the load is above what the engines can serve",
    )


def _preempting(services: Iterable[Service], limit: float) -> Check | None:
    return _warned(
        "preempting",
        f"more than {number_text(limit)} preemptions a second",
        (
            f"{_named(row)} {number_text(row.preempted_per_s)}/s"
            for row in services
            if row.preempted_per_s is not None and row.preempted_per_s > limit
        ),
        "each throws computed KV away: lower the number of sequences, or give the KV cache more memory",
    )


def _growth(flows: Iterable[Flow]) -> tuple[float, float] | None:
    """Return bytes and blocks that flows gained; None if no flow counts either."""
    known = [flow for flow in flows if flow.bytes_gained is not None or flow.blocks_gained is not None]
    if not known:
        return None
    return sum(flow.bytes_gained or 0.0 for flow in known), sum(flow.blocks_gained or 0.0 for flow in known)


def _external(counters: Iterable[Number], source: str, what: str) -> float | None:
    names = (f"vllm:external_prefix_cache_{what}_total", f"ray_vllm_external_prefix_cache_{what}_total")
    found = [n.gained for n in counters if n.source == source and n.name in names and n.gained is not None]
    return sum(found) if found else None


def _offloads(snapshot: Snapshot) -> dict[str, tuple[list[Flow], list[Flow]]]:
    """Return each source's flows out of the device and into it; stale ones are left out."""
    found: dict[str, tuple[list[Flow], list[Flow]]] = {}
    for flow in snapshot.flows:
        if not flow.stale and flow.source_tier == "G1" and flow.target_tier in ("G2", "G3", "G4"):
            found.setdefault(flow.source, ([], []))[0].append(flow)
        elif not flow.stale and flow.target_tier == "G1" and flow.source_tier != "G1":
            found.setdefault(flow.source, ([], []))[1].append(flow)
    return found


def written_never_reused(snapshot: Snapshot) -> Check | None:
    """Warn if KV is stored at a rate and none of it loaded, although prompts were looked up."""
    parts = []
    for source, (out, back) in _offloads(snapshot).items():
        stored, loaded = _growth(out), _growth(back)
        if stored is None or loaded is None or any(loaded):
            continue
        if stored[0] < ENOUGH_BYTES and stored[1] < ENOUGH_BLOCKS:
            continue
        if not any(flow.bytes_per_s or flow.blocks_per_s for flow in out):
            continue
        hits, asked = (_external(snapshot.counters, source, what) for what in ("hits", "queries"))
        if hits or asked == 0:
            continue
        amount = size_text(stored[0]) if stored[0] else many(stored[1], "block")
        looked = f", {count_text(asked)} tokens were looked up and none found" if asked else ""
        parts.append(f"{source} stored {amount} and loaded nothing{looked}")
    if not parts:
        return None
    return Check(
        "written-never-reused",
        "warning",
        f"since sampling began {_listed(parts)}",
        "the writes cost bandwidth without use: check that prompts share a prefix of more than a block, that the tier "
        "is large enough to keep it until its next use, and that all engines hash alike",
    )


def lookup_nothing_loaded(snapshot: Snapshot) -> Check | None:
    """Warn if lookups find tokens outside the device, and no flow brings any in."""
    parts = []
    for source, (_, back) in _offloads(snapshot).items():
        loaded = _growth(back)
        hits = _external(snapshot.counters, source, "hits")
        if not hits or loaded is None or any(loaded):
            continue
        parts.append(f"{source} found {count_text(hits)} tokens outside the device and loaded nothing")
    if not parts:
        return None
    return Check(
        "lookup-nothing-loaded",
        "warning",
        f"since sampling began {_listed(parts)}",
        "a load that fails or is never scheduled: look at the engine's log, at the requests that wait for KV by stage, "
        "and at the lookup's delay",
    )
