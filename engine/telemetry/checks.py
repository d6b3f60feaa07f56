"""Cross-checks between the values of several sources, each with its evidence and advice."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from kvdeck.engine.telemetry.block_size import learned
from kvdeck.engine.telemetry.limits import ENOUGH_BLOCKS, ENOUGH_BYTES, ServiceLimits
from kvdeck.engine.telemetry.sample import Check, Flow, Number, Snapshot
from kvdeck.engine.telemetry.service_checks import service_checks
from kvdeck.sessions.units import count_text, duration_text, exact_size_text, many, size_text

STUCK_S = 30.0
"""Seconds without progress after which an engine with running requests counts as stuck."""
_RUNNING = (
    "vllm:num_requests_running",
    "dynamo_frontend_inflight_requests",
    "dynamo_component_inflight_requests",
)
"""Gauges of the requests that an engine or a frontend works on."""
_TOKENS = (
    "vllm:generation_tokens_total",
    "vllm:iteration_tokens_total_count",
    "dynamo_frontend_output_tokens_total",
)
"""Counters that grow with each token. Without one, a long request can't be told from one that hangs."""
_PROGRESS = (
    *_TOKENS,
    "vllm:prompt_tokens_total",
    "vllm:request_success_total",
    "dynamo_frontend_requests_total",
    "dynamo_component_requests_total",
)
"""Counters that grow while requests are worked on."""
AGREES = 0.02
"""Relative difference up to which two counts agree."""


def check(snapshot: Snapshot, stuck_s: float = STUCK_S, limits: ServiceLimits | None = None) -> tuple[Check, ...]:
    """Run all cross-checks on a sample; return the results of those that apply.

    Values of a source that doesn't answer are left out: what they say of this moment isn't known.

    Args:
        stuck_s: Seconds without progress after which an engine with running requests counts as stuck.
        limits: ServiceLimits of latencies, queues and the like; None is the default.
    """
    fresh = replace(
        snapshot,
        flows=tuple(flow for flow in snapshot.flows if not flow.stale),
        counters=tuple(number for number in snapshot.counters if not number.stale),
        gauges=tuple(number for number in snapshot.gauges if not number.stale),
    )
    stuck = stuck_engines(fresh, stuck_s)
    served = service_checks(fresh, limits or ServiceLimits())
    return (*stuck, *served, *(found for rule in _RULES if (found := rule(fresh)) is not None))


def _sum(values: Iterable[float | None]) -> float | None:
    """Return the sum of the known values; None if none is known."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _flows(snapshot: Snapshot, prefix: str) -> list[Flow]:
    return [flow for flow in snapshot.flows if flow.name.startswith(prefix)]


def _counters(snapshot: Snapshot, *names: str) -> list[Number]:
    return [number for number in (*snapshot.counters, *snapshot.gauges) if number.name in names]


def _kvbm(snapshot: Snapshot, name: str) -> float | None:
    numbers = [n for n in snapshot.counters if n.name.removeprefix("dynamo_").removesuffix("_total") == name]
    return _sum(number.value for number in numbers)


def _blocks(snapshot: Snapshot, prefix: str, *, target: str = "", source: str = "") -> float | None:
    flows = [f for f in _flows(snapshot, prefix) if target in ("", f.target_tier) and source in ("", f.source_tier)]
    return _sum(flow.blocks_total for flow in flows)


def stuck_engines(snapshot: Snapshot, stuck_s: float) -> list[Check]:
    """Warn of each engine whose requests have run for `stuck_s` seconds while none of its progress counters grew.

    Only the time up to its last answer counts: what it did since isn't known.
    """
    engines: dict[tuple[str, ...], list[Number]] = {}
    for number in (*snapshot.counters, *snapshot.gauges):
        if number.name in _RUNNING or number.name in _PROGRESS:
            who = [number.labels[label] for label in ("server", "instance", "engine") if label in number.labels]
            engines.setdefault((number.source, *who), []).append(number)
    several = len(engines) > 1
    ages = {source.name: source.age_s or 0.0 for source in snapshot.sources}
    checks = (_stuck(who, here, stuck_s, ages.get(who[0], 0.0), several) for who, here in engines.items())
    return [found for found in checks if found is not None]


def _stuck(who: tuple[str, ...], here: list[Number], stuck_s: float, age_s: float, several: bool) -> Check | None:
    running = [number for number in here if number.name in _RUNNING and number.value > 0]
    progress = [number for number in here if number.name in _PROGRESS]
    if not running or not any(number.name in _TOKENS for number in progress):
        return None
    # A counter that has not grown since sampling began stands still for as long as the requests are known to run.
    running_s = max(number.above_0_s or 0.0 for number in running) - age_s
    moved = (number.moved_s - age_s for number in progress if number.moved_s is not None)
    still_s = min([running_s, *moved])
    if still_s < stuck_s:
        return None
    requests = max(number.value for number in running)
    name = who[0] + (f" ({', '.join(who[1:])})" if len(who) > 1 else "")
    return Check(
        "-".join(("stuck", *who)) if several else "stuck",
        "warning",
        f"{name}: {many(requests, 'request')} running for {duration_text(float(int(running_s)))}, and for "
        f"{duration_text(float(int(still_s)))} no token was generated, no prompt token computed, no request finished",
        "the engine hangs: look at its log and at its GPU's utilisation; with KV offload or disaggregation the usual "
        "causes are a transfer that never completes and a peer that died",
    )


def vllm_against_nixl(snapshot: Snapshot) -> Check | None:
    """Compare the bytes pulled by vLLM's NIXL connector with the bytes received by NIXL's own telemetry."""
    vllm = _sum(flow.bytes_gained for flow in _flows(snapshot, "vllm nixl"))
    agents = [*_flows(snapshot, "nixl rx"), *_flows(snapshot, "nixl ring rx")]
    nixl = _sum(flow.bytes_gained for flow in agents)
    if vllm is None or nixl is None or max(vllm, nixl) < ENOUGH_BYTES:
        return None
    evidence = f"since sampling began vLLM pulled {size_text(vllm)} over NIXL, and NIXL received {size_text(nixl)}"
    if abs(vllm - nixl) <= AGREES * max(vllm, nixl):
        return Check("vllm-nixl-bytes", "ok", evidence)
    advice = (
        "other agents also use NIXL here, or an agent is not monitored: add every agent's exporter or ring as a source"
        if nixl > vllm
        else (
            "check the NIXL log for failed transfers, add agents that are not monitored, and check that "
            "no telemetry ring is full"
        )
    )
    return Check("vllm-nixl-bytes", "warning", evidence, advice)


def disk_writes(snapshot: Snapshot) -> Check | None:
    """Compare bytes offloaded to disk with bytes written, which lag by what the page cache holds; warn below half.

    What the serving processes wrote counts, if it can be read; else what the disks wrote, for all programs.
    """
    to_disk = [flow for flow in snapshot.flows if flow.target_tier == "G3" and flow.source_tier in ("G1", "G2")]
    offloaded = _sum(flow.bytes_gained for flow in to_disk)
    written = _sum(n.gained for n in _counters(snapshot, "process_write_bytes"))
    who = "the serving processes"
    if written is None:
        written = _sum(n.gained for n in _counters(snapshot, "disk_write_bytes") if _is_whole_disk(n))
        who = "the disks"
    if offloaded is None or written is None or offloaded < ENOUGH_BYTES:
        return None
    evidence = (
        f"since sampling began {size_text(offloaded)} went to the disk tier, and {who} wrote {size_text(written)}"
    )
    if written >= 0.5 * offloaded:
        return Check("disk-writes", "ok", evidence)
    return Check(
        "disk-writes",
        "warning",
        evidence,
        "check whether the tier is on a network file system or tmpfs (`findmnt -T <folder>`), the page "
        "cache holds them, "
        "or the given block size is too large",
    )


def _is_whole_disk(number: Number) -> bool:
    # Device mapper and md pass their I/O on to disks that are counted too.
    return not number.labels.get("device", "").startswith(("dm-", "md"))


def compatibility_path(snapshot: Snapshot) -> Check | None:
    """Warn if cuFile's `posix=` is above 0: its compatibility path copies through host memory, without GDS."""
    posix = _sum(number.value for number in _counters(snapshot, "cufile_posix_ops"))
    every = _sum(number.value for number in _counters(snapshot, "cufile_ops"))
    if posix is None or (posix == 0 and not every):
        return None
    of_all = f" of {count_text(every)}" if every else ""
    evidence = (
        f"cuFile has served {count_text(posix)}{of_all} operations on its compatibility path "
        f"(posix={count_text(posix)})"
    )
    if posix == 0:
        return Check("cufile-posix", "ok", evidence)
    return Check(
        "cufile-posix",
        "warning",
        evidence,
        "run `gdscheck -p` for what file system and driver support, and `kvdeck doctor` for what is missing here",
    )


def disk_tier_never_written(snapshot: Snapshot) -> Check | None:
    """Warn if KVBM has a disk tier and offloads blocks to the host tier only."""
    to_host = _blocks(snapshot, "kvbm offload", target="G2")
    to_disk = _blocks(snapshot, "kvbm offload", target="G3")
    tier = _counters(snapshot, "disk_tier_bytes")
    if to_host is None or to_disk is None or to_disk > 0 or to_host < ENOUGH_BLOCKS or not tier:
        return None
    return Check(
        "disk-tier-unwritten",
        "warning",
        f"KVBM has a disk tier open and offloaded {many(to_host, 'block')} to the host, none to disk",
        "by default only blocks seen at least twice go to disk (the offload filter, dynamo #3532): repeat "
        "the load, or set DYN_KVBM_DISABLE_DISK_OFFLOAD_FILTER=true; a host tier with free space evicts nothing",
    )


def nothing_matched(snapshot: Snapshot) -> Check | None:
    """Warn if blocks are offloaded and no token matches."""
    matched, offloaded = _kvbm(snapshot, "kvbm_matched_tokens"), _blocks(snapshot, "kvbm offload")
    if matched is None or matched > 0 or not offloaded or offloaded < ENOUGH_BLOCKS // 2:
        return None
    return Check(
        "matched-zero",
        "warning",
        f"kvbm_matched_tokens is 0 after {many(offloaded, 'offloaded block')}",
        "without a match nothing can be onboarded: repeat prompts with a common prefix of more than one block, and "
        "check that partial and block reuse are on in the engine",
    )


def matched_not_onboarded(snapshot: Snapshot) -> Check | None:
    """Report matched tokens without onboarded blocks; that counter is known to stay 0 (dynamo #4549)."""
    matched, onboarded = _kvbm(snapshot, "kvbm_matched_tokens"), _blocks(snapshot, "kvbm onboard")
    if not matched or onboarded is None or onboarded > 0:
        return None
    return Check(
        "onboard-zero",
        "info",
        f"kvbm_matched_tokens is {count_text(matched)} and no block was onboarded",
        "kvbm_onboard_blocks_h2d staying 0 can be the counter's own fault (dynamo #4549): compare TTFT cold and warm",
    )


def silent_nic(snapshot: Snapshot) -> Check | None:
    """Compare bytes from remote peers with the InfiniBand port counters; warn below half."""
    remote = [f for f in snapshot.flows if "remote" in (f.source_tier, f.target_tier)]
    moved = _sum(flow.bytes_gained for flow in remote)
    cards = _counters(snapshot, "fabric_sent_bytes", "fabric_received_bytes")
    carried = _sum(number.gained for number in cards)
    if moved is None or carried is None or moved < ENOUGH_BYTES:
        return None
    evidence = (
        f"since sampling began {size_text(moved)} came from remote peers, "
        f"and the InfiniBand ports carried {size_text(carried)}"
    )
    if carried >= 0.5 * moved:
        return Check("nic-counters", "ok", evidence)
    network = _sum(n.gained for n in _counters(snapshot, "network_sent_bytes", "network_received_bytes"))
    also = f"; the network cards carried {size_text(network)}" if network is not None else ""
    return Check(
        "nic-counters",
        "warning",
        evidence + also,
        "set UCX_PROTO_INFO=y in the engine's environment to see whether UCX uses shared memory, NVLink or TCP",
    )


def silent_prefill(snapshot: Snapshot) -> Check | None:
    """Report engines without NIXL transfers while another has some: in a prefill/decode pair only the puller counts."""
    flows = _flows(snapshot, "vllm nixl")
    still = [flow for flow in flows if not flow.transfers_total and not flow.bytes_total]
    if len(flows) < 2 or not still or len(still) == len(flows):
        return None
    names = ", ".join(flow.source for flow in still)
    return Check(
        "prefill-silent",
        "info",
        f"{names} shows no NIXL transfer while another engine does",
        "expected for a prefill engine: only the decode side counts",
    )


def failures(snapshot: Snapshot) -> Check | None:
    """Warn if transfers failed since sampling began."""
    failed = _sum(flow.failures_gained for flow in snapshot.flows)
    errors = [n for n in _errors(snapshot, "failures") if n.gained and not _is_drop(n)]
    if not failed and not errors:
        return None
    parts = [f"{many(failed, 'transfer')} failed"] if failed else []
    parts += _gains(errors)
    return Check(
        "failures",
        "warning",
        "since sampling began " + ", ".join(parts),
        "see the engine's log for the peer; on failure vLLM's counters grow and NIXL's may not",
    )


def dropped_stores(snapshot: Snapshot) -> Check | None:
    """Warn if a tier was too slow or too full to take what was offloaded, so that it was dropped or not stored."""
    drops = [n for n in snapshot.counters if n.group == "errors" and n.gained and _is_drop(n)]
    if not drops:
        return None
    return Check(
        "stores-dropped",
        "warning",
        "since sampling began " + ", ".join(_gains(drops)),
        "the tier takes blocks more slowly than they arrive, or is full: give it more room, a faster disk or file "
        "system, or let fewer blocks through to it; dropped blocks are computed again",
    )


def earlier_failures(snapshot: Snapshot) -> Check | None:
    """Report what failed before sampling began; it is no fault of this moment."""
    failed = _sum(flow.failures_before for flow in snapshot.flows)
    errors = [(n, n.before or 0.0) for unit in ("failures", "requests") for n in _errors(snapshot, unit)]
    parts = [f"{many(failed, 'transfer')} failed"] if failed else []
    parts += [f"{n.name}{_words(n.labels)} {count_text(before)}" for n, before in errors if before > 0][:4]
    if not parts:
        return None
    return Check(
        "failed-before",
        "info",
        "before sampling began: " + ", ".join(parts),
        "counted since the engine started; what fails from now on is a warning of its own",
    )


def _errors(snapshot: Snapshot, unit: str) -> list[Number]:
    return [number for number in snapshot.counters if number.group == "errors" and number.unit == unit]


def _gains(errors: list[Number]) -> list[str]:
    """Return what the first few counters gained: `transfers_failed (g1) +3`."""
    return [f"{n.name}{_words(n.labels)} +{count_text(n.gained)}" for n in errors[:4]]


def _is_drop(number: Number) -> bool:
    """True for what a tier couldn't take. What a filter keeps out of it, as vLLM's `stores_skipped`, is no drop."""
    return "backpressure" in number.name or number.name.removesuffix("_total").endswith("skipped_pool_full")


def refused_requests(snapshot: Snapshot) -> Check | None:
    """Report requests that were rejected or cancelled, or whose KV expired before it was fetched."""
    errors = [n for n in _errors(snapshot, "requests") if n.gained]
    if not errors:
        return None
    return Check(
        "requests-lost",
        "info",
        "since sampling began " + ", ".join(f"{n.name} +{count_text(n.gained)}" for n in errors[:4]),
        "refused or cancelled requests move no KV: compare with the load generator's count; expired KV "
        "means the decode side fetched it too late",
    )


def container_io(snapshot: Snapshot) -> Check | None:
    """Report a container that moves storage bytes while none of its readable processes does."""
    for number in _counters(snapshot, "container_read_bytes", "container_write_bytes"):
        name = number.labels.get("container")
        way = number.name.removeprefix("container_")
        mine = [n for n in _counters(snapshot, f"process_{way}") if n.labels.get("container") == name]
        moved = _sum(n.gained for n in mine)
        if (number.gained or 0) >= ENOUGH_BYTES and not moved:
            said = "none of its processes' counters changed" if mine else "its processes' counters can't be read"
            verb = "read" if way.startswith("read") else "wrote"
            return Check(
                "container-io",
                "info",
                f"since sampling began {name} {verb} {size_text(number.gained or 0)}, and {said}",
                "expected in containers, where the page cache or another process does the I/O: use the "
                "container's figures",
            )
    return None


def _words(labels: dict[str, str]) -> str:
    shown = [labels[key] for key in ("status", "tier", "device") if key in labels]
    return f" ({', '.join(shown)})" if shown else ""


def frozen_ring(snapshot: Snapshot) -> Check | None:
    """Warn if a telemetry ring is full: NIXL drops further events without reporting it."""
    full = [source for source in snapshot.sources if source.kind == "ring" and source.reason.startswith("full")]
    if not full:
        return None
    return Check(
        "ring-full",
        "warning",
        f"{', '.join(source.name for source in full)}: full, no longer live",
        "enlarge it with NIXL_TELEMETRY_BUFFER_SIZE, or use NIXL_TELEMETRY_EXPORTER=prometheus",
    )


def dropped_events(snapshot: Snapshot) -> Check | None:
    """Warn if NIXL dropped telemetry events, so that its totals are too low."""
    numbers = _counters(snapshot, "agent_telemetry_events_dropped_total", "ring_events_dropped")
    dropped = _sum(number.value for number in numbers)
    if not dropped:
        return None
    return Check(
        "telemetry-dropped",
        "warning",
        f"NIXL dropped {many(dropped, 'telemetry event')}: the bytes and transfers shown are too low",
        "enlarge NIXL_TELEMETRY_BUFFER_SIZE, or shorten NIXL_TELEMETRY_RUN_INTERVAL",
    )


def block_size(snapshot: Snapshot) -> Check | None:
    """Warn if the given block size differs from the one derived from the source's bytes and blocks counters."""
    sized = next((flow for flow in snapshot.flows if flow.bytes_from_blocks and flow.blocks_total), None)
    if sized is None or sized.bytes_total is None or sized.blocks_total is None:
        return None
    found = learned(flow for flow in snapshot.flows if flow.source == sized.source)
    used = sized.bytes_total / sized.blocks_total
    if found is None or abs(used - found.bytes) <= AGREES * found.bytes:
        return None
    return Check(
        "block-size",
        "warning",
        f"blocks are counted as {exact_size_text(round(used))} ({sized.bytes_claim}), but {sized.source} reports "
        f"{exact_size_text(round(found.bytes))} ({found.claim})",
        "omit --block-bytes: the source reports the size; a plan's page size or precision may differ from the engine's",
    )


_RULES: tuple[Callable[[Snapshot], Check | None], ...] = (
    vllm_against_nixl,
    disk_writes,
    compatibility_path,
    disk_tier_never_written,
    nothing_matched,
    matched_not_onboarded,
    silent_nic,
    silent_prefill,
    failures,
    dropped_stores,
    earlier_failures,
    refused_requests,
    container_io,
    frozen_ring,
    dropped_events,
    block_size,
)
