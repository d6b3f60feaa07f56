"""`kvdeck monitor` off the screen: what to watch, for how long, and the snapshots that come of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from kvdeck.engine.telemetry import discovery
from kvdeck.engine.telemetry.sample import Snapshot
from kvdeck.engine.telemetry.sampler import Sampler
from kvdeck.engine.telemetry.source import Source
from kvdeck.engine.telemetry.sources.prometheus import TIMEOUT_S

FIRST_S = TIMEOUT_S + 0.5
"""How long the first snapshot waits for every source's first answer."""


@dataclass(frozen=True, slots=True)
class Watching:
    """What to watch. No sources: what is found on this host."""

    sources: tuple[str, ...] = ()
    hz: float = 1.0
    seconds: float | None = None
    block_bytes: float | None = None
    block_claim: str = "as given"
    """Who says that a KVBM block has so many bytes."""
    pins: tuple[str, ...] = ()
    home: Path | None = None
    wait: bool = False
    """Sources that aren't there are waited for, as long as one is."""
    prometheus: tuple[str, int] | None = None
    """Address and port to serve what is known on."""


async def sources_of(watching: Watching) -> list[Source]:
    """The sources, named or found."""
    if watching.sources:
        return discovery.named(watching.sources, watching.home, watching.wait)
    return await discovery.everything(watching.home)


@asynccontextmanager
async def sampling(watching: Watching) -> AsyncIterator[Sampler]:
    """A sampler at work, each of its sources asked once or given up."""
    sources = await sources_of(watching)
    sampler = Sampler(sources, watching.hz, watching.block_bytes, watching.pins, watching.block_claim)
    await sampler.start()
    try:
        await sampler.first(FIRST_S)
        if watching.prometheus is None:
            yield sampler
        else:
            from kvdeck.engine.telemetry.exporter import serving

            async with serving(sampler, *watching.prometheus):
                yield sampler
    finally:
        await sampler.close()


def once(watching: Watching) -> Snapshot:
    """One snapshot: at once, or after `seconds` of sampling, and then with rates."""

    async def look() -> Snapshot:
        async with sampling(watching) as sampler:
            if watching.seconds:
                await asyncio.sleep(watching.seconds)
            return sampler.snapshot()

    return asyncio.run(look())


def stream(watching: Watching, show: Callable[[Snapshot], None]) -> None:
    """A snapshot each period to `show`, for `seconds` or without end."""

    async def follow() -> None:
        async with sampling(watching) as sampler:
            async for snapshot in sampler.snapshots(watching.seconds):
                show(snapshot)

    asyncio.run(follow())


def found(home: Path | None) -> list[tuple[str, str]]:
    """Name and kind of everything that can be watched on this host, found without being used."""

    async def look() -> list[tuple[str, str]]:
        sources = await discovery.everything(home)
        return [(source.name, source.kind) for source in sources]

    return asyncio.run(look())
