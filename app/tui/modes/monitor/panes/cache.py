"""Reuse pane: per source its request queue, prompt tokens by origin as a stacked bar, and hit rates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.cells import cell_len

from kvdeck.app.text.monitor_names import age_text, source_name
from kvdeck.app.tui.modes.monitor.cache_figures import (
    COMPUTED,
    Hits,
    Numbers,
    PromptOrigin,
    PromptPart,
    Queue,
    hits,
    origins,
    queues,
)
from kvdeck.app.tui.modes.monitor.panes.panel import Panel, said
from kvdeck.app.tui.widgets.lines import Row, Span, cell
from kvdeck.sessions.units import count_text, percent_text, plain_text, quantity_text

if TYPE_CHECKING:
    from kvdeck.app.tui.export import Table

_GLYPHS = {"G1": "█", "G2": "▒", "G3": "▚", "G4": "○", "remote": "◆", "": "░"}
"""By tier; each maps to a different ASCII character, so tiers are distinct without colour."""
LABEL = 9


class Reuse(Panel):
    """A few rows per source, in the order of the sources."""

    title = "Reuse and queue"

    def note(self) -> str:
        return "since start · now"

    def body(self, width: int, height: int) -> list[Row]:
        numbers = Numbers(self.view.moment)
        rows: list[Row] = []
        found_queues, found_origins, found_hits = queues(numbers), origins(numbers), hits(numbers)
        for source in numbers.sources:
            mine = [origin for origin in found_origins if origin.source == source]
            found = [hit for hit in found_hits if hit.source == source]
            queue = next((queue for queue in found_queues if queue.source == source), None)
            age = self.view.age(source)
            head = _head_row(source, queue, width) if age is None else _stale_row(source, age, width)
            headed = queue is not None or bool(mine) or age is not None
            if headed:
                rows.append(head)
            for origin in mine:
                rows += _origin_rows(origin, width)
            label = cell("   hits", LABEL + 1) if headed else head[0]
            rows += _hit_rows(found, label, width)
        return rows or [said("No engine reports cache hits or its queue yet", width)]

    def table(self) -> Table:
        from kvdeck.app.tui.export import Table

        numbers = Numbers(self.view.moment)
        rows = [
            (
                source_name(origin.source),
                f"{origin.what} {part.name}",
                plain_text(part.total, 0),
                plain_text(origin.total, 0),
            )
            for origin in origins(numbers)
            for part in origin.parts
        ]
        rows += [(source_name(hit.source), f"hits {hit.what}", _plain(hit), _whole(hit.of)) for hit in hits(numbers)]
        for queue in queues(numbers):
            words = (_FLIGHT_WORDS if queue.in_flight else _WORDS)[0]
            for what, value in zip(words, (queue.running, queue.waiting, queue.preempted), strict=True):
                rows.append((source_name(queue.source), what, _whole(value), ""))
        return Table("reuse", ("source", "what", "value", "of"), tuple(rows))


def _whole(value: float | None) -> str:
    return plain_text(value, 0)


def _plain(hit: Hits) -> str:
    return _whole(hit.hits) if hit.hits is not None else plain_text(hit.share, 4)


def _stale_row(source: str, age: float, width: int) -> Row:
    """Return the head of a source that doesn't answer: what runs or waits there now is unknown."""
    name = f" {source_name(source)}"
    first = cell(name, max(LABEL + 1, min(len(name) + 2, 26)), "!")
    return (first, cell(f"no answer, values {age_text(age)}", max(0, width - len(first[0])), "bad"))


def _head_row(source: str, queue: Queue | None, width: int) -> Row:
    text = f" {source_name(source)}"
    name = cell(text, max(LABEL + 1, min(len(text) + 2, 26)), "!")
    words = _FLIGHT_WORDS if queue is not None and queue.in_flight else _WORDS
    spelled = [] if queue is None else [_queue_spans(queue, found) for found in words]
    fitting = (counts for counts in spelled if _width(counts) <= width - len(name[0]))
    counts = next(fitting, spelled[-1] if spelled else [])
    name = cell(text, max(LABEL + 1, min(len(name[0]), width - _width(counts))), "!")
    used = len(name[0]) + _width(counts)
    return (name, *counts, cell("", max(0, width - used)))


_WORDS = (("running", "waiting", "preempted"), ("run", "wait", "preempt"), ("r", "w", "p"))
"""Words for the counts of a queue, from the longest to the shortest."""
_FLIGHT_WORDS = (("in flight", "queued", "preempted"), ("flight", "queue", "preempt"), ("f", "q", "p"))
"""Words for a queue whose requests in flight hold the waiting ones."""


def _queue_spans(queue: Queue, words: tuple[str, str, str]) -> list[Span]:
    running, waiting, preempted = words
    rate = f" +{count_text(queue.preempted_per_s)}/s" if queue.preempted_per_s else ""
    run, wait = f"{running} {count_text(queue.running)}", f"{waiting} {count_text(queue.waiting)}"
    return [
        cell(run, max(len(run) + 2, len(running) + 7), "" if queue.running else "dim"),
        cell(wait, max(len(wait) + 2, len(waiting) + 7), "warn" if queue.waiting else "dim"),
        (f"{preempted} {count_text(queue.preempted)}{rate}", "warn" if rate else "dim"),
    ]


def _width(spans: list[Span]) -> int:
    return sum(cell_len(text) for text, _ in spans)


def _origin_rows(origin: PromptOrigin, width: int) -> list[Row]:
    total = origin.total
    right = cell(quantity_text(total, "tokens"), 15, right=True)
    room = max(8, width - LABEL - 18)
    bar: list[Span] = []
    used, reached = 0, 0.0
    for part in origin.parts:
        reached += part.total
        cells = round(reached / total * room) - used if total else 0
        if cells > 0:
            bar.append((_GLYPHS[part.tier] * cells, _tone(part)))
            used += cells
    if used < room:
        bar.append(("·" * (room - used), "rule"))
    return [(cell("   prompt", LABEL + 1), *bar, right), *_part_rows(origin, width)]


def _part_rows(origin: PromptOrigin, width: int) -> list[Row]:
    parts: list[list[Span]] = []
    for part in origin.parts:
        if part.total:
            share = percent_text(part.total / origin.total)
            now = f" +{count_text(part.per_s)}/s" if part.per_s else ""
            parts.append([(f"{_GLYPHS[part.tier]} ", _tone(part)), (f"{part.name} {share}{now}", "")])
    none = [part.name for part in origin.parts if not part.total]
    # What is 0 is the least to know: it takes no row of its own.
    rows = _flowed(parts, cell("", LABEL + 1), width)
    room = width - _width(list(rows[-1]))
    return [*rows[:-1], (*rows[-1], cell(f"0: {', '.join(none)}" if none else "", max(0, room), "dim"))]


def _flowed(parts: list[list[Span]], label: Span, width: int) -> list[Row]:
    """Return rows with as many parts each as fit, the first one after a label."""
    rows: list[list[Span]] = [[label]]
    used = cell_len(label[0])
    for part in (_cut(part, width - LABEL - 1) for part in parts):
        length = _width(part)
        if used + length > width and used > LABEL + 1:
            rows.append([cell("", LABEL + 1)])
            used = LABEL + 1
        rows[-1] += [*part, ("  ", "")]
        used += length + 2
    return [tuple(row) for row in rows]


def _tone(part: PromptPart) -> str:
    return f"tier:{part.tier}" if part.tier else "dim" if part.name == COMPUTED else ""


def _hit_rows(found: list[Hits], label: Span, width: int) -> list[Row]:
    """Return hit rates after a label, as many per row as fit. `(window)` marks a source's own sliding-window rate."""
    none = [hit.what for hit in found if hit.of is None and hit.share == 0]
    room = width - LABEL - 1
    parts = [_hit_spans(hit, room) for hit in found if hit.what not in none]
    if none:
        parts.insert(len(parts) - 1, [(f"0 %: {', '.join(none)}", "dim")])
    if not parts:
        return []
    return _flowed(parts, label, width)


def _cut(part: list[Span], room: int) -> list[Span]:
    """Return a part whose last text is cut so that it fits."""
    *first, (text, tone) = part
    left = room - _width(first)
    return part if cell_len(text) <= left else [*first, cell(text, max(1, left), tone)]


def _hit_spans(hit: Hits, room: int) -> list[Span]:
    """Return the spans of a hit rate in at most `room` columns: without its base, or with its name cut, if need be."""
    share = percent_text(hit.share)
    value, tone = (count_text(hit.hits), hit.hits) if hit.of is None and hit.hits is not None else (share, hit.share)
    last: list[Span] = [(value, "!" if tone else "dim")]
    base: list[Span] = []
    if hit.of is not None:
        base = [(f" of {quantity_text(hit.of, hit.unit)}", "dim")]
    elif hit.hits is None:
        base = [(" (window)", "dim")]
    now: list[Span] = [] if hit.now is None else [(f", now {percent_text(hit.now)}", "ok" if hit.now else "dim")]
    name = f"{hit.what} "
    for spans in ([(name, ""), *last, *base, *now], [(name, ""), *last, *now]):
        if _width(spans) <= room:
            return spans
    return [cell(name, max(1, room - _width([*last, *now]))), *last, *now]
