"""A source that reads files or asks a driver: the reading is one blocking function."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from kvdeck.engine.telemetry.blocking_source import Aside
from kvdeck.engine.telemetry.source import Kind, Reading, SourceGone
from kvdeck.sessions.units import number_text

HANGS_S = 5.0
"""A call that takes longer counts as hanging; it is left alone, and nothing else is asked until it returns."""


class LocalSource:
    """Calls `look` off the main loop, or on it where `inline` says that it never waits.

    Args:
        look: Gives a reading, or raises SourceGone or OSError.
        inline: Reads only what the kernel keeps in memory, so no thread is worth it.
    """

    def __init__(
        self,
        name: str,
        kind: Kind,
        look: Callable[[], Reading],
        *,
        least_period_s: float = 0.1,
        inline: bool = False,
        hangs_s: float = HANGS_S,
    ) -> None:
        self.name = name
        self.kind = kind
        self.least_period_s = least_period_s
        self._look = look
        self._hangs_s = hangs_s
        self._aside = None if inline else Aside(name)

    async def read(self) -> Reading:
        """One reading."""
        try:
            if self._aside is None:
                return self._look()
            if self._aside.busy:
                raise SourceGone("the last call still hangs")
            return await self._within(self._aside.call(self._look))
        except OSError as error:
            where = f": {error.filename}" if error.filename else ""
            raise SourceGone(f"{error.strerror or error}{where}") from error

    async def _within(self, call: asyncio.Future[Reading]) -> Reading:
        """What the call gives in time. Before Python 3.12 `wait_for` can swallow a cancellation, so it is not used."""
        try:
            done, _ = await asyncio.wait([call], timeout=self._hangs_s)
        finally:
            if not call.done():
                call.cancel()
        if not done:
            raise SourceGone(f"no answer within {number_text(self._hangs_s)} s")
        return call.result()

    async def close(self) -> None:
        """Let the thread end."""
        if self._aside is not None:
            self._aside.close()


def now_ns() -> int:
    """This process's clock, by which readings are timed that bring no time of their own."""
    return time.monotonic_ns()
