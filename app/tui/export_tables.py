"""Export tables of a session or a host: plain numbers, with their units in the titles."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from kvdeck.app.tui.export import Table
from kvdeck.sessions.units import plain_text

if TYPE_CHECKING:
    from kvdeck.sessions.analysis.histograms import Histogram, Key
    from kvdeck.sessions.model.records import Percentiles, Session, StepResult

_STEP = ("path", "layout", "block_bytes", "batch")
_PERCENTILES = ("p50", "p90", "p95", "p99", "max", "mean")
_PHASES = ("prep", "post", "transfer", "request")


def _text(value: object) -> str:
    return plain_text(value) if value is None or isinstance(value, float) else str(value)


def table_row(*values: object) -> tuple[str, ...]:
    """Return the values as cells."""
    return tuple(map(_text, values))


def result_table(session: Session) -> Table:
    """Return one row per step; for a session without results, one row of transfer counts per path and layout."""
    if not session.results:
        counted = ("path", "layout", "transfers", "bytes", "blocks", "descriptors", "timed bytes", "busy s")
        rows = [
            table_row(t.path, t.layout, t.transfers, t.bytes, t.blocks, t.descriptors, t.timed_bytes, t.busy_s)
            for t in session.transfer_counts
        ]
        return Table(session.name, counted, tuple(rows))
    titles = (
        *("path", "layout", "block B", "batch", "backend", "desc. per block", "prep p50 µs", "post p50 µs"),
        *(
            "transfer p50 µs",
            "transfer p99 µs",
            "GB/s",
            "low",
            "high",
            "reference GB/s",
            "ratio to reference",
            "status",
        ),
    )
    return Table(session.name, titles, tuple(map(_result_row, session.results)))


def _result_row(r: StepResult) -> tuple[str, ...]:
    rate, times = r.gb_per_s, r.transfer_us
    return table_row(
        *(r.path, r.layout, r.block_bytes, r.batch, r.backend, r.descriptors_per_block),
        *(getattr(r.prep_us, "p50", None), getattr(r.post_us, "p50", None)),
        *(getattr(times, "p50", None), getattr(times, "p99", None)),
        *((rate.median, rate.low, rate.high) if rate else (None, None, None)),
        *(r.reference_gb_per_s, r.reference_ratio, r.status),
    )


def percentile_table(session: Session) -> Table:
    """Return one row per step and phase: µs at each percentile."""
    rows = [
        table_row(r.path, r.layout, r.block_bytes, r.batch, phase, *(getattr(times, name) for name in _PERCENTILES))
        for r in session.results
        for phase in _PHASES
        if (times := _phase(r, phase)) is not None
    ]
    return Table(f"{session.name}-percentiles", (*_STEP, "phase", *(f"{p}_us" for p in _PERCENTILES)), tuple(rows))


def _phase(result: StepResult, phase: str) -> Percentiles | None:
    found: Percentiles | None = getattr(result, f"{phase}_us")
    return found


def distribution_table(name: str, sides: Iterable[tuple[str, Mapping[Key, Histogram]]]) -> Table:
    """Return one row per bucket of request times: its lower edge in s and its number of requests."""
    rows = [
        table_row(session, *key, edge, count)
        for session, found in sides
        for key, histogram in found.items()
        for edge, count in histogram
    ]
    return Table(f"{name}-request-times", ("session", *_STEP, "from_s", "requests"), tuple(rows))


def curve_table(name: str, sessions: Iterable[Session]) -> Table:
    """Return one row per step that has a rate: GB/s by block size in bytes, with its interval."""
    from kvdeck.sessions.analysis.entries import entries

    rows = [
        table_row(
            session.name, e.path, e.layout, e.block_bytes, e.batch, e.gb_per_s.median, e.gb_per_s.low, e.gb_per_s.high
        )
        for session in sessions
        for e in entries(session)
        if e.gb_per_s is not None
    ]
    return Table(f"{name}-bandwidth", ("session", *_STEP, "gb_per_s", "low", "high"), tuple(rows))


def facts_table(name: str, facts: Iterable[tuple[str, str]]) -> Table:
    """Return host facts, one per row."""
    return Table(name, ("fact", "value"), tuple(facts))
