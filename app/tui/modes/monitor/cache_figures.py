"""KV-cache reuse and request queues per source: token origins, hit rates, running and waiting requests.

Sources are not summed: a prefill and decode pair count the same prompt twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kvdeck.engine.telemetry.sample import Number, Snapshot

COMPUTED = "computed"
_CACHED = "vllm:prompt_tokens_cached_by_source_total"
_BY_SOURCE = "vllm:prompt_tokens_by_source_total"
_TIERS = {"device": "G1", "host": "G2", "disk": "G3", "object": "G4", "p2p": "remote"}
_OLDER = {
    "local_compute": (COMPUTED, ""),
    "local_cache_hit": ("device", "G1"),
    "external_kv_transfer": ("from elsewhere", "remote"),
}


@dataclass(frozen=True, slots=True)
class PromptPart:
    """Tokens of an origin that were computed, or read from one tier; `per_s` in tokens per second."""

    name: str
    tier: str
    """`G1` … `G4`, `remote`, or empty if computed or of unknown origin."""
    total: float
    per_s: float | None


@dataclass(frozen=True, slots=True)
class PromptOrigin:
    """Prompt tokens of one source, by where their KV came from."""

    what: str
    source: str
    parts: tuple[PromptPart, ...]

    @property
    def total(self) -> float:
        return sum(part.total for part in self.parts)


@dataclass(frozen=True, slots=True)
class Hits:
    """A hit rate: `share` (0 to 1) is `hits` / `of`, in `unit`. `of` is None if the source has no count of queries."""

    what: str
    source: str
    unit: str
    share: float | None
    hits: float | None = None
    of: float | None = None
    now: float | None = None
    """The share in the last interval; None without queries."""


@dataclass(frozen=True, slots=True)
class Queue:
    """Running, waiting and preempted requests at one source; None where it has no metric."""

    source: str
    running: float | None
    waiting: float | None
    preempted: float | None
    preempted_per_s: float | None


_PAIRS = (
    ("prefix", "vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total", "tokens"),
    ("external", "vllm:external_prefix_cache_hits_total", "vllm:external_prefix_cache_queries_total", "tokens"),
    (
        "tier chunks",
        "vllm:kv_offload_tiering_chunk_hits_total",
        "vllm:kv_offload_tiering_chunk_queries_total",
        "chunks",
    ),
    ("LMCache", "lmcache:num_hit_tokens_total", "lmcache:num_requested_tokens_total", "tokens"),
    ("frontend", "dynamo_frontend_cached_tokens_sum", "dynamo_frontend_input_sequence_tokens_sum", "tokens"),
)
_RATES = {
    "kvbm_host_cache_hit_rate": "host",
    "kvbm_disk_cache_hit_rate": "disk",
    "kvbm_object_cache_hit_rate": "object",
}
_QUEUES = {
    "running": ("vllm:num_requests_running", "dynamo_frontend_inflight_requests", "dynamo_component_inflight_requests"),
    "waiting": ("vllm:num_requests_waiting", "dynamo_frontend_queued_requests"),
    "preempted": ("vllm:num_preemptions_total",),
}


class Numbers:
    """Counters and gauges of one sample by source and name; `value` and `rate` sum over labels (workers)."""

    def __init__(self, moment: Snapshot) -> None:
        self._all: dict[tuple[str, str], list[Number]] = {}
        for number in (*moment.counters, *moment.gauges):
            self._all.setdefault((number.source, number.name), []).append(number)
        self.sources = [source.name for source in moment.sources]

    def of(self, source: str, name: str) -> list[Number]:
        return self._all.get((source, name), [])

    def value(self, source: str, *names: str) -> float | None:
        """Return the sum of the first metric in `names` that the source has; None without any."""
        for name in names:
            if found := self.of(source, name):
                return sum(number.value for number in found)
        return None

    def rate(self, source: str, *names: str) -> float | None:
        """Return the summed rate per second of the first metric that the source has; None if any part is unknown."""
        for name in names:
            if found := self.of(source, name):
                return _sum(number.per_s for number in found)
        return None

    def plain(self, source: str, name: str) -> Number | None:
        """Return KVBM's metric, with or without the prefix and suffix that some exporters add; None if absent."""
        names = (name, f"dynamo_{name}", f"{name}_total", f"dynamo_{name}_total")
        return next((found[0] for one in names if (found := self.of(source, one))), None)


def _sum(values: Iterator[float | None]) -> float | None:
    known = list(values)
    return None if not known or any(value is None for value in known) else sum(v for v in known if v is not None)


def origins(numbers: Numbers) -> list[PromptOrigin]:
    """Return the origins of each source's prompt tokens."""
    return [found for source in numbers.sources for found in _origins_of(numbers, source)]


def _origins_of(numbers: Numbers, source: str) -> Iterator[PromptOrigin]:
    by_source = _labelled(numbers.of(source, _BY_SOURCE))
    cached = _labelled(numbers.of(source, _CACHED))
    parts: list[PromptPart] = []
    if (computed := by_source.get("local_compute")) is not None:
        parts.append(PromptPart(COMPUTED, "", *computed))
    if cached:
        parts += [PromptPart(name.replace("_", " "), _TIERS.get(name, ""), *amount) for name, amount in cached.items()]
    else:  # older vLLM, without counters per tier
        known = {name: amount for name, amount in by_source.items() if name != "local_compute"}
        parts += [
            PromptPart(*_OLDER.get(name, (name.replace("_", " "), "")), *amount) for name, amount in known.items()
        ]
    if parts:
        yield PromptOrigin("vLLM prompt", source, tuple(parts))
    hit, asked = "dynamo_frontend_cached_tokens_sum", "dynamo_frontend_input_sequence_tokens_sum"
    found, total = numbers.value(source, hit), numbers.value(source, asked)
    if found is not None and total is not None:
        now, all_now = numbers.rate(source, hit), numbers.rate(source, asked)
        rest = None if now is None or all_now is None else max(0.0, all_now - now)
        yield PromptOrigin(
            "frontend prompt",
            source,
            (PromptPart("not cached", "", max(0.0, total - found), rest), PromptPart("cached", "G1", found, now)),
        )


def _labelled(found: list[Number]) -> dict[str, tuple[float, float | None]]:
    sums: dict[str, tuple[float, float | None]] = {}
    for number in found:
        name = number.labels.get("source", "?")
        total, rate = sums.get(name, (0.0, 0.0))
        sums[name] = (total + number.value, None if rate is None or number.per_s is None else rate + number.per_s)
    return sums


def hits(numbers: Numbers) -> list[Hits]:
    """Return every hit rate that the sources export, with its queries if known."""
    found = []
    for source in numbers.sources:
        for what, hit, asked, unit in _PAIRS:
            got, of = numbers.value(source, hit), numbers.value(source, asked)
            if got is None or of is None:
                continue
            now, of_now = numbers.rate(source, hit), numbers.rate(source, asked)
            share_now = now / of_now if now is not None and of_now else None
            found.append(Hits(what, source, unit, got / of if of else None, got, of, share_now))
        for name, what in _RATES.items():
            if (number := numbers.plain(source, name)) is not None:
                found.append(Hits(what, source, "", number.value))
        if (matched := numbers.plain(source, "kvbm_matched_tokens")) is not None:
            found.append(Hits("matched", source, "tokens", None, matched.value, None, None))
    return found


def queues(numbers: Numbers) -> list[Queue]:
    """Return the request queue of each source that exports any of its metrics."""
    found = []
    for source in numbers.sources:
        running, waiting, preempted = (numbers.value(source, *_QUEUES[what]) for what in _QUEUES)
        if running is not None or waiting is not None or preempted is not None:
            rate = numbers.rate(source, *_QUEUES["preempted"])
            found.append(Queue(source, running, waiting, preempted, rate))
    return found
