"""Bandwidth measured on this host by path, layout and block size, from the stored sessions."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kvdeck.sessions.model.peers import link_of
from kvdeck.sessions.units import short_layout_name

if TYPE_CHECKING:
    from kvdeck.sessions.store.store import Store

NEWEST = 60
"""Number of newest sessions to read."""
KNEE = 0.9
"""Fraction of the best bandwidth above which larger blocks bring little."""
LEAST_SIZES = 3
"""Minimum number of block sizes for a curve."""


@dataclass(frozen=True, slots=True)
class BandwidthPoint:
    """Bandwidth of one step of a session."""

    path: str
    layout: str
    block_bytes: int
    gb_per_s: float
    session: str


@dataclass(frozen=True, slots=True)
class BandwidthHistory:
    """All points, those of the newest session first."""

    points: tuple[BandwidthPoint, ...] = ()
    error: str = ""

    def at(self, path: str, layout: str, block_bytes: int) -> BandwidthPoint | None:
        """Return the point of that path and layout with the nearest block size (by ratio), the newest among equals,
        or None."""
        there = [point for point in self.points if point.path == path and point.layout == short_layout_name(layout)]
        return min(there, key=lambda point: abs(math.log2(point.block_bytes / block_bytes)), default=None)

    def knee(self, path: str) -> int | None:
        """Return the smallest block size in bytes that reaches KNEE of the best bandwidth; None without a sweep.

        The curve is that of the session with most block sizes on that path, at its best batch and layout.
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
class BandwidthReader:
    """Reads points from the store; each session is read only once."""

    store: Store
    _known: dict[str, tuple[BandwidthPoint, ...]] = field(default_factory=dict)

    def read(self, hostname: str) -> BandwidthHistory:
        """Return the points of the newest finished sessions of that host; unreadable sessions are skipped.

        Raises:
            OSError: The folder can't be read.
        """
        found: list[BandwidthPoint] = []
        done = [summary for summary in self.store.summaries() if summary.state == "done" and summary.steps]
        for summary in done[:NEWEST]:
            # A session that is done never changes, so it is read once.
            if summary.name not in self._known:
                self._known[summary.name] = _points(self.store, summary.name, hostname)
            found += self._known[summary.name]
        return BandwidthHistory(tuple(found))


def _points(store: Store, name: str, hostname: str) -> tuple[BandwidthPoint, ...]:
    from kvdeck.sessions.errors import KvdeckError

    try:
        session = store.read(name)
    except KvdeckError:
        return ()
    # A home on NFS holds sessions of several hosts.
    if session.host.get("hostname", hostname) != hostname:
        return ()
    return tuple(
        BandwidthPoint(result.path, short_layout_name(result.layout), result.block_bytes, result.gb_per_s.median, name)
        for result in session.results
        if result.status == "ok"
        and result.gb_per_s is not None
        and result.gb_per_s.median > 0
        and result.block_bytes
        and link_of(result) is None  # a rate between hosts isn't this host's
    )
