"""Export tables of a session, a plan or a host: plain numbers, with their units in the titles."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from kvdeck.app.tui.export import Table
from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.units import plain_text

if TYPE_CHECKING:
    from kvdeck.app.tui.modes.plan.form import PlanForm
    from kvdeck.engine.planning.plan import Plan
    from kvdeck.sessions.analysis.histograms import Histogram, Key
    from kvdeck.sessions.model.records import Percentiles, Session, StepResult

_STEP = ("path", "layout", "block_bytes", "batch")
_PERCENTILES = ("p50", "p90", "p95", "p99", "max", "mean")
_PHASES = ("prep", "post", "transfer", "request")


def _text(value: object) -> str:
    return plain_text(value) if value is None or isinstance(value, float) else str(value)


def _row(*values: object) -> tuple[str, ...]:
    return tuple(map(_text, values))


def result_table(session: Session) -> Table:
    """Return one row per step; for a session without results, one row of transfer counts per path and layout."""
    if not session.results:
        counted = ("path", "layout", "transfers", "bytes", "blocks", "descriptors", "timed bytes", "busy s")
        rows = [
            _row(t.path, t.layout, t.transfers, t.bytes, t.blocks, t.descriptors, t.timed_bytes, t.busy_s)
            for t in session.tallies
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
    return _row(
        *(r.path, r.layout, r.block_bytes, r.batch, r.backend, r.descriptors_per_block),
        *(getattr(r.prep_us, "p50", None), getattr(r.post_us, "p50", None)),
        *(getattr(times, "p50", None), getattr(times, "p99", None)),
        *((rate.median, rate.low, rate.high) if rate else (None, None, None)),
        *(r.reference_gb_per_s, r.reference_ratio, r.status),
    )


def percentile_table(session: Session) -> Table:
    """Return one row per step and phase: µs at each percentile."""
    rows = [
        _row(r.path, r.layout, r.block_bytes, r.batch, phase, *(getattr(times, name) for name in _PERCENTILES))
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
        _row(session, *key, edge, count)
        for session, found in sides
        for key, histogram in found.items()
        for edge, count in histogram
    ]
    return Table(f"{name}-request-times", ("session", *_STEP, "from_s", "requests"), tuple(rows))


def curve_table(name: str, sessions: Iterable[Session]) -> Table:
    """Return one row per step that has a rate: GB/s by block size in bytes, with its interval."""
    from kvdeck.sessions.analysis.entries import entries

    rows = [
        _row(session.name, e.path, e.layout, e.block_bytes, e.batch, e.gb_per_s.median, e.gb_per_s.low, e.gb_per_s.high)
        for session in sessions
        for e in entries(session)
        if e.gb_per_s is not None
    ]
    return Table(f"{name}-bandwidth", ("session", *_STEP, "gb_per_s", "low", "high"), tuple(rows))


def plan_table(form: PlanForm) -> Table | None:
    """Return the plan's figures, one per row, for both layouts; None if the form has no valid plan."""
    try:
        plan = form.plan()
    except UsageError:
        return None
    return Table(form.title, ("figure", "FullyContiguous", "LayerSeparate"), tuple(_plan_rows(plan)))


def _plan_rows(plan: Plan) -> Iterator[tuple[str, ...]]:
    gpu, whole, end, group = plan.per_gpu(), plan.in_all(), plan.at_the_end(), plan.group
    both = (
        ("a token, B", plan.token_bytes),
        ("a request, B", plan.request_bytes),
        ("per request with its output, B", end.request_bytes),
        ("one GPU (largest), B", gpu.block_bytes),
        ("one GPU (largest) with the output, B", end.per_gpu().block_bytes),
        ("all GPUs, B", whole.block_bytes),
        ("blocks on one GPU (largest)", gpu.blocks),
        ("blocks on all GPUs", whole.blocks),
        ("GPUs", plan.parallel.gpus),
    )
    yield from (_row(name, value, value) for name, value in both)
    yield _row("one descriptor, B", group.block_bytes, group.region_bytes)
    yield _row("descriptors per block", 1, group.regions)
    yield _row("descriptors per request", plan.stage.blocks(), plan.stage.regions())
    yield _row("descriptors on one GPU (largest)", gpu.blocks, gpu.regions)
    yield _row("descriptors on all GPUs", whole.blocks, whole.regions)


def sweep_table(form: PlanForm, long: bool) -> Table:
    """Return the block size over TP and page size: the grid of the screen, or if `long` one row each with its
    regions."""
    from kvdeck.app.tui.modes.plan.form import PAGE_SIZES, TP_SIZES

    pages, ranks = sorted({*PAGE_SIZES, form.page_size}), sorted({*TP_SIZES, form.tp})
    sizes = {(tp, page): _group_at(form, tp, page) for tp in ranks for page in pages}
    if not long:
        grid = [_row(tp, *(size[0] if (size := sizes[tp, page]) else "–" for page in pages)) for tp in ranks]
        return Table("block-sizes", ("TP", *(f"page {page}, B" for page in pages)), tuple(grid))
    rows = [_row(tp, page, *size) for (tp, page), size in sizes.items() if size is not None]
    return Table("block-sizes", ("tp", "page_size", "block_bytes", "region_bytes", "regions"), tuple(rows))


def _group_at(form: PlanForm, tp: int, page: int) -> tuple[int, int, int] | None:
    try:
        group = form.plan(tp=tp, page_size=page).group
    except UsageError:
        return None
    return group.block_bytes, group.region_bytes, group.regions


def facts_table(name: str, facts: Iterable[tuple[str, str]]) -> Table:
    """Return host facts, one per row."""
    return Table(name, ("fact", "value"), tuple(facts))
