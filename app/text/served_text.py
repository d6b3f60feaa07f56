"""Text of who is served: latencies, requests, tokens and the tiers' hits, for reports and the screen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kvdeck.app.text.monitor_names import source_name
from kvdeck.engine.telemetry.sample import Flow, Snapshot
from kvdeck.engine.telemetry.service import Latency, Service, TierHits
from kvdeck.engine.telemetry.tracker import SourceStatus
from kvdeck.sessions.text.run_report import Line
from kvdeck.sessions.text.tables import TextColumn, fit, render
from kvdeck.sessions.units import UNKNOWN, count_text, number_text, quantity_text, seconds_text

INTERPOLATED = "percentiles are interpolated in a histogram's bucket; the true one is in the range behind it"
_TITLES = {
    "ttft": "TTFT",
    "itl": "ITL",
    "tpot": "TPOT",
    "e2e": "E2E",
    "queue": "queue",
    "prefill": "prefill",
    "decode": "decode",
    "inference": "inference",
    "lookup_sync": "offload lookup",
    "lookup_async": "offload lookup, deferred",
    "tier_lookup_sync": "tier lookup",
    "tier_lookup_async": "tier lookup, deferred",
    "block_lifetime": "block lifetime",
    "block_idle": "block idle before eviction",
    "block_reuse_gap": "block reuse gap",
    "transfer": "NIXL transfer",
    "post": "NIXL post",
    "transfer_bytes": "NIXL bytes a transfer",
    "descriptors": "NIXL descriptors a transfer",
    "prompt_tokens": "prompt tokens",
    "output_tokens": "output tokens",
    "computed_tokens": "computed tokens",
    "cached_tokens": "cached tokens",
}
ORDER = tuple(_TITLES)
"""What is observed, in the order in which a report shows it; the rest follows."""


def latency_title(what: str) -> str:
    """Return how a report calls what a histogram observes."""
    return _TITLES.get(what, what.replace("_", " "))


def window_text(over_s: float | None) -> str:
    """Return the time that figures cover."""
    return "since the engine started" if over_s is None else f"last {seconds_text(over_s)}"


def quantile_text(row: Latency, percent: int) -> str:
    """Return a percentile as interpolated: `340 ms`; `> 2560 s` beyond the last bucket, `–` if it isn't known."""
    value, low = getattr(row, f"p{percent}"), getattr(row, f"p{percent}_low")
    if value is None:
        return UNKNOWN if low is None else f"> {quantity_text(low, row.unit)}"
    return quantity_text(value, row.unit)


def bounds_text(row: Latency, percent: int) -> str:
    """Return the range in which a percentile lies for certain: `250 ms to 500 ms`; empty if it isn't known."""
    low, high = getattr(row, f"p{percent}_low"), getattr(row, f"p{percent}_high")
    if low is None:
        return ""
    if not low and high is not None:
        return f"up to {quantity_text(high, row.unit)}"
    return f"{quantity_text(low, row.unit)} to {UNKNOWN if high is None else quantity_text(high, row.unit)}"


def parts_text(parts: Mapping[str, float | None]) -> str:
    """Return counts by their name, without those that are 0: `capacity 3, deferred 1`; `–` without any."""
    return ", ".join(f"{name} {count_text(count)}" for name, count in parts.items() if count != 0) or UNKNOWN


def hits_text(row: TierHits) -> str:
    """Return hits with their denominator, `36 k of 58 k tokens`, or that the exporter gives only a share."""
    if row.hits is None and row.asked is None:
        return "the exporter's own share" if row.share is not None else UNKNOWN
    if row.asked is None:
        return f"{count_text(row.hits)} {row.unit}"
    return f"{count_text(row.hits)} of {count_text(row.asked)} {row.unit}"


def unknown_text(status: SourceStatus) -> str:
    """Return how many of a source's series have no definition: `11 series, none known`; empty if all have one."""
    if not status.unknown:
        return ""
    known = status.series - status.unknown
    return f"{count_text(status.series)} series, {'none' if not known else f'{count_text(known)} of them'} known"


def transfer_bandwidth(flow: Flow) -> float | None:
    """Return a flow's bytes per second of transfer: now if it moves, else over its whole time; None if not counted.

    The seconds are those that the source counted while transfers ran, so it is the speed of a transfer, not of the day.
    """
    if flow.bytes_per_s and flow.seconds_per_s:
        return flow.bytes_per_s / flow.seconds_per_s
    if flow.bytes_total and flow.seconds_total:
        return flow.bytes_total / flow.seconds_total
    return None


def served_lines(snapshot: Snapshot, width: int) -> list[Line]:
    """Return who is served, how fast, and each tier's hits; nothing if no source says any of it."""
    lines: list[Line] = []
    for title, found in (
        ("Served", _services(snapshot.services)),
        ("Latency", _latencies(snapshot.latencies)),
        ("Tiers' hits", _tiers(snapshot.tiers)),
    ):
        if found:
            lines += [Line(""), Line(title, "heading"), *(Line(text) for text in render(fit(found, width)[0], width))]
            lines += [Line(f"  {INTERPOLATED}")] if title == "Latency" else []
    return lines


def _who(row: Service | Latency | TierHits) -> str:
    return source_name(row.source) + (f" ({row.member})" if row.member else "")


def _services(rows: Iterable[Service]) -> list[TextColumn]:
    shown = list(rows)
    if not shown:
        return []

    def column(title: str, values: Iterable[str], rank: int = 0, left: bool = False) -> TextColumn:
        return TextColumn("", title, tuple(values), left=left, rank=rank)

    def rate(value: float | None) -> str:
        return UNKNOWN if value is None else f"{number_text(value)}/s"

    def waiting(row: Service) -> str:
        why = {**row.waiting_by_reason, **{f"KV {stage}": count for stage, count in row.kv_fetch.items()}}
        reasons = parts_text(why)
        return quantity_text(row.waiting, "") + ("" if reasons == UNKNOWN else f" ({reasons})")

    return [
        column("engine", map(_who, shown), left=True),
        column("state", (row.state for row in shown), left=True),
        column("running", (quantity_text(row.running, "") for row in shown)),
        column("waiting", map(waiting, shown)),
        column("requests", (rate(row.finished_per_s) for row in shown)),
        column("errors", (rate(row.failed_per_s) for row in shown)),
        column("tokens in", (rate(row.tokens_in_per_s) for row in shown)),
        column("tokens out", (rate(row.tokens_out_per_s) for row in shown)),
        column("KV used", (quantity_text(row.kv_usage, "ratio") for row in shown), 1),
        column("preempted", (rate(row.preempted_per_s) for row in shown), 2),
        column("finished", (parts_text(row.finished) for row in shown), 3, left=True),
        column("over", (window_text(row.over_s) for row in shown), 4, left=True),
    ]


def _latencies(rows: Iterable[Latency]) -> list[TextColumn]:
    places = {what: place for place, what in enumerate(ORDER)}
    shown = sorted(
        (row for row in rows if row.count), key=lambda row: (row.source, row.member, places.get(row.what, len(places)))
    )
    if not shown:
        return []
    return [
        TextColumn("", "of", tuple(latency_title(row.what) for row in shown), left=True),
        TextColumn("", "count", tuple(count_text(row.count) for row in shown), rank=1),
        TextColumn("", "mean", tuple(quantity_text(row.mean, row.unit) for row in shown), rank=2),
        TextColumn("", "p50", tuple(quantile_text(row, 50) for row in shown)),
        TextColumn("", "p95", tuple(quantile_text(row, 95) for row in shown)),
        TextColumn("", "p99", tuple(quantile_text(row, 99) for row in shown)),
        TextColumn("", "p99 within", tuple(bounds_text(row, 99) for row in shown), left=True),
        TextColumn("", "engine", tuple(_who(row) for row in shown), left=True),
        TextColumn("", "over", tuple(window_text(row.over_s) for row in shown), left=True, rank=3),
    ]


def _tiers(rows: Iterable[TierHits]) -> list[TextColumn]:
    shown = list(rows)
    if not shown:
        return []
    return [
        TextColumn("", "tier", tuple(row.tier or UNKNOWN for row in shown), left=True),
        TextColumn("", "of", tuple(row.what for row in shown), left=True),
        TextColumn("", "hit", tuple(quantity_text(row.share, "ratio") for row in shown)),
        TextColumn("", "hits", tuple(hits_text(row) for row in shown), left=True),
        TextColumn("", "evicted", tuple(quantity_text(row.evicted, "") for row in shown), rank=1),
        TextColumn("", "engine", tuple(_who(row) for row in shown), left=True),
        TextColumn("", "over", tuple(window_text(row.over_s) for row in shown), left=True, rank=2),
    ]
