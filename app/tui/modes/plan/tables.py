"""Export tables of a plan: plain numbers, with their units in the titles."""

from __future__ import annotations

from collections.abc import Iterator

from kvdeck.app.tui.export import Table
from kvdeck.app.tui.export_tables import table_row
from kvdeck.app.tui.modes.plan.form import PAGE_SIZES, TP_SIZES, PlanForm
from kvdeck.engine.planning.plan import Plan
from kvdeck.sessions.errors import UsageError


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
    yield table_row("KV precision", plan.precision.name, plan.precision.name)
    yield from (table_row(name, value, value) for name, value in both)
    yield table_row("one descriptor, B", group.block_bytes, group.region_bytes)
    yield table_row("descriptors per block", 1, group.regions)
    yield table_row("descriptors per request", plan.stage.blocks(), plan.stage.regions())
    yield table_row("descriptors on one GPU (largest)", gpu.blocks, gpu.regions)
    yield table_row("descriptors on all GPUs", whole.blocks, whole.regions)


def sweep_table(form: PlanForm, long: bool) -> Table:
    """Return the block size over TP and page size: the grid of the screen, or if `long` one row each with its
    regions."""
    pages, ranks = sorted({*PAGE_SIZES, form.page_size}), sorted({*TP_SIZES, form.tp})
    sizes = {(tp, page): _group_at(form, tp, page) for tp in ranks for page in pages}
    if not long:
        grid = [table_row(tp, *(size[0] if (size := sizes[tp, page]) else "–" for page in pages)) for tp in ranks]
        return Table("block-sizes", ("TP", *(f"page {page}, B" for page in pages)), tuple(grid))
    rows = [table_row(tp, page, *size) for (tp, page), size in sizes.items() if size is not None]
    return Table("block-sizes", ("tp", "page_size", "block_bytes", "region_bytes", "regions"), tuple(rows))


def _group_at(form: PlanForm, tp: int, page: int) -> tuple[int, int, int] | None:
    try:
        group = form.plan(tp=tp, page_size=page).group
    except UsageError:
        return None
    return group.block_bytes, group.region_bytes, group.regions
