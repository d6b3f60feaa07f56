"""Rows of the Plan screen: figures for both layouts side by side, capacity and time on this host, and the sweep."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from textwrap import wrap
from typing import Any

from kvdeck.app.tui.bandwidth import BandwidthHistory
from kvdeck.app.tui.form_fields import LAYOUTS
from kvdeck.app.tui.modes.plan.form import PAGE_SIZES, TP_SIZES, PlanForm
from kvdeck.app.tui.modes.plan.picture import (
    block_rows,
    lesson,
    move_text,
    near_points,
    of_backend,
    tile_rows,
    without_doctor,
)
from kvdeck.app.tui.widgets.lines import Row, Span, cell, heading
from kvdeck.engine.planning.plan import Plan, aligned
from kvdeck.engine.planning.precision import PRECISIONS
from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.units import (
    count_text,
    exact_size_text,
    figure,
    many,
    percent_text,
    short_layout_name,
    size_text,
)

LABEL = 19
_FIRST_TO_GO = ("desc./request", "layers per stage", "desc. all GPUs", "all GPUs", "desc. one GPU")
"""Rows dropped on a low screen, in this order."""
_IN_TILES = ("all GPUs", "per request", "one GPU (max)")
"""Rows whose figures are in the tiles; the first to go below them."""
DRAWN_WIDTH, DRAWN_HEIGHT = 100, 15
"""Size of the pane from which it has tiles, and draws the block."""
_SHARES = ((0.9, "ok", "≥ 90 %"), (0.5, "run", "≥ 50 %"), (0.25, "warn", "≥ 25 %"), (0.0, "bad", "less"))
"""Least share of the best rate, its tone, and how the legend says it."""


def figure_rows(form: PlanForm, measured: BandwidthHistory, width: int, height: int) -> list[Row]:
    """Return the rows computed from the form, fewer if they exceed `height`; the error if there is no plan."""
    head = heading("KV cache", width, note=_precision_text(form))
    try:
        plan = form.plan()
    except UsageError as error:
        lines = [(f"no plan: {error.what}", "bad"), (f"fix: {error.fix}", "key")]
        return [head, *((cell(f" {line}", width, tone),) for text, tone in lines for line in wrap(text, width - 2))]
    if width >= DRAWN_WIDTH and height >= DRAWN_HEIGHT:
        return _drawn_rows(form, plan, measured, width, height)
    here = [*_fit_rows(plan, form.doctor.host, width), *_time_rows(form, plan, measured, width)]
    why = list(_why_rows(plan, width))
    rows = [head, *_kv_rows(plan, width), *why, *_layout_rows(plan, width), heading("Here", width), *here]
    if len(rows) <= height:
        return rows
    rows = [head, *_few_kv_rows(plan, width), *_stage_rows(plan, width), *why, *_layout_rows(plan, width), *here]
    for label in _FIRST_TO_GO:
        if len(rows) > height:
            rows = [row for row in rows if row[0][0].strip() != label]
    return rows


def _drawn_rows(form: PlanForm, plan: Plan, measured: BandwidthHistory, width: int, height: int) -> list[Row]:
    """Return the tiles, the block as both layouts have it, what this host says of it, and the figures as room is."""
    learnt, tone = lesson(form, plan, measured)
    tiles, block = tile_rows(form, plan, measured, width), block_rows(plan, width)
    answer: list[Row] = [(cell(f" {learnt}", width, tone),), *_fit_rows(plan, form.doctor.host, width)]
    more = [heading("KV cache", width, note=_precision_text(form)), *_kv_rows(plan, width)]
    why, layouts = list(_why_rows(plan, width)), list(_layout_rows(plan, width))
    rows = [*more, *why, *layouts]
    room = height - len(tiles) - len(block) - len(answer)
    for label in (*_IN_TILES, *_FIRST_TO_GO, "KV cache", "per token"):
        if len(rows) > room:
            rows = [row for row in rows if row[0][0].strip() != label]
    if len(rows) > room:
        block, room = [], room + len(block)
    return [*tiles, *block, *answer, *rows][:height]


def _precision_text(form: PlanForm) -> str:
    """Return the KV precision, and the key that says it where it is the model's own."""
    of_model = form.model.precision == form.precision
    source = f" ({form.model.precision_source})" if of_model else ""
    return f"{form.precision}{source}: {PRECISIONS[form.precision].said}"


def _line(label: str, text: str, width: int, tone: str = "") -> Row:
    return (cell(f" {label}", LABEL, "dim"), cell(text, width - LABEL, tone))


def _kv_rows(plan: Plan, width: int) -> Iterator[Row]:
    yield _line("per token", f"{exact_size_text(plan.token_bytes)} in {many(plan.model.layers, 'layer')}", width)
    yield _line("per request", f"{exact_size_text(plan.request_bytes)}{_grown(plan)}", width)
    yield from _gpu_rows(plan, width)
    yield from _state_rows(plan, width)
    yield from _stage_rows(plan, width)
    for group in plan.stage.groups:
        if len(plan.stage.groups) > 1:
            blocks = f"{many(group.blocks, 'block')} of {size_text(group.block_bytes)} per request"
            yield _line(
                group.kind.name, f"{many(group.layers, 'layer')}, {many(group.tokens, 'token')}: {blocks}", width
            )


def _stage_rows(plan: Plan, width: int) -> Iterator[Row]:
    if plan.parallel.pp > 1:
        yield _line("layers per stage", _stages_text(plan), width)


def _stages_text(plan: Plan) -> str:
    """Return layers per stage, equal neighbours grouped in order, and the rule for the remainder: `13 × 4, 3 × 3 ·
    …`."""
    runs = [(size, len(list(run))) for size, run in itertools.groupby(stage.layers for stage in plan.stages())]
    layers = ", ".join(f"{count} × {size}" for size, count in runs)
    return f"{layers} · {rule}" if (rule := plan.remainder()) else layers


def _state_rows(plan: Plan, width: int) -> Iterator[Row]:
    """Yield the recurrent state of a hybrid model, apart from the KV: per request, independent of its length."""
    if plan.state_bytes:
        on_gpu = f"at most {size_text(plan.gpu_state_bytes())} per GPU"
        full = f"{exact_size_text(plan.state_bytes)} per request of any length · {on_gpu}"
        few = f"{size_text(plan.state_bytes)} per request, not KV · {on_gpu}"
        yield _line("recurrent state", full if len(full) <= width - LABEL else few, width)
    for words in plan.model.without_state():
        yield _line("recurrent state", f"unknown for {words}", width, "warn")


def _few_kv_rows(plan: Plan, width: int) -> Iterator[Row]:
    token, request = size_text(plan.token_bytes), size_text(plan.request_bytes)
    yield _line("token, request", f"{token}, {request}{_grown(plan)}", width)
    yield from _gpu_rows(plan, width)
    yield from _state_rows(plan, width)
    if len(plan.stage.groups) > 1:
        groups = [
            f"{group.kind.name} {count_text(group.blocks)} × {size_text(group.block_bytes)}"
            for group in plan.stage.groups
        ]
        yield _line("blocks/request", ", ".join(groups), width)


def _grown(plan: Plan) -> str:
    if not plan.work.osl:
        return ""
    return f" · {size_text(plan.at_the_end().request_bytes)} with {many(plan.work.osl, 'output token')} more"


def _gpu_rows(plan: Plan, width: int) -> Iterator[Row]:
    gpu, whole, parallel, stage = plan.per_gpu(), plan.in_all(), plan.parallel, plan.stage
    where = f"stage {stage.index}, {many(stage.layers, 'layer')}" if parallel.pp > 1 else many(stage.layers, "layer")
    yield _line("one GPU (max)", f"{size_text(gpu.block_bytes)} in {many(gpu.blocks, 'block')} · {where}", width)
    gpus = many(parallel.gpus, "GPU")
    yield _line("all GPUs", f"{size_text(whole.block_bytes)} in {many(whole.blocks, 'block')} on {gpus}", width)


def _why_rows(plan: Plan, width: int) -> Iterator[Row]:
    if why := plan.replication():
        yield _line("replicated", why, width, "warn")
    for label, lines in {"assumed": plan.model.notes, "packing": (plan.packing(),)}.items():
        for text in lines:
            for number, part in enumerate(wrap(text, max(20, width - LABEL))):
                yield _line("" if number else label, part, width, "warn")


def _layout_rows(plan: Plan, width: int) -> Iterator[Row]:
    group, gpu, whole = plan.group, plan.per_gpu(), plan.in_all()
    each = (width - LABEL) // 2
    mark = f" ({group.kind.name})" if len(plan.stage.groups) > 1 else ""

    def pair(label: str, left: str, right: str, tones: tuple[str, str] = ("", "")) -> Row:
        return (
            cell(f" {label}", LABEL, "dim"),
            cell(left, each, tones[0]),
            cell(right, width - LABEL - each, tones[1]),
        )

    names = "FullyContiguous", "LayerSeparate"
    tones = f"!layout:{LAYOUTS[0]}", f"!layout:{LAYOUTS[1]}"
    yield (*heading(f"Block{mark}"[: LABEL - 3], LABEL - 1)[:2], (" ", ""), *pair("", *names, tones)[1:])
    sizes = group.block_bytes, group.region_bytes
    texts = [exact_size_text(size) for size in sizes]
    yield pair("one descriptor", texts[0], texts[1])
    yield pair("desc./block", "1", count_text(group.regions))
    yield pair("desc./request", count_text(plan.stage.blocks()), count_text(plan.stage.regions()))
    yield pair("desc. one GPU", count_text(gpu.blocks), count_text(gpu.regions))
    yield pair("desc. all GPUs", count_text(whole.blocks), count_text(whole.regions))
    direct = [
        (f"yes, at {size_text(step)}", "ok") if (step := aligned(size)) else ("no, not aligned", "warn")
        for size in sizes
    ]
    yield pair("O_DIRECT", direct[0][0], direct[1][0], (direct[0][1], direct[1][1]))


def _fit_rows(plan: Plan, host: dict[str, Any], width: int) -> Iterator[Row]:
    need = plan.room_bytes()
    gpus = host.get("gpus") or ()
    folder = host.get("folder") or {}
    tiers = (
        ("VRAM", gpus[0].get("memory_free_bytes") or gpus[0].get("memory_bytes") if gpus else None, "no GPU"),
        ("RAM", host.get("memory_available_bytes") or host.get("memory_bytes"), "unknown"),
        ("disk", folder.get("free_bytes"), "unknown"),
    )
    spans: list[Span] = [cell(" room for", LABEL, "dim")]
    part = (width - LABEL) // 3
    for name, there, without in tiers:
        if there is None:
            spans.append(cell(f"{name}: {without}", part - 1, "dim"))
        else:
            times = there / need
            room = f"{name} {size_text(there)}: "
            text = f"{room}{figure(times)} such caches" if times >= 1 else room + percent_text(times)
            if len(text) >= part and times >= 1:
                text = f"{room}{figure(times)} ×"
            spans.append(cell(text, part - 1, "ok" if times >= 1 else "bad"))
        spans.append((" ", ""))
    yield tuple(spans)


def _time_rows(form: PlanForm, plan: Plan, measured: BandwidthHistory, width: int) -> Iterator[Row]:
    without = "not measured here with such blocks · r measures it"
    if form.doctor.best(form.path) is None:
        without = f"– · {without_doctor(form)}"
    points = near_points(form, plan, measured)
    for layout in LAYOUTS[:2]:
        label = f"{form.path} {short_layout_name(layout).upper()}"
        point = points.get(layout)
        if point is None:
            yield _line(label, measured.error or without, width, "dim")
            continue
        source = f"{size_text(point.block_bytes)} blocks with {point.backend} in {point.session}"
        yield _line(label, f"{move_text(plan, point)} at {figure(point.gb_per_s)} GB/s · {source}", width)


def command_rows(form: PlanForm, width: int, focused: bool = False) -> list[Row]:
    """Return nixlbench's command line, wrapped between its options."""
    rows = [heading("nixlbench", width, focused, "y copies" if focused else "")]
    try:
        words = form.command(form.plan()).replace(" \\\n    ", "\n").split("\n")
    except UsageError as error:
        return [*rows, (cell(f" {error.what}", width, "dim"),)]
    line = ""
    for word in words:
        if line and len(line) + len(word) + 4 > width:
            rows.append((cell(f" {line} \\", width),))
            line = f"  {word}"
        else:
            line = f"{line} {word}" if line else word
    return [*rows, (cell(f" {line}", width),)]


def grid_rows(form: PlanForm, measured: BandwidthHistory, width: int) -> list[Row]:
    """Return block sizes over TP and page size; brackets mark each row's first page size at or past the knee."""
    best, by_backend = form.doctor.best(form.path), of_backend(form, measured)
    if best is None or by_backend is None:
        knee, note = None, f"– · {without_doctor(form)}"
    else:
        knee, where = by_backend.knee(form.path), f"{form.path} with {best.backend}"
        note = f"knee {size_text(knee)} on {where}" if knee else f"no block-size sweep measured on {where}"
    rows = [heading("Block size over TP and page size", width, note=measured.error or note)]
    pages = tuple(sorted({*PAGE_SIZES, form.page_size}))
    head: list[Span] = [cell(" TP \\ page", 10, "dim")]
    each = min(12, (width - 10) // len(pages))
    rows.append(
        (*head, *(cell(str(page), each, "!" if page == form.page_size else "dim", right=True) for page in pages))
    )
    for tp in sorted({*TP_SIZES, form.tp}):
        rows.append(
            (
                cell(f" {tp:>3}", 10, "!" if tp == form.tp else "dim"),
                *_grid_cells(form, by_backend, tp, pages, each, knee),
            )
        )
    legend: list[Span] = [(" of the best GB/s: ", "dim")]
    legend += [span for _, tone, share in _SHARES for span in ((share, tone), (" · ", "dim"))]
    legend.append(("dim: not measured", "dim"))
    if knee:
        legend += [(" · ", "dim"), ("[knee]", "!")]
    return [*rows, tuple(legend)]


def _rate_tone(form: PlanForm, measured: BandwidthHistory | None, size: int) -> str:
    """Return the tone of a block size by what a backend moved near it on the plan's path, against its best there."""
    if measured is None:
        return "dim"
    there = [point.gb_per_s for point in measured.points if point.path == form.path]
    points = (measured.near(form.path, layout, size) for layout in LAYOUTS[:2])
    rate = max((point.gb_per_s for point in points if point is not None), default=None)
    if rate is None:
        return "dim"
    return next(tone for share, tone, _ in _SHARES if rate >= share * max(there))


def _grid_cells(
    form: PlanForm, measured: BandwidthHistory | None, tp: int, pages: tuple[int, ...], each: int, knee: int | None
) -> Iterator[Span]:
    marked = False
    for page in pages:
        try:
            size = form.plan(tp=tp, page_size=page).group.block_bytes
        except UsageError:
            yield cell("–", each, "dim", right=True)
            continue
        text = size_text(size)
        if knee is not None and size >= knee and not marked:
            text, marked = f"[{text}]", True
        tone = _rate_tone(form, measured, size)
        here = tp == form.tp and page == form.page_size
        yield cell(f"▸{text}" if here else text, each, f"!{tone}" if here else tone, right=True)
