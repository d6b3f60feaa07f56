"""What a plan amounts to in four tiles, its block drawn in both layouts, and what this host measured of it."""

from __future__ import annotations

from collections.abc import Sequence

from kvdeck.app.tui.bandwidth import BandwidthHistory, BandwidthPoint
from kvdeck.app.tui.form_fields import LAYOUTS
from kvdeck.app.tui.modes.plan.form import PlanForm
from kvdeck.app.tui.widgets.lines import Row, Span, cell, heading
from kvdeck.engine.planning.plan import Plan
from kvdeck.sessions.units import count_text, duration_text, many, ratio_text, short_layout_name, size_text, time_text

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
        ("Moves in", moves, source),
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
    best = form.doctor.best(form.path)
    found = {}
    for layout in LAYOUTS[:2]:
        point = measured.near(form.path, layout, plan.group.block_bytes, None if best is None else best.backend)
        if point is not None:
            found[layout] = point
    return found


def moves_in(form: PlanForm, plan: Plan, measured: BandwidthHistory) -> tuple[str, str]:
    """Return the time in which one GPU's part moves, per layout, and where the figure is from."""
    points = near_points(form, plan, measured)
    if not points:
        return "–", f"not measured: r runs it on {form.path}"
    size = plan.per_gpu().block_bytes
    parts = []
    for layout, point in points.items():
        seconds = size / point.gb_per_s / 1e9
        took = duration_text(seconds) if seconds >= 1 else time_text(seconds * 1e6)
        parts.append(f"{took} {short_layout_name(layout).upper()}")
    sessions = dict.fromkeys(point.session for point in points.values())
    return " · ".join(parts), f"1 GPU, {form.path}, {', '.join(sessions)}"


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
    said = f"{count_text(group.regions)} descriptors of {size_text(group.region_bytes)}"
    for i, name in enumerate(names[:_MOST_PARTS]):
        label = f"LS {name}" if i == 0 else f"   {name}"
        note = said if i == 0 else many(group.layers, "piece")
        rows.append(_drawn(label, pieces + cut, note, LAYOUTS[1], width))
    return rows


def _drawn(label: str, bar: str, said: str, layout: str, width: int) -> Row:
    room = max(8, width - 12 - 24)
    return (
        cell(f" {label}", 10, f"!layout:{layout}"),
        cell(bar, room, f"layout:{layout}"),
        cell(f"  {said}", width - room - 10),
    )


def lesson(form: PlanForm, plan: Plan, measured: BandwidthHistory) -> tuple[str, str]:
    """Return what this host's own measurements say of both layouts for this block, and its tone."""
    points = near_points(form, plan, measured)
    pieces = size_text(plan.group.region_bytes)
    if len(points) < 2:
        return f"LS moves pieces of {pieces}: not measured here with such blocks · r compares both layouts", "dim"
    first, second = (points[layout] for layout in LAYOUTS[:2])
    if first.session != second.session or first.block_bytes != second.block_bytes:
        return f"LS moves pieces of {pieces}: never compared with FC in one run here · r does", "dim"
    ratio = ratio_text(first.gb_per_s / second.gb_per_s)
    where = f"{size_text(first.block_bytes)} blocks, {first.session}"
    return f"LS moves pieces of {pieces}: here it took {ratio} the time of FC ({where})", "!"
