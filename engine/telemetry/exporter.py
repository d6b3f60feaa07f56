"""Prometheus endpoint that exports the sampler's current sample."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from kvdeck.engine.telemetry.sample import VERDICTS_V1, Number, Snapshot
from kvdeck.engine.telemetry.sampler import Sampler
from kvdeck.sessions.errors import UsageError

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_FLOW = ["source", "flow", "from", "to"]
_ADDED = ("source", "stale")
"""Labels that the export adds; a series' own label of that name is left out."""
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_:]")


class _Known(Collector):
    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler

    def collect(self) -> Iterator[Metric]:
        snapshot = self._sampler.snapshot()
        yield from _sources(snapshot)
        yield from _flows(snapshot)
        checks = GaugeMetricFamily(
            "kvdeck_check", "1 for each check that applies", labels=["id", "verdict", "verdict_v1"]
        )
        for found in snapshot.checks:
            checks.add_metric([found.id, found.verdict, VERDICTS_V1[found.verdict]], 1)
        yield checks
        yield from _numbers(snapshot.counters, CounterMetricFamily)
        yield from _numbers(snapshot.gauges, GaugeMetricFamily)


def _numbers(numbers: Iterable[Number], kind: type[CounterMetricFamily] | type[GaugeMetricFamily]) -> Iterator[Metric]:
    """Yield one family per metric, as `kvdeck_` and its own name, with its own labels and its source."""
    metrics: dict[str, list[Number]] = {}
    for number in numbers:
        metrics.setdefault(number.name, []).append(number)
    for name, rows in metrics.items():
        own = dict.fromkeys(label for row in rows for label in row.labels if label not in _ADDED)
        base = f"kvdeck_{_NOT_IN_A_NAME.sub('_', name)}".removesuffix("_total")
        family = kind(base, f"{name}, {rows[0].unit or 'no unit'}: {rows[0].claim}", labels=["source", "stale", *own])
        for row in rows:
            labels = [row.source, "1" if row.stale else "0", *(row.labels.get(label, "") for label in own)]
            family.add_metric(labels, row.value)
        yield family


def _sources(snapshot: Snapshot) -> Iterator[Metric]:
    state = GaugeMetricFamily("kvdeck_source", "1 for each source and its state", labels=["source", "kind", "state"])
    age = GaugeMetricFamily("kvdeck_source_age_seconds", "Seconds since the source was last read", labels=["source"])
    for source in snapshot.sources:
        state.add_metric([source.name, source.kind, source.state], 1)
        if source.age_s is not None:
            age.add_metric([source.name], source.age_s)
    yield state
    yield age


def _flows(snapshot: Snapshot) -> Iterator[Metric]:
    for unit in ("bytes", "blocks", "transfers", "descriptors", "seconds", "failures"):
        family = CounterMetricFamily(f"kvdeck_flow_{unit}", f"{unit} moved, as counted by the source", labels=_FLOW)
        for flow in snapshot.flows:
            total = getattr(flow, f"{unit}_total")
            if total is not None:
                family.add_metric([flow.source, flow.name, flow.source_tier or "", flow.target_tier or ""], total)
        yield family


@asynccontextmanager
async def serving(sampler: Sampler, host: str, port: int) -> AsyncIterator[int]:
    """Serve `/metrics` while the context is open; yields the port that is bound.

    Raises:
        UsageError: The port is in use or not permitted.
    """
    registry = CollectorRegistry()
    registry.register(_Known(sampler))

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE})

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except OSError as error:
            raise UsageError(f"can't serve on {host}:{port}: {error.strerror}", "choose another port") from error
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
