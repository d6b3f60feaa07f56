"""Periodic sampling of all sources, one task per source, so that a slow or hanging one doesn't delay the others."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, suppress
from dataclasses import replace

from kvdeck.engine.tasks import TaskGroup
from kvdeck.engine.telemetry.checks import STUCK_S, check
from kvdeck.engine.telemetry.limits import ServiceLimits
from kvdeck.engine.telemetry.sample import Snapshot, take
from kvdeck.engine.telemetry.service_rows import ServiceRows, Window, between
from kvdeck.engine.telemetry.source import Source
from kvdeck.engine.telemetry.tracker import Track
from kvdeck.sessions.errors import KvdeckError

OFFSET = 0.75
OFFSET_S = 0.75
"""A moment follows the readings' due time by this part of a period, at most so many s: later answers miss it."""
MAX_HZ = 10.0
MIN_HZ = 0.05
LONGEST_PAUSE_S = 5.0
"""Longest pause, s, before a failing source is read again (its own period if longer), so recovery shows quickly."""


class Sampler:
    """Reads all sources periodically and stores their current state.

    Args:
        hz: Readings per second, limited to MIN_HZ … MAX_HZ; a source's `least_period_s` may lower it further.
        block_bytes: Bytes of one KVBM block; None if unknown.
        pins: Names of metrics to include in `Snapshot.pinned`; `*` selects all.
        block_claim: Provenance of `block_bytes`.
        stuck_s: Seconds without progress after which an engine with running requests counts as stuck.
        limits: ServiceLimits of the checks on latencies, queues and the like; None is the default.
    """

    def __init__(
        self,
        sources: Iterable[Source],
        hz: float = 1.0,
        block_bytes: float | None = None,
        pins: Iterable[str] = (),
        block_claim: str = "",
        stuck_s: float = STUCK_S,
        limits: ServiceLimits | None = None,
    ) -> None:
        self.period_s = 1 / min(max(hz, MIN_HZ), MAX_HZ)
        self._sources = list(sources)
        self._tracks = [Track(source.name, source.kind) for source in self._sources]
        self._block_bytes = block_bytes
        self._block_claim = block_claim
        self._stuck_s = stuck_s
        self._limits = limits
        self._pins = frozenset(pins)
        self._window = Window()
        self._last_rows: ServiceRows | None = None
        self._closing = False
        self._since_ns = time.monotonic_ns()
        self._begin = 0.0
        """Time of the first readings, on the event loop's clock."""
        self._tasks: list[asyncio.Task[None]] = []
        self._running = AsyncExitStack()
        self._answered = [asyncio.Event() for _ in self._sources]

    async def start(self) -> None:
        """Start one sampling task per source. An error that ends one is raised by `close`, in the same task."""
        group = await self._running.enter_async_context(TaskGroup())
        self._begin = asyncio.get_running_loop().time()
        for source, track, answered in zip(self._sources, self._tracks, self._answered, strict=True):
            self._tasks.append(group.create_task(self._follow(source, track, answered)))

    async def close(self) -> None:
        """Stop sampling and close every source."""
        self._closing = True
        for task in self._tasks:
            task.cancel()
        try:
            await self._running.aclose()
        finally:
            await asyncio.gather(*(source.close() for source in self._sources), return_exceptions=True)

    async def first(self, timeout_s: float) -> None:
        """Wait until every source was read once, successfully or not, for at most `timeout_s`."""
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.gather(*(event.wait() for event in self._answered)), timeout_s)

    def snapshot(self, advance: bool = False) -> Snapshot:
        """Return a sample of the current state, with its cross-checks; doesn't read the sources.

        Args:
            advance: Whether it is the next moment. Otherwise its rates are those of the last moment.
        """
        paces = [max(self.period_s, source.least_period_s) for source in self._sources]
        now_ns = time.monotonic_ns()
        moment = take(
            zip(self._tracks, paces, strict=True),
            now_ns,
            block_bytes=self._block_bytes,
            block_claim=self._block_claim,
            pins=self._pins,
            advance=advance,
        )
        rows = self._window.take(moment, now_ns) if advance else self._last_rows or between(None, moment)
        self._last_rows = rows if advance else self._last_rows
        moment = replace(moment, latencies=rows.latencies, services=rows.services, tiers=rows.tiers)
        return replace(moment, checks=check(moment, self._stuck_s, self._limits), at_ns=now_ns, since_ns=self._since_ns)

    async def snapshots(self, seconds: float | None = None) -> AsyncIterator[Snapshot]:
        """Yield a sample each period, for `seconds` or without end; skips periods that the consumer missed.

        Readings are due at whole periods, and moments follow them by OFFSET: between two moments lies one reading of
        each source that answers in time, so a steady flow has a steady rate.
        """
        loop = asyncio.get_running_loop()
        offset = min(OFFSET * self.period_s, OFFSET_S)
        first = tick = math.ceil((loop.time() - self._begin - offset) / self.period_s)
        while seconds is None or (tick - first) * self.period_s <= seconds + 1e-6:
            await asyncio.sleep(max(0.0, self._begin + tick * self.period_s + offset - loop.time()))
            yield self.snapshot(advance=True)
            tick = max(tick + 1, math.ceil((loop.time() - self._begin - offset) / self.period_s))

    async def _follow(self, source: Source, track: Track, answered: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        pace = max(self.period_s, source.least_period_s)
        failures = 0
        due = self._begin
        while not self._closing:
            try:
                track.took(await source.read(), time.monotonic_ns())
                failures = 0
            except KvdeckError as error:
                failures += 1
                track.failed(str(error), time.monotonic_ns())
            except Exception as error:  # an unexpected error in one source must not stop the others
                failures += 1
                track.failed(f"{type(error).__name__}: {error}"[:200], time.monotonic_ns())
            answered.set()
            due += _pause(pace, failures)
            if due < loop.time():  # keep to whole periods after a late answer
                due = self._begin + self.period_s * math.ceil((loop.time() - self._begin) / self.period_s)
            await asyncio.sleep(due - loop.time())


def _pause(pace: float, failures: int) -> float:
    """Return seconds until the next reading: exponential backoff from the third consecutive failure."""
    return pace if failures < 3 else min(pace * 2.0 ** min(failures - 2, 5), max(pace, LONGEST_PAUSE_S))
