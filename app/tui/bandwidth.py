"""Bandwidth and comparisons of layouts measured on this host, by path and block size, from the stored sessions."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kvdeck.sessions.model.peers import link_of
from kvdeck.sessions.units import short_layout_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvdeck.sessions.model.records import Session, StepResult, Verdict
    from kvdeck.sessions.store.store import Store

NEWEST = 60
"""Number of newest sessions to read."""
KNEE = 0.9
"""Fraction of the best bandwidth above which larger blocks bring little."""
LEAST_SIZES = 3
"""Minimum number of block sizes for a curve."""
_TURNED: dict[str, Verdict] = {"slower": "faster", "faster": "slower"}
"""A verdict on the candidate, as one on the baseline."""


@dataclass(frozen=True, slots=True)
class BandwidthPoint:
    """Bandwidth of one step of a session."""

    path: str
    layout: str
    block_bytes: int
    gb_per_s: float
    session: str
    backend: str = ""


@dataclass(frozen=True, slots=True)
class LayoutComparison:
    """LayerSeparate against FullyContiguous in rounds of one session: the ratio of times, with its 95 % interval."""

    path: str
    block_bytes: int
    ratio: float
    low: float
    high: float
    verdict: Verdict
    session: str
    backend: str = ""


@dataclass(frozen=True, slots=True)
class BandwidthHistory:
    """All points and comparisons, those of the newest session first."""

    points: tuple[BandwidthPoint, ...] = ()
    error: str = ""
    comparisons: tuple[LayoutComparison, ...] = ()

    def at(self, path: str, layout: str, block_bytes: int) -> BandwidthPoint | None:
        """Return the point of that path and layout with the nearest block size (by ratio), the newest among equals,
        or None."""
        there = [point for point in self.points if point.path == path and point.layout == short_layout_name(layout)]
        return min(there, key=lambda point: _octaves(point.block_bytes, block_bytes), default=None)

    def of(self, backend: str) -> BandwidthHistory:
        """Return what was measured with that backend."""
        return BandwidthHistory(
            tuple(point for point in self.points if point.backend == backend),
            self.error,
            tuple(comparison for comparison in self.comparisons if comparison.backend == backend),
        )

    def near(self, path: str, layout: str, block_bytes: int) -> BandwidthPoint | None:
        """Return the nearest point of that path and layout, if its block is at most twice or half as large."""
        point = self.at(path, layout, block_bytes)
        return point if point is not None and _octaves(point.block_bytes, block_bytes) <= 1 else None

    def compared(self, path: str, block_bytes: int) -> LayoutComparison | None:
        """Return the comparison on that path with the nearest block, if it is at most twice or half as large, the
        newest among equals."""
        there = [found for found in self.comparisons if found.path == path]
        found = min(there, key=lambda found: _octaves(found.block_bytes, block_bytes), default=None)
        return found if found is not None and _octaves(found.block_bytes, block_bytes) <= 1 else None

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


def _octaves(one: int, other: int) -> float:
    return abs(math.log2(one / other))


@dataclass(slots=True)
class BandwidthReader:
    """Reads points from the store; each session is read only once."""

    store: Store
    _known: dict[str, BandwidthHistory] = field(default_factory=dict)

    def read(self, hostname: str) -> BandwidthHistory:
        """Return the points of the newest finished sessions of that host; unreadable sessions are skipped.

        Raises:
            OSError: The folder can't be read.
        """
        points: list[BandwidthPoint] = []
        comparisons: list[LayoutComparison] = []
        done = [summary for summary in self.store.summaries() if summary.state == "done" and summary.steps]
        for summary in done[:NEWEST]:
            # A session that is done never changes, so it is read once.
            if summary.name not in self._known:
                self._known[summary.name] = _measured(self.store, summary.name, hostname)
            points += self._known[summary.name].points
            comparisons += self._known[summary.name].comparisons
        return BandwidthHistory(tuple(points), comparisons=tuple(comparisons))


def _measured(store: Store, name: str, hostname: str) -> BandwidthHistory:
    from kvdeck.sessions.errors import KvdeckError

    try:
        session = store.read(name)
    except KvdeckError:
        return BandwidthHistory()
    # A home on NFS holds sessions of several hosts.
    if session.host.get("hostname", hostname) != hostname:
        return BandwidthHistory()
    results = [
        result
        for result in session.results
        if result.status == "ok" and link_of(result) is None  # a rate between hosts isn't this host's
    ]
    points = tuple(
        BandwidthPoint(
            result.path,
            short_layout_name(result.layout),
            result.block_bytes,
            result.gb_per_s.median,
            name,
            result.backend,
        )
        for result in results
        if result.gb_per_s is not None and result.gb_per_s.median > 0 and result.block_bytes
    )
    return BandwidthHistory(points, comparisons=tuple(_comparisons(session, results)))


def _comparisons(session: Session, results: list[StepResult]) -> Iterator[LayoutComparison]:
    """Yield the comparisons of the two layouts whose steps are both among the results, with the same backend."""
    backends = {(result.trial, result.layout): result.backend for result in results}
    for found in session.comparisons:
        layouts = short_layout_name(found.baseline), short_layout_name(found.candidate)
        backend = backends.get((found.trial, found.baseline))
        if sorted(layouts) != ["fc", "ls"] or backend is None or not found.block_bytes:
            continue
        if backends.get((found.trial, found.candidate)) != backend:
            continue
        times, verdict = (found.ratio, found.low, found.high), found.verdict
        if layouts[0] == "ls":
            if min(times) <= 0:
                continue
            times, verdict = (1 / found.ratio, 1 / found.high, 1 / found.low), _TURNED.get(verdict, verdict)
        yield LayoutComparison(found.path, found.block_bytes, *times, verdict, session.name, backend)
