"""Where KV came from as stacked bars, hit rates with what they are out of, and who waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvdeck.app.monitoring.reuse import COMPUTED, Hits, Origin, Part, Queue, hits, origins, queues
from kvdeck.app.monitoring.words import UNKNOWN, counted, source_name
from kvdeck.app.widgets.lines import Row, Span, cell
from kvdeck.app.widgets.monitor.panel import Panel, said

if TYPE_CHECKING:
    from kvdeck.app.sharing import Table

_GLYPHS = {"G1": "█", "G2": "▓", "G3": "▒", "G4": "▚", "remote": "■", "": "░"}
LABEL = 22


class Reuse(Panel):
    """Three parts, each with a row a source."""

    title = "Reuse"

    def note(self) -> str:
        return "since each engine began"

    def body(self, width: int, height: int) -> list[Row]:
        moment = self.view.moment
        rows: list[Row] = []
        for origin in origins(moment):
            rows += _origin_rows(origin, width)
        found = hits(moment)
        if found:
            rows += [said("hits", width, "!dim"), *(_hit_row(hit, width) for hit in found)]
        waiting = queues(moment)
        if waiting:
            rows += [said("queue", width, "!dim"), *(_queue_row(queue, width) for queue in waiting)]
        return rows or [said("no source says what was found again, or who waits", width)]

    def table(self) -> Table:
        from kvdeck.app.sharing import Table

        moment = self.view.moment
        rows = [
            (source_name(origin.source), f"{origin.what} {part.name}", f"{part.total:.0f}", f"{origin.total:.0f}")
            for origin in origins(moment)
            for part in origin.parts
        ]
        rows += [
            (source_name(hit.source), f"hits {hit.what}", _plain(hit.hits), _plain(hit.of)) for hit in hits(moment)
        ]
        for queue in queues(moment):
            for what, value in (("running", queue.running), ("waiting", queue.waiting), ("preempted", queue.preempted)):
                rows.append((source_name(queue.source), what, _plain(value), ""))
        return Table("reuse", ("source", "what", "value", "of"), tuple(rows))


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"


def _origin_rows(origin: Origin, width: int) -> list[Row]:
    total = origin.total
    label = cell(f" {origin.what} {source_name(origin.source)}", LABEL)
    right = cell(counted(total, "tokens"), 15, right=True)
    room = max(8, width - LABEL - 16)
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
    return [(label, *bar, right), _part_row(origin, width)]


def _part_row(origin: Origin, width: int) -> Row:
    spans: list[Span] = [("   ", "")]
    none = [part.name for part in origin.parts if not part.total]
    for part in origin.parts:
        if part.total:
            share = f"{part.total / origin.total * 100:.0f} %"
            now = f" +{counted(part.per_s)}/s" if part.per_s else ""
            spans += [(f"{_GLYPHS[part.tier]} ", _tone(part)), (f"{part.name} {share}{now}  ", "")]
    used = sum(len(text) for text, _ in spans)
    zero = f"0: {', '.join(none)}" if none else ""
    return (*spans, cell(zero, max(0, width - used), "dim"))


def _tone(part: Part) -> str:
    return f"tier:{part.tier}" if part.tier else "dim" if part.name == COMPUTED else ""


def _hit_row(hit: Hits, width: int) -> Row:
    share = UNKNOWN if hit.share is None else f"{hit.share * 100:.1f} %"
    if hit.of is not None and hit.hits is not None:
        text = f"{counted(hit.hits)} of {counted(hit.of, hit.unit)}"
    elif hit.hits is not None:
        text = counted(hit.hits, hit.unit)
    else:
        text = "a sliding window: it doesn't say of how many"
    now = "" if hit.of is None else f"now {UNKNOWN if hit.now is None else f'{hit.now * 100:.0f} %'}"
    spans = [
        cell(f"   {hit.what} {source_name(hit.source)}", LABEL),
        cell(share, 8, "!" if hit.share else "dim", right=True),
        cell(f"  {text}", max(0, width - LABEL - 8 - 10), "" if hit.of else "dim"),
        cell(now, 9, "ok" if hit.now else "dim", right=True),
    ]
    return tuple(spans)


def _queue_row(queue: Queue, width: int) -> Row:
    def amount(value: float | None) -> str:
        return UNKNOWN if value is None else counted(value)

    rate = f" +{counted(queue.preempted_per_s)}/s" if queue.preempted_per_s else ""
    tone = "warn" if queue.preempted_per_s else ""
    return (
        cell(f"   {source_name(queue.source)}", LABEL),
        cell(f"running {amount(queue.running)}", 14, "ok" if queue.running else "dim"),
        cell(f"waiting {amount(queue.waiting)}", 14, "warn" if queue.waiting else "dim"),
        cell(f"preempted {amount(queue.preempted)}{rate}", max(0, width - LABEL - 28), tone or "dim"),
    )
