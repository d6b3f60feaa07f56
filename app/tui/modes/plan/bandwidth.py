"""What has been measured on this host: bandwidth by path, layout and block size, from the sessions that are kept."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kvdeck.sessions.units import short_layout_name

if TYPE_CHECKING:
    from kvdeck.sessions.store.store import Store

NEWEST = 60
"""Sessions that are looked into, the newest first."""
KNEE = 0.9
"""Part of the best bandwidth from which on larger blocks bring little."""
LEAST_SIZES = 3
"""Block sizes that make a curve."""


@dataclass(frozen=True, slots=True)
class Point:
    """One step of a session."""

    path: str
    layout: str
    block_bytes: int
    gb_per_s: float
    session: str


@dataclass(frozen=True, slots=True)
class Measured:
    """Every point, the newest session's first."""

    points: tuple[Point, ...] = ()
    error: str = ""

    def at(self, path: str, layout: str, block_bytes: int) -> Point | None:
        """The point of that path and layout whose block size is nearest; the newest among equals."""
        there = [point for point in self.points if point.path == path and point.layout == short_layout_name(layout)]
        return min(there, key=lambda point: abs(math.log2(point.block_bytes / block_bytes)), default=None)

    def knee(self, path: str) -> int | None:
        """The smallest block size in bytes that reaches nearly the best bandwidth; null without a sweep.

        The curve is of the session that swept most block sizes on that path, at its best batch and layout.
        """
        curves: dict[str, dict[int, float]] = {}
        for point in self.points:
            if point.path == path:
                curve = curves.setdefault(point.session, {})
                curve[point.block_bytes] = max(point.gb_per_s, curve.get(point.block_bytes, 0.0))
        curve = max(curves.values(), key=len, default={})
        if len(curve) < LEAST_SIZES:
            return None
        return min(size for size, rate in curve.items() if rate >= KNEE * max(curve.values()))


@dataclass(slots=True)
class Reader:
    """Reads the sessions; a second reading looks only into those that are new."""

    store: Store
    _known: dict[str, tuple[Point, ...]] = field(default_factory=dict)

    def read(self, hostname: str) -> Measured:
        """What the newest finished sessions of that host hold.

        Raises:
            OSError: The folder can't be read.
        """
        found: list[Point] = []
        done = [summary for summary in self.store.summaries() if summary.state == "done" and summary.steps]
        for summary in done[:NEWEST]:
            if summary.name not in self._known:
                self._known[summary.name] = _points(self.store, summary.name, hostname)
            found += self._known[summary.name]
        return Measured(tuple(found))


def _points(store: Store, name: str, hostname: str) -> tuple[Point, ...]:
    from kvdeck.sessions.errors import KvdeckError

    try:
        session = store.read(name)
    except KvdeckError:
        return ()
    if session.host.get("hostname", hostname) != hostname:
        return ()
    return tuple(
        Point(result.path, short_layout_name(result.layout), result.block_bytes, result.gb_per_s.median, name)
        for result in session.results
        if result.status == "ok" and result.gb_per_s is not None and result.gb_per_s.median > 0 and result.block_bytes
    )
