"""The headline: four tiles, or one line of them where there is little room."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len

from kvdeck.app.text.monitor_names import short, source_name
from kvdeck.app.tui.modes.monitor.headline import (
    Moved,
    Reused,
    Waiting,
    is_computed,
    offloaded,
    onboarded,
    reused,
    waiting,
)
from kvdeck.app.tui.modes.monitor.served_figures import quantile
from kvdeck.app.tui.modes.monitor.sparks import most, spark
from kvdeck.app.tui.modes.monitor.view import View
from kvdeck.app.tui.widgets.lines import Lines, Row, Span, cell
from kvdeck.sessions.units import count_text, many, percent_text, quantity_text, rate_text

if TYPE_CHECKING:
    from kvdeck.app.tui.export import Table

HEIGHT = 4
_GLYPHS = {"G1": "█", "G2": "▒", "G3": "▚", "G4": "○", "remote": "◆", "": "░"}


class Tiles(Lines):
    """Offload, onboard, reused and queue; each with what its figure is a sum over."""

    DEFAULT_CSS = "Tiles { height: 4; }"
    blanks_follow = True

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.view = View()

    def apply(self, view: View) -> None:
        """Show a view."""
        self.view = view
        self.redraw()

    def rows(self, width: int, height: int) -> list[Row]:
        moment = self.view.moment
        moved = offloaded(moment), onboarded(moment)
        reuse, queue = reused(moment), waiting(moment)
        if height < HEIGHT:
            return [_line(*moved, reuse, queue, width)]
        gap = 1
        each = (width - 3 * gap) // 4
        widths = [each, each, each, width - 3 * (each + gap)]
        titles = (
            ("OFFLOAD", "out of G1", over(moved[0])),
            ("ONBOARD", "into G1", over(moved[1])),
            ("REUSED", "prompt tokens", _over_engines(reuse.over, reuse.down)),
            ("QUEUE", "requests", _over_engines(queue.over, queue.down, "frontend" if queue.in_flight else "engine")),
        )
        bodies = (
            *(self._moved(one, wide - 4, "tier:G2" if one is moved[0] else "tier:G1")
              for one, wide in zip(moved, widths, strict=False)),
            _reused(reuse, widths[2] - 4),
            self._queue(queue, widths[3] - 4),
        )  # fmt: skip
        rows: list[list[Span]] = [[] for _ in range(HEIGHT)]
        for place, ((title, note, foot), body, wide) in enumerate(zip(titles, bodies, widths, strict=True)):
            if place:
                for row in rows:
                    row.append((" " * gap, ""))
            _frame(rows, title, note, foot, body, wide)
        return [tuple(row) for row in rows]

    def _moved(self, moved: Moved, room: int, tone: str) -> list[list[Span]]:
        if not moved.flows:
            return [[("–", "dim"), ("  no source counts it" if not moved.down else "", "dim")], []]
        now = rate_text(moved.per_s) if moved.unit == "B" else quantity_text(moved.per_s, "bl/s")
        values = self.view.rates.sum_cells(moved.flows, self.view.now, room)
        peak = most(values)
        said = "" if peak is None else rate_text(peak) if moved.unit == "B" else quantity_text(peak, "bl/s")
        right = [("peak ", "dim"), (said, "")] if said else []
        left: list[Span] = [(now, f"!{tone}" if moved.per_s else "!dim")]
        return [_apart(left, right, room), [(spark(values), tone if moved.per_s else "dim")]]

    def _queue(self, queue: Waiting, room: int) -> list[list[Span]]:
        if not queue.over:
            return [[("–", "dim"), ("  no engine counts it" if not queue.down else "", "dim")], []]
        running = "in flight" if queue.in_flight else "running"
        left: list[Span] = [(count_text(queue.running), "!"), (f" {running}", "")]
        right: list[Span] = [
            (f"{count_text(queue.waiting)} waiting", "!warn" if queue.waiting else "dim"),
            (" ▲" if queue.waiting else "", "warn"),
        ]
        return [_apart(left, right, room), self._below_queue(queue, room)]

    def _below_queue(self, queue: Waiting, room: int) -> list[Span]:
        rate = queue.preempted_per_s
        late = [(f"{count_text(rate)} preempted/s", "warn")] if rate else []
        if queue.ttft is None:
            return late
        left: list[Span] = [("TTFT p50 ", "dim"), (quantile(queue.ttft, 50), "!")]
        where = [(source_name(queue.ttft.source), "dim")] if queue.over > 1 or queue.in_flight else []
        p99: list[Span] = [("p99 ", "dim"), (quantile(queue.ttft, 99), ""), *([(" ", ""), *where] if where else [])]
        for right in ((*late, *p99), late or where or p99, ()) if not late else (late, ()):
            if sum(cell_len(text) for text, _ in (*left, *right)) < room:
                return _apart(left, list(right), room)
        return left

    def table(self) -> Table:
        from kvdeck.app.tui.export import Table

        moment = self.view.moment
        reuse, queue = reused(moment), waiting(moment)
        rows = [
            (name, _moved_now(moved), over(moved))
            for name, moved in (("offload out of G1", offloaded(moment)), ("onboard into G1", onboarded(moment)))
        ]
        rows += [
            ("reused prompt tokens", percent_text(reuse.share), many(reuse.over, "engine")),
            ("running requests", count_text(queue.running), many(queue.over, "engine")),
            ("waiting requests", count_text(queue.waiting), many(queue.over, "engine")),
        ]
        return Table("headline", ("what", "now", "over"), tuple(rows))


def over(moved: Moved) -> str:
    """Return what a sum is over, and what it lacks: `sum of 2 flows; 1 in blocks`."""
    names = [short(flow.name) for flow in moved.flows]
    parts = [names[0] if len(names) == 1 else f"sum of {many(len(names), 'flow')}"] if names else []
    if moved.down:
        parts.append(_down(moved.down))
    if moved.unknown:
        parts.append(f"{moved.unknown} without a rate")
    if moved.other:
        parts.append(f"{moved.other} in {'blocks' if moved.unit == 'B' else 'bytes'}")
    return "; ".join(parts)


def _moved_now(moved: Moved) -> str:
    return rate_text(moved.per_s) if moved.unit == "B" else quantity_text(moved.per_s, "blocks/s")


def _down(count: int) -> str:
    return f"without {count_text(count)} down"


def _over_engines(count: int, down: int, noun: str = "engine") -> str:
    parts = [f"sum of {many(count, noun)}" if count > 1 else many(count, noun)] if count else []
    return "; ".join([*parts, *([_down(down)] if down else [])])


def _frame(rows: list[list[Span]], title: str, note: str, foot: str, body: Sequence[list[Span]], width: int) -> None:
    """Append a tile's four rows: a frame with its title, what it is about and what it is over; two rows inside."""
    inner = width - 2
    left, right = f"─ {title} ", f" {note} ─" if note else "─"
    if cell_len(left) + cell_len(right) > inner:
        right = "─"
    rule = "─" * max(0, inner - cell_len(left) - cell_len(right))
    rows[0] += [("╭─ ", "rule"), (title, "!"), (f" {rule}", "rule"), (right[:-1], "dim"), (f"{right[-1:]}╮", "rule")]
    for row, spans in zip(rows[1:3], body, strict=True):
        used = sum(cell_len(text) for text, _ in spans)
        row += [("│ ", "rule"), *spans, (" " * max(0, inner - 2 - used), ""), (" │", "rule")]
    if not foot:
        rows[3].append((f"╰{'─' * inner}╯", "rule"))
        return
    name = cell(foot, min(cell_len(foot), inner - 4), "warn" if "down" in foot else "dim")
    rows[3] += [("╰─ ", "rule"), name, (f" {'─' * (inner - 3 - cell_len(name[0]))}╯", "rule")]


def _apart(left: list[Span], right: list[Span], room: int) -> list[Span]:
    """Return spans at both ends of the room; only the left ones if both don't fit."""
    used = sum(cell_len(text) for text, _ in (*left, *right))
    return [*left, (" " * (room - used), ""), *right] if used < room else left


def _reused(reuse: Reused, room: int) -> list[list[Span]]:
    if not reuse.over:
        return [[("–", "dim"), ("" if reuse.down else "  no engine counts it", "dim")], []]
    if reuse.share is not None:
        left: list[Span] = [(percent_text(reuse.share), "!ok" if reuse.share else "!")]
        amounts = f"{_tokens(reuse.reused_per_s)} of {_tokens(reuse.prompt_per_s)}/s"
        right: list[Span] = [(amounts, "dim")]
    else:
        left = [("–", "!dim"), (" no prompt now", "dim")]
        right = [(f"{percent_text(reuse.whole)} since start", "dim")] if reuse.whole is not None else []
        if sum(cell_len(text) for text, _ in (*left, *right)) >= room:
            left = left[:1]
    return [_apart(left, right, room), _origin_bar(reuse, room)]


def _tokens(value: float | None) -> str:
    if value is None:
        return "–"
    return count_text(round(value)) if value < 100_000 else f"{count_text(round(value / 1000))}k"


def _origin_bar(reuse: Reused, room: int) -> list[Span]:
    """Return the origins as a stacked bar, the computed part last."""
    parts = sorted(reuse.parts, key=lambda part: is_computed(part[0]))
    total = sum(amount for _, _, amount in parts)
    if not total:
        return []
    spans: list[Span] = []
    used, reached = 0, 0.0
    for name, tier, amount in parts:
        reached += amount
        cells = round(reached / total * room) - used
        if cells > 0:
            glyph = "▌" if not tier and not is_computed(name) else _GLYPHS[tier]
            spans.append((glyph * cells, f"tier:{tier}" if tier else "dim" if is_computed(name) else "ok"))
            used += cells
    return spans


def _line(out: Moved, into: Moved, reuse: Reused, queue: Waiting, width: int) -> Row:
    """Return all four figures as one line."""
    parts: list[tuple[str, str, str]] = [
        ("out", _moved_now(out).replace("blocks", "bl"), "!" if out.per_s else "dim"),
        ("in", _moved_now(into).replace("blocks", "bl"), "!" if into.per_s else "dim"),
        ("reused", percent_text(reuse.share), "!" if reuse.share else "dim"),
        ("run" if not queue.in_flight else "in flight", count_text(queue.running), "!" if queue.running else "dim"),
        ("wait", f"{count_text(queue.waiting)}{'▲' if queue.waiting else ''}", "warn" if queue.waiting else "dim"),
    ]
    if queue.ttft is not None:
        parts.append(("TTFT", quantile(queue.ttft, 50), "!"))
    spans: list[Span] = []
    for name, text, tone in parts:
        spans += [(f" {name} ", "dim"), (f"{text} ", tone)]
    used = sum(cell_len(text) for text, _ in spans)
    return (*spans, (" " * max(0, width - used), ""))
