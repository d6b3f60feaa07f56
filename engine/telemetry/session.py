"""Sampling sessions without a screen: sources, duration, and the stream of samples."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from kvdeck.engine.telemetry import discovery
from kvdeck.engine.telemetry.checks import STUCK_S
from kvdeck.engine.telemetry.limits import ServiceLimits
from kvdeck.engine.telemetry.sample import Snapshot
from kvdeck.engine.telemetry.sampler import Sampler
from kvdeck.engine.telemetry.source import Source
from kvdeck.engine.telemetry.sources.prometheus import LONGEST_S

FIRST_S = 2.5
"""How long a stream's first sample waits for the first reading of every source."""


@dataclass(frozen=True, slots=True)
class SamplingSettings:
    """Settings of a sampling session; without `sources`, all discovered on this host are sampled."""

    sources: tuple[str, ...] = ()
    hz: float = 1.0
    seconds: float | None = None
    """Duration; None is without end."""
    block_bytes: float | None = None
    block_claim: str = "as given"
    """Provenance of `block_bytes`."""
    pins: tuple[str, ...] = ()
    home: Path | None = None
    timeout_s: float | None = None
    """Timeout of an endpoint's answer; None follows the pace of its answers, up to 10 s."""
    wait: bool = False
    """If at least one source exists, wait for missing ones instead of failing."""
    stuck_s: float = STUCK_S
    """Seconds without progress after which an engine with running requests counts as stuck."""
    limits: ServiceLimits | None = None
    """ServiceLimits of the checks on latencies, queues and the like; None is the default."""
    prometheus: tuple[str, int] | None = None
    """Address and port of the Prometheus exporter; None disables it."""


async def sources_of(watching: SamplingSettings) -> list[Source]:
    """Return the given sources, or all discovered ones if none are given.

    Raises:
        UsageError: A given source doesn't exist (see `discovery.named`).
    """
    if watching.sources:
        return discovery.named(watching.sources, watching.home, watching.wait, watching.timeout_s)
    return await discovery.everything(watching.home)


@asynccontextmanager
async def sampling(watching: SamplingSettings, first_s: float = FIRST_S) -> AsyncIterator[Sampler]:
    """Run a sampler while the context is open; yields it once every source was read or `first_s` have passed."""
    sources = await sources_of(watching)
    sampler = Sampler(
        sources,
        watching.hz,
        watching.block_bytes,
        watching.pins,
        watching.block_claim,
        watching.stuck_s,
        watching.limits,
    )
    await sampler.start()
    try:
        await sampler.first(first_s)
        if watching.prometheus is None:
            yield sampler
        else:
            from kvdeck.engine.telemetry.exporter import serving

            async with serving(sampler, *watching.prometheus):
                yield sampler
    finally:
        await sampler.close()


def once(watching: SamplingSettings) -> Snapshot:
    """Return one sample: immediately, or with rates after sampling for `seconds`."""

    async def look() -> Snapshot:
        async with sampling(watching, (watching.timeout_s or LONGEST_S) + 0.5) as sampler:
            if not watching.seconds:
                return sampler.snapshot()
            newest = sampler.snapshot()
            async for snapshot in sampler.snapshots(watching.seconds):
                newest = snapshot
            return newest

    return asyncio.run(look())


def stream(watching: SamplingSettings, show: Callable[[Snapshot], None]) -> None:
    """Pass a sample to `show` each period, for `seconds` or without end."""

    async def follow() -> None:
        async with sampling(watching) as sampler:
            async for snapshot in sampler.snapshots(watching.seconds):
                show(snapshot)

    asyncio.run(follow())


def found(home: Path | None) -> discovery.Search:
    """Search this host for sources; doesn't start sampling."""
    return asyncio.run(discovery.search(home))
