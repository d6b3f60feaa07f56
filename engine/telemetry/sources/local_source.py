"""Source whose reading is one blocking function, such as reading files or calling a driver."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from kvdeck.engine.telemetry.blocking_source import Aside
from kvdeck.engine.telemetry.source import Kind, Reading, SourceGone
from kvdeck.sessions.units import number_text

HANGS_S = 5.0
"""A longer call counts as hanging; no further call starts until it returns."""


class LocalSource:
    """Source that calls `look` on a separate thread, or in the event loop if `inline`.

    Args:
        look: Returns a reading, or raises SourceGone or OSError.
        least_period_s: Minimum time between readings, s.
        inline: `look` never blocks, because it only reads kernel memory; a thread would cost more.
        hangs_s: Seconds after which a call counts as hanging.
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
        """Return one reading.

        Raises:
            SourceGone: `look` failed, or hangs.
        """
        try:
            if self._aside is None:
                return self._look()
            if self._aside.busy:
                raise SourceGone("the previous read still hangs")
            return await self._within(self._aside.call(self._look))
        except OSError as error:
            where = f": {error.filename}" if error.filename else ""
            raise SourceGone(f"{error.strerror or error}{where}") from error

    async def _within(self, call: asyncio.Future[Reading]) -> Reading:
        """Return the call's result; raises SourceGone after `hangs_s`.

        `asyncio.wait_for` isn't used because it can swallow a cancellation before Python 3.12.
        """
        try:
            done, _ = await asyncio.wait([call], timeout=self._hangs_s)
        finally:
            if not call.done():
                call.cancel()
        if not done:
            raise SourceGone(f"no answer within {number_text(self._hangs_s)} s")
        return call.result()

    async def close(self) -> None:
        """End the thread after its current call."""
        if self._aside is not None:
            self._aside.close()


def now_ns() -> int:
    """Return this process's monotonic clock in ns, for readings of sources without timestamps."""
    return time.monotonic_ns()
