"""KV-cache reuse and request queues per source: token origins, hit rates, running and waiting requests.

Sources are not summed: a prefill and decode pair count the same prompt twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from kvdeck.app.text.monitor_names import source_name
from kvdeck.engine.telemetry.sample import Number, Snapshot
from kvdeck.sessions.model.tier_words import tier_of

COMPUTED = "computed"
_CACHED = "vllm:prompt_tokens_cached_by_source_total"
_BY_SOURCE = "vllm:prompt_tokens_by_source_total"
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
    """The share in the last interval; None without queries, or if not all of them were answered in it."""


@dataclass(frozen=True, slots=True)
class Queue:
    """Running, waiting and preempted requests at one source; None where it has no metric."""

    source: str
    running: float | None
    waiting: float | None
    preempted: float | None
    preempted_per_s: float | None
    in_flight: bool = False
    """Whether `running` is of requests in flight, of which the waiting ones are a part, as Dynamo counts them."""


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
_REQUESTS = {
    "dynamo_frontend_cached_tokens_sum": "dynamo_frontend_cached_tokens_count",
    "dynamo_frontend_input_sequence_tokens_sum": "dynamo_frontend_input_sequence_tokens_count",
}
"""The count of requests in a sum of tokens, for sums that grow at different moments of a request's life."""
UNANSWERED = 0.01
"""Largest part of requests that may be counted in one sum only for their ratio to be shown."""
_MEMBERS = ("server", "instance", "engine", "tier")
"""Labels whose series have a hit rate of their own each; summed, one would hide the other."""
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

    def share(self, source: str, hit: str, asked: str, labels: Mapping[str, str] | None = None) -> Share:
        """Return the hits among the queries of one source, of the series with these labels."""
        got, of = (self._labelled(source, name, labels or {}) for name in (hit, asked))
        counts = [self._labelled(source, _REQUESTS[name], {}) for name in (hit, asked) if name in _REQUESTS]
        total, queries = (sum(number.value for number in found) for found in (got, of))
        now, of_now = (_sum(number.per_s for number in found) for found in (got, of))
        whole = _answered([sum(number.value for number in found) for found in counts])
        lately = _answered([_sum(number.per_s for number in found) for found in counts])
        share = total / queries if got and queries and whole and total <= queries else None
        share_now = now / of_now if now is not None and of_now and lately and now <= of_now else None
        return Share(total if got else None, queries, share, share_now)

    def members(self, source: str, name: str) -> list[dict[str, str]]:
        """Return the labels that tell apart the engines and tiers of a metric; a single empty one if none does."""
        found = self.of(source, name)
        kept = [label for label in _MEMBERS if len({number.labels.get(label, "") for number in found}) > 1]
        apart = len(_distinct(found, kept))
        for label in ("instance", "engine"):  # a server's address tells more, and one of them is enough
            fewer = [other for other in kept if other != label]
            kept = fewer if len(_distinct(found, fewer)) == apart else kept
        return _distinct(found, kept)

    def _labelled(self, source: str, name: str, labels: Mapping[str, str]) -> list[Number]:
        return [n for n in self.of(source, name) if all(n.labels.get(label, "") == v for label, v in labels.items())]

    def plain(self, source: str, name: str) -> list[tuple[Number, dict[str, str]]]:
        """Return KVBM's metric of each engine, with or without the prefix and suffix that some exporters add."""
        names = (name, f"dynamo_{name}", f"{name}_total", f"dynamo_{name}_total")
        one = next((one for one in names if self.of(source, one)), name)
        members = self.members(source, one)
        return [(self._labelled(source, one, labels)[0], labels) for labels in members]


@dataclass(frozen=True, slots=True)
class Share:
    """Hits among queries: totals, their ratio, and their ratio in the last interval; None where it isn't known."""

    hits: float | None
    """None if the source doesn't count them: a tier may have queries only."""
    of: float
    whole: float | None
    now: float | None


def _distinct(found: list[Number], labels: list[str]) -> list[dict[str, str]]:
    members = [{label: number.labels.get(label, "") for label in labels} for number in found]
    return [member for place, member in enumerate(members) if member not in members[:place]]


def _answered(counts: list[float | None]) -> bool:
    """True if the requests in both sums are the same ones, as far as their counts show."""
    known = [count for count in counts if count is not None]
    if len(known) != len(counts):
        return False
    return not known or max(known) - min(known) <= UNANSWERED * max(known)


def _sum(values: Iterable[float | None]) -> float | None:
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
        parts += [PromptPart(name.replace("_", " "), tier_of(name) or "", *amount) for name, amount in cached.items()]
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
        rated = numbers.share(source, hit, asked).now is not None
        rest = all_now - now if rated and now is not None and all_now is not None else None
        # The frontend knows that a prompt's tokens were cached, and not in which tier.
        yield PromptOrigin(
            "frontend prompt",
            source,
            (PromptPart("not cached", "", max(0.0, total - found), rest), PromptPart("cached", "", found, now)),
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
            if numbers.value(source, hit) is None:
                continue
            for labels in numbers.members(source, asked):
                share = numbers.share(source, hit, asked, labels)
                found.append(Hits(_label(what, labels), source, unit, share.whole, share.hits, share.of, share.now))
        for name, what in _RATES.items():
            for number, labels in numbers.plain(source, name):
                # Outside 0 to 1 it is no rate: KVBM may export -1 for a tier that it doesn't use.
                rate = number.value if 0 <= number.value <= 1 else None
                found.append(Hits(_label(what, labels), source, "", rate))
        for matched, labels in numbers.plain(source, "kvbm_matched_tokens"):
            found.append(Hits(_label("matched", labels), source, "tokens", None, matched.value, None, None))
    return found


def _label(what: str, labels: Mapping[str, str]) -> str:
    """Return what is measured with its engine, server and tier if there are several: `engine 1 prefix`."""
    of = [f"{name} {source_name(value)}" for name, value in labels.items() if name != "tier"]
    return " ".join((*of, what, *(value for name, value in labels.items() if name == "tier")))


def queues(numbers: Numbers) -> list[Queue]:
    """Return the request queue of each source that exports any of its metrics."""
    found = []
    for source in numbers.sources:
        running, waiting, preempted = (numbers.value(source, *_QUEUES[what]) for what in _QUEUES)
        if running is not None or waiting is not None or preempted is not None:
            rate = numbers.rate(source, *_QUEUES["preempted"])
            in_flight = running is not None and not numbers.of(source, _QUEUES["running"][0])
            found.append(Queue(source, running, waiting, preempted, rate, in_flight))
    return found
