"""The loop that asks every source at its own pace: one that is slow or hangs delays none of the others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace

from kvdeck.engine.telemetry.checks import check
from kvdeck.engine.telemetry.sample import Snapshot, take
from kvdeck.engine.telemetry.source import Source
from kvdeck.engine.telemetry.tracker import Track
from kvdeck.sessions.errors import KvdeckError

MAX_HZ = 10.0
MIN_HZ = 0.05
LONGEST_PAUSE_S = 5.0
"""A source that keeps failing is asked at least so often, so that one that comes back is soon seen."""


class Sampler:
    """Asks sources and keeps what they said.

    Args:
        hz: How often to ask each; a source that costs more is asked less often.
        block_bytes: Bytes of one KVBM block, if told.
        block_claim: Who told.
    """

    def __init__(
        self,
        sources: Iterable[Source],
        hz: float = 1.0,
        block_bytes: float | None = None,
        pins: Iterable[str] = (),
        block_claim: str = "",
    ) -> None:
        self.period_s = 1 / min(max(hz, MIN_HZ), MAX_HZ)
        self._sources = list(sources)
        self._tracks = [Track(source.name, source.kind) for source in self._sources]
        self._block_bytes = block_bytes
        self._block_claim = block_claim
        self._pins = frozenset(pins)
        self._closing = False
        self._tasks: list[asyncio.Task[None]] = []
        self._answered = [asyncio.Event() for _ in self._sources]

    async def start(self) -> None:
        """Begin to ask, each source in a task of its own."""
        for source, track, answered in zip(self._sources, self._tracks, self._answered, strict=True):
            self._tasks.append(asyncio.create_task(self._follow(source, track, answered)))

    async def close(self) -> None:
        """Stop asking; let go of every source."""
        self._closing = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(source.close() for source in self._sources), return_exceptions=True)

    async def first(self, timeout_s: float) -> None:
        """Wait until every source has been asked once, or the time is up."""
        if self._answered:
            waiting = [asyncio.ensure_future(event.wait()) for event in self._answered]
            _, left = await asyncio.wait(waiting, timeout=timeout_s)
            for task in left:
                task.cancel()

    def snapshot(self) -> Snapshot:
        """The moment as it is known, with its checks."""
        paces = [max(self.period_s, source.least_period_s) for source in self._sources]
        moment = take(
            zip(self._tracks, paces, strict=True),
            time.monotonic_ns(),
            block_bytes=self._block_bytes,
            block_claim=self._block_claim,
            pins=self._pins,
        )
        return replace(moment, checks=check(moment))

    async def snapshots(self, seconds: float | None = None) -> AsyncIterator[Snapshot]:
        """A snapshot each period, until the time is up."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        tick = 0
        while seconds is None or tick * self.period_s <= seconds + 1e-6:
            yield self.snapshot()
            tick = max(tick + 1, int((loop.time() - start) / self.period_s) + 1)
            await asyncio.sleep(max(0.0, start + tick * self.period_s - loop.time()))

    async def _follow(self, source: Source, track: Track, answered: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        pace = max(self.period_s, source.least_period_s)
        failures = 0
        due = loop.time()
        while not self._closing:
            try:
                track.took(await source.read(), time.monotonic_ns())
                failures = 0
            except KvdeckError as error:
                failures += 1
                track.failed(str(error), time.monotonic_ns())
            except Exception as error:  # a source that meets what nobody thought of must not end the others
                failures += 1
                track.failed(f"{type(error).__name__}: {error}"[:200], time.monotonic_ns())
            answered.set()
            due = max(due + _pause(pace, failures), loop.time())
            await asyncio.sleep(due - loop.time())


def _pause(pace: float, failures: int) -> float:
    """Seconds to the next reading: longer and longer for a source that keeps failing."""
    return pace if failures < 3 else min(pace * 2.0 ** min(failures - 2, 5), max(pace, LONGEST_PAUSE_S))
