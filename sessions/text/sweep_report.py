"""The text report of a sweep: tables of block sizes × batches, and the ratio of the layouts in each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from kvdeck.sessions.model.records import Comparison, StepResult
from kvdeck.sessions.text.tables import NO_BREAK, TextColumn, render, table_width, wrapped
from kvdeck.sessions.units import UNKNOWN, count_text, figure, layout_name, many, range_text, ratio_text, size_text

Shape = tuple[int, int]
"""Block size in bytes, and batch in blocks."""


def is_grid(shapes: Iterable[Shape]) -> bool:
    """True if both block sizes and batches vary."""
    sizes, batches = zip(*shapes, strict=True)
    return len(set(sizes)) > 1 and len(set(batches)) > 1


def sweep_grid(results: Sequence[StepResult], comparisons: Sequence[Comparison], width: int) -> list[str]:
    """Return tables of block sizes × batches: each layout's GB/s and times, then the ratio of each pair of layouts."""
    shapes = sorted({(result.block_bytes, result.batch) for result in results})
    lines: list[str] = []
    for layout in dict.fromkeys(result.layout for result in results):
        steps = {(r.block_bytes, r.batch): r for r in results if r.layout == layout}
        per_block = "/".join(dict.fromkeys(count_text(r.descriptors_per_block) for r in steps.values()))
        plural = "" if per_block == "1" else "s"
        title = f"  {layout_name(layout)}, {per_block} descriptor{plural} per block"
        lines.append(f"{title}: GB/s (median)")
        lines += _grid(shapes, width, {shape: _rate(step) for shape, step in steps.items()})
        lines += [
            f"{title}: post + transfer p50 in µs",
            *_grid(shapes, width, {shape: _times(step) for shape, step in steps.items()}),
        ]
    for (candidate, baseline), items in _pairs(comparisons).items():
        ratios = {(item.block_bytes, item.batch): _ratio(item) for item in items}
        lines.append(f"  {candidate}'s time over {baseline}'s (~ no difference, ? undecided)")
        lines += _grid(shapes, width, ratios)
        lines += wrapped(f"  {_summary(candidate, baseline, items)}", width, "    ")
    return lines


def sweep_ratios(comparisons: Sequence[Comparison], width: int) -> list[str]:
    """Return each pair's ratios over a sweep of one dimension: a row per shape and a summary."""
    lines: list[str] = []
    for (candidate, baseline), items in _pairs(comparisons).items():
        columns = [
            TextColumn("", "block × batch", tuple(shape_text(i).replace(NO_BREAK, " ") for i in items)),
            TextColumn("", "time", tuple(ratio_text(i.ratio) for i in items)),
            TextColumn("", "interval", tuple(range_text(i.low, i.high) for i in items)),
            TextColumn("", "verdict", tuple(i.verdict for i in items), left=True),
        ]
        lines += [f"  {candidate}'s time over {baseline}'s", *render(columns, width)]
        lines += wrapped(f"  {_summary(candidate, baseline, items)}", width, "    ")
    return lines


def _pairs(comparisons: Sequence[Comparison]) -> dict[tuple[str, str], list[Comparison]]:
    pairs: dict[tuple[str, str], list[Comparison]] = {}
    for item in comparisons:
        pairs.setdefault((layout_name(item.candidate), layout_name(item.baseline)), []).append(item)
    return pairs


def _summary(candidate: str, baseline: str, items: Sequence[Comparison]) -> str:
    counts = Counter(item.verdict for item in items)
    verdicts = ", ".join(
        f"{word} in {counts[word]}" for word in ("faster", "no difference", "slower", "undecided") if counts[word]
    )
    worst, best = max(items, key=lambda item: item.ratio), min(items, key=lambda item: item.ratio)
    return (
        f"{candidate} against {baseline}, {many(len(items), 'shape')}: {verdicts}; "
        f"from {ratio_text(best.ratio)} at {shape_text(best)} "
        f"to {ratio_text(worst.ratio)} at {shape_text(worst)}"
    )


def shape_text(item: Comparison | StepResult) -> str:
    """Return block size and batch with no-break spaces: `2 MiB × 16`."""
    return f"{size_text(item.block_bytes)} × {count_text(item.batch)}".replace(" ", NO_BREAK)


def _grid(shapes: Sequence[Shape], width: int, cells: Mapping[Shape, str]) -> list[str]:
    """Return the cells as a table; batches that don't fit the width follow in another table below."""
    sizes, batches = sorted({s for s, _ in shapes}), sorted({b for _, b in shapes})
    names = TextColumn("", "block", tuple(size_text(size) for size in sizes))
    columns = [
        TextColumn("", f"× {count_text(batch)}", tuple(cells.get((size, batch), UNKNOWN) for size in sizes))
        for batch in batches
    ]
    lines: list[str] = []
    while columns:
        count = 1
        while count < len(columns) and table_width([names, *columns[: count + 1]]) <= width:
            count += 1
        lines += render([names, *columns[:count]], width)
        columns = columns[count:]
    return lines


def _rate(result: StepResult) -> str:
    if result.gb_per_s is None:
        return UNKNOWN
    return figure(result.gb_per_s.median) + ("" if result.status == "ok" and result.verified is not False else " !")


def _times(result: StepResult) -> str:
    if result.post_us is None or result.transfer_us is None:
        return UNKNOWN
    return f"{figure(result.post_us.p50)} + {figure(result.transfer_us.p50)}"


def _ratio(item: Comparison) -> str:
    return ratio_text(item.ratio) + {"no difference": "~", "undecided": "?"}.get(item.verdict, " ")
