"""What a plan amounts to in four tiles, its block drawn in both layouts, and what this host measured of it."""

from __future__ import annotations

from collections.abc import Sequence

from kvdeck.app.tui.bandwidth import BandwidthHistory, BandwidthPoint
from kvdeck.app.tui.form_fields import LAYOUTS
from kvdeck.app.tui.modes.plan.form import PlanForm
from kvdeck.app.tui.widgets.lines import Row, Span, cell, heading
from kvdeck.engine.planning.plan import Plan
from kvdeck.sessions.units import (
    count_text,
    duration_text,
    many,
    range_text,
    ratio_text,
    short_layout_name,
    size_text,
    time_text,
)

TILE_HEIGHT = 4
_MOST_PARTS = 3
"""Parts of a block (K, V) that are drawn on rows of their own."""


def tile_rows(form: PlanForm, plan: Plan, measured: BandwidthHistory, width: int) -> list[Row]:
    """Return four tiles: a request, a GPU, all GPUs, and the time in which a GPU's part moves."""
    gpu, whole = plan.per_gpu(), plan.in_all()
    moves, source = moves_in(form, plan, measured)
    tiles = (
        ("One request", size_text(plan.request_bytes), many(plan.stage.blocks(), "block")),
        ("One GPU (largest)" if plan.parallel.pp > 1 else "One GPU", size_text(gpu.block_bytes),
         many(gpu.blocks, "block")),
        (f"All: {many(plan.parallel.gpus, 'GPU')}", size_text(whole.block_bytes), many(whole.blocks, "block")),
        ("One GPU moves in", moves, source),
    )  # fmt: skip
    each = width // len(tiles)
    widths = [*[each] * (len(tiles) - 1), width - each * (len(tiles) - 1)]
    return [
        tuple(span for tile, wide in zip(tiles, widths, strict=True) for span in _tile_line(tile, wide, line))
        for line in range(TILE_HEIGHT)
    ]


def _tile_line(tile: tuple[str, str, str], width: int, line: int) -> Sequence[Span]:
    title, figure, note = tile
    inner = width - 3
    if line == 0:
        return ("╭─ ", "rule"), (title, "title"), (f" {'─' * max(0, inner - 4 - len(title) + 1)}╮", "rule"), (" ", "")
    if line == TILE_HEIGHT - 1:
        return ((f"╰{'─' * inner}╯ ", "rule"),)
    text, tone = (figure, "!") if line == 1 else (note, "dim")
    return ("│ ", "rule"), cell(text, inner - 1, tone), ("│ ", "rule")


def near_points(form: PlanForm, plan: Plan, measured: BandwidthHistory) -> dict[str, BandwidthPoint]:
    """Return what this host measured of the plan's block, by layout: the same path and backend, at most twice or half
    the block."""
    by_backend = of_backend(form, measured)
    if by_backend is None:
        return {}
    points = {layout: by_backend.near(form.path, layout, plan.group.block_bytes) for layout in LAYOUTS[:2]}
    return {layout: point for layout, point in points.items() if point is not None}


def of_backend(form: PlanForm, measured: BandwidthHistory) -> BandwidthHistory | None:
    """Return what was measured with the backend that doctor finds best for the plan's path; None until it has
    reported: which one a run would use isn't known then."""
    best = form.doctor.best(form.path)
    return None if best is None else measured.of(best.backend)


def without_doctor(form: PlanForm) -> str:
    """Return why the plan's backend isn't known."""
    return "doctor failed: 9 says why" if form.doctor.error else "doctor has not reported"


def move_text(plan: Plan, point: BandwidthPoint) -> str:
    """Return the time in which one GPU's part moves at a measured rate."""
    seconds = plan.per_gpu().block_bytes / point.gb_per_s / 1e9
    return duration_text(seconds) if seconds >= 1 else time_text(seconds * 1e6)


def moves_in(form: PlanForm, plan: Plan, measured: BandwidthHistory) -> tuple[str, str]:
    """Return the time in which one GPU's part moves, per layout, and where the figure is from."""
    best = form.doctor.best(form.path)
    if best is None:
        return "–", without_doctor(form)
    points = near_points(form, plan, measured)
    if not points:
        return "–", f"not measured: r runs it on {form.path}"
    parts = [f"{move_text(plan, point)} {short_layout_name(layout).upper()}" for layout, point in points.items()]
    sessions = dict.fromkeys(point.session for point in points.values())
    return " · ".join(parts), f"{form.path} {best.backend}, {', '.join(sessions)}"


def block_rows(plan: Plan, width: int) -> list[Row]:
    """Return one block drawn in both layouts: one piece, and one per layer and part."""
    group = plan.group
    parts = len(group.part_bytes)
    names = ("K", "V") if parts == 2 else tuple(f"part {i + 1}" for i in range(parts)) if parts > 1 else ("KV",)
    room = max(8, width - 12 - 24)
    tokens = many(group.page_size, "token")
    rows = [
        heading(
            f"One block: {tokens} of {many(group.layers, 'layer')} on one GPU = {size_text(group.block_bytes)}", width
        ),
        _drawn("FC", "█" * room, f"1 descriptor of {size_text(group.block_bytes)}", LAYOUTS[0], width),
    ]
    shown = max(1, min(group.layers, room // 2))
    pieces = ("█ " * shown).rstrip()
    cut = "…" if shown < group.layers else ""
    descriptors = f"{count_text(group.regions)} descriptors of {size_text(group.region_bytes)}"
    for i, name in enumerate(names[:_MOST_PARTS]):
        label = f"LS {name}" if i == 0 else f"   {name}"
        note = descriptors if i == 0 else many(group.layers, "piece")
        rows.append(_drawn(label, pieces + cut, note, LAYOUTS[1], width))
    return rows


def _drawn(label: str, bar: str, note: str, layout: str, width: int) -> Row:
    room = max(8, width - 12 - 24)
    return (
        cell(f" {label}", 10, f"!layout:{layout}"),
        cell(bar, room, f"layout:{layout}"),
        cell(f"  {note}", width - room - 10),
    )


def lesson(form: PlanForm, plan: Plan, measured: BandwidthHistory) -> tuple[str, str]:
    """Return what a run on this host found of both layouts for such a block, and its tone."""
    pieces = f"LS moves pieces of {size_text(plan.group.region_bytes)}"
    by_backend = of_backend(form, measured)
    if by_backend is None:
        return f"{pieces}: {without_doctor(form)}", "dim"
    found = by_backend.compared(form.path, plan.group.block_bytes)
    if found is None:
        why = measured.error or "not compared with FC here for such blocks · r compares both layouts"
        return f"{pieces}: {why}", "dim"
    where = f"{size_text(found.block_bytes)} blocks, {found.backend}, {found.session}"
    interval = range_text(found.low, found.high)
    if found.verdict == "undecided":
        return f"{pieces}: slower than FC here? can't tell ({interval}; {where})", ""
    took = "the same time as" if found.verdict == "no difference" else f"{ratio_text(found.ratio)} the time of"
    return f"{pieces}: here it took {took} FC ({interval}; {where})", "!"
