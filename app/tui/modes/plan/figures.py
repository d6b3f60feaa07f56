"""Rows of the Plan screen: figures for both layouts side by side, capacity and time on this host, and the sweep."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from textwrap import wrap
from typing import Any

from kvdeck.app.tui.bandwidth import BandwidthHistory
from kvdeck.app.tui.form_fields import LAYOUTS
from kvdeck.app.tui.modes.plan.form import PAGE_SIZES, TP_SIZES, PlanForm
from kvdeck.app.tui.widgets.lines import Row, Span, cell, heading
from kvdeck.engine.planning.plan import Plan, aligned
from kvdeck.engine.planning.precision import PRECISIONS
from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.units import (
    count_text,
    duration_text,
    exact_size_text,
    figure,
    many,
    percent_text,
    size_text,
    time_text,
)

LABEL = 19
_FIRST_TO_GO = ("desc./request", "layers per stage", "desc. all GPUs", "all GPUs", "desc. one GPU")
"""Rows dropped on a low screen, in this order."""
_TONES = ((4 << 10, "bad"), (64 << 10, "warn"), (1 << 20, "run"))


def figure_rows(form: PlanForm, measured: BandwidthHistory, width: int, height: int) -> list[Row]:
    """Return the rows computed from the form, fewer if they exceed `height`; the error if there is no plan."""
    head = heading("KV cache", width, note=_precision_text(form))
    try:
        plan = form.plan()
    except UsageError as error:
        lines = [(f"no plan: {error.what}", "bad"), (f"fix: {error.fix}", "key")]
        return [head, *((cell(f" {line}", width, tone),) for text, tone in lines for line in wrap(text, width - 2))]
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


def _precision_text(form: PlanForm) -> str:
    """Return the KV precision, and the key that says it where it is the model's own."""
    of_model = form.model.precision == form.precision
    source = f" ({form.model.precision_source})" if of_model else ""
    return f"{form.precision}{source}: {PRECISIONS[form.precision].said}"


def _line(label: str, said: str, width: int, tone: str = "") -> Row:
    return (cell(f" {label}", LABEL, "dim"), cell(said, width - LABEL, tone))


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
        yield _line("layers per stage", _stages_said(plan), width)


def _stages_said(plan: Plan) -> str:
    """Return layers per stage, equal neighbours grouped in order, and the rule for the remainder: `13 × 4, 3 × 3 ·
    …`."""
    runs = [(size, len(list(run))) for size, run in itertools.groupby(stage.layers for stage in plan.stages())]
    said = ", ".join(f"{count} × {size}" for size, count in runs)
    return f"{said} · {rule}" if (rule := plan.remainder()) else said


def _state_rows(plan: Plan, width: int) -> Iterator[Row]:
    """Yield the recurrent state of a hybrid model, apart from the KV: per request, independent of its length."""
    if plan.state_bytes:
        on_gpu = f"at most {size_text(plan.gpu_state_bytes())} per GPU"
        said = f"{exact_size_text(plan.state_bytes)} per request of any length · {on_gpu}"
        few = f"{size_text(plan.state_bytes)} per request, not KV · {on_gpu}"
        yield _line("recurrent state", said if len(said) <= width - LABEL else few, width)
    for words in plan.model.without_state():
        yield _line("recurrent state", f"unknown for {words}", width, "warn")


def _few_kv_rows(plan: Plan, width: int) -> Iterator[Row]:
    token, request = size_text(plan.token_bytes), size_text(plan.request_bytes)
    yield _line("token, request", f"{token}, {request}{_grown(plan)}", width)
    yield from _gpu_rows(plan, width)
    yield from _state_rows(plan, width)
    if len(plan.stage.groups) > 1:
        said = [
            f"{group.kind.name} {count_text(group.blocks)} × {size_text(group.block_bytes)}"
            for group in plan.stage.groups
        ]
        yield _line("blocks/request", ", ".join(said), width)


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
    said = [
        (f"yes, at {size_text(step)}", "ok") if (step := aligned(size)) else ("no, not aligned", "warn")
        for size in sizes
    ]
    yield pair("O_DIRECT", said[0][0], said[1][0], (said[0][1], said[1][1]))


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
    size = plan.per_gpu().block_bytes
    for layout in LAYOUTS[:2]:
        name = "FC" if layout == LAYOUTS[0] else "LS"
        point = measured.at(form.path, layout, plan.group.block_bytes)
        if point is None:
            yield _line(f"{form.path} {name}", measured.error or "not measured here", width, "dim")
            continue
        seconds = size / point.gb_per_s / 1e9
        took = duration_text(seconds) if seconds >= 1 else time_text(seconds * 1e6)
        measured_with = f"measured with {size_text(point.block_bytes)} blocks in {point.session}"
        said = f"{took} at {figure(point.gb_per_s)} GB/s, {measured_with}"
        yield _line(f"{form.path} {name}", said, width)


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
    knee = measured.knee(form.path)
    said = f"knee {size_text(knee)} on {form.path}" if knee else f"no block-size sweep measured on {form.path}"
    said = measured.error or said
    rows = [heading("Block size over TP and page size", width, note=said)]
    pages = tuple(sorted({*PAGE_SIZES, form.page_size}))
    head: list[Span] = [cell(" TP \\ page", 10, "dim")]
    each = min(12, (width - 10) // len(pages))
    rows.append(
        (*head, *(cell(str(page), each, "!" if page == form.page_size else "dim", right=True) for page in pages))
    )
    for tp in sorted({*TP_SIZES, form.tp}):
        rows.append((cell(f" {tp:>3}", 10, "!" if tp == form.tp else "dim"), *_grid_cells(form, tp, pages, each, knee)))
    legend: list[Span] = [(" ", ""), ("below 4 KiB", "bad"), (" · ", "dim"), ("below 64 KiB", "warn"), (" · ", "dim"),
                          ("below 1 MiB", "run"), (" · ", "dim"), ("1 MiB and more", "ok")]  # fmt: skip
    if knee:
        legend += [(" · ", "dim"), ("[knee]", "!")]
    return [*rows, tuple(legend)]


def _grid_cells(form: PlanForm, tp: int, pages: tuple[int, ...], each: int, knee: int | None) -> Iterator[Span]:
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
        tone = next((name for limit, name in _TONES if size < limit), "ok")
        here = tp == form.tp and page == form.page_size
        yield cell(f"▸{text}" if here else text, each, f"!{tone}" if here else tone, right=True)
