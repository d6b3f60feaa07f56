"""Engines pane: a row per engine with its queue, where its prompt tokens came from, and its hit rates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvdeck.app.text.monitor_names import age_text, source_name
from kvdeck.app.tui.modes.monitor.cache_figures import Hits, PromptPart
from kvdeck.app.tui.modes.monitor.engine_figures import EngineRow, engine_rows
from kvdeck.app.tui.modes.monitor.headline import is_computed
from kvdeck.app.tui.modes.monitor.panes.panel import Panel, said
from kvdeck.app.tui.modes.monitor.served_figures import quantile
from kvdeck.app.tui.widgets.lines import Row, Span, cell
from kvdeck.sessions.units import count_text, percent_text, plain_text

if TYPE_CHECKING:
    from kvdeck.app.tui.export import Table

_GLYPHS = {"G1": "█", "G2": "▒", "G3": "▚", "G4": "○", "remote": "◆", "": "░"}
"""By tier; each maps to a different ASCII character, so tiers are distinct without colour."""
_RATE, _COUNT, _SHARE, _TIME = 9, 6, 9, 10


class Engines(Panel):
    """Shares are of the last interval; those of the time since the engine's start are dim."""

    title = "Engines: where prompt tokens came from"

    def body(self, width: int, height: int) -> list[Row]:
        rows = engine_rows(self.view.moment)
        if not rows:
            return [said("No engine reports its queue or where its tokens came from yet", width)]
        name = min(26, max(14, *(len(_name(row)) + 2 for row in rows)))
        # Latencies have columns where some engine counts them; a narrow pane keeps those of the first token.
        timed = any(row.ttft or row.itl for row in rows)
        times = () if not timed else ("TTFT p50", "p99", "ITL p50") if width >= 110 else ("TTFT p50", "p99")
        failing = any(row.failed_per_s is not None for row in rows) and width >= 110
        bar = width - name - 2 * _COUNT - _RATE - 2 * _SHARE - 2 - _TIME * (len(times) + failing)
        titles = (
            cell("", name), cell("run", _COUNT, "dim", right=True), cell("wait", _COUNT, "dim", right=True),
            cell("  prompt by origin", bar + 2, "dim"), cell("tokens/s", _RATE, "dim", right=True),
            cell("prefix", _SHARE, "dim", right=True), cell("external", _SHARE, "dim", right=True),
            *(cell(title, _TIME, "dim", right=True) for title in times),
            *([cell("failed/s", _TIME, "dim", right=True)] if failing else []),
        )  # fmt: skip
        key = self._key(rows, width)
        return [titles, *(self._row(row, name, bar, len(times), failing) for row in rows), *([key] if key else [])]

    def _row(self, row: EngineRow, name: int, bar: int, times: int, failing: bool) -> Row:
        stale = row.age_s is not None
        first = cell(f" {_name(row)}", name, "dim" if stale else "!")
        if row.age_s is not None:
            # What runs or waits there now is unknown, and what it answered before is no news of now.
            rest = bar + 2 + 2 * _COUNT + _RATE + 2 * _SHARE + _TIME * (times + failing)
            return (first, cell(f"  no answer, values {age_text(row.age_s)}", rest, "bad"))
        queue = row.queue
        running, waiting = (None, None) if queue is None else (queue.running, queue.waiting)
        return (
            first,
            cell(count_text(running), _COUNT, "" if running else "dim", right=True),
            cell(count_text(waiting), _COUNT, "warn" if waiting else "dim", right=True),
            ("  ", ""),
            *self._origins(row, bar),
            cell(_tokens(row.per_s), _RATE, "" if row.per_s else "dim", right=True),
            *(_hit_cell(hit) for hit in (row.prefix, row.external)),
            *[
                cell(quantile(row.ttft, 50), _TIME, "!" if row.ttft else "dim", right=True),
                cell(quantile(row.ttft, 99), _TIME, "" if row.ttft else "dim", right=True),
                cell(quantile(row.itl, 50), _TIME, "" if row.itl else "dim", right=True),
            ][:times],
            *(
                [cell(count_text(row.failed_per_s), _TIME, "bad" if row.failed_per_s else "dim", right=True)]
                if failing
                else []
            ),
        )

    def _origins(self, row: EngineRow, width: int) -> list[Span]:
        if not row.parts:
            return [cell(_windows(row.tiers), width)]
        lately = [part for part in row.parts if part.per_s]
        amounts = [(part, part.per_s or 0.0) for part in lately] or [(part, part.total) for part in row.parts]
        total = sum(amount for _, amount in amounts)
        spans: list[Span] = []
        used, reached = 0, 0.0
        for part, amount in amounts:
            reached += amount
            cells = (round(reached / total * width) if total else 0) - used
            if cells > 0:
                spans.append((_glyph(part) * cells, _tone(part) if lately else "dim"))
                used += cells
        return [*spans, ("·" * (width - used), "rule")] if used < width else spans

    def _key(self, rows: list[EngineRow], width: int) -> Row:
        """Return a row that says what the bars' parts are."""
        seen = {(part.name, part.tier): part for row in rows if row.age_s is None for part in row.parts if part.total}
        if not seen:
            return ()
        spans: list[Span] = [("  ", "")]
        for part in seen.values():
            spans += [(f"{_glyph(part)} ", _tone(part)), (f"{part.name}  ", "dim")]
        used = sum(len(text) for text, _ in spans)
        return (*spans, cell("dim: nothing now, since the engine started", max(0, width - used), "dim"))

    def table(self) -> Table:
        from kvdeck.app.tui.export import Table

        rows = tuple(
            (
                source_name(row.source),
                row.kind,
                *(plain_text(None if row.queue is None else value, 0) for value in _queue(row)),
                plain_text(row.per_s, 0),
                *("" if hit is None else plain_text(hit.share, 4) for hit in (row.prefix, row.external)),
                *("" if one is None else plain_text(one.p50, 6) for one in (row.ttft, row.itl)),
                plain_text(row.failed_per_s, 3),
            )
            for row in engine_rows(self.view.moment)
        )
        titles = ("source", "kind", "running", "waiting", "prompt_tokens_per_s", "prefix", "external",
                  "ttft_p50_s", "itl_p50_s", "failed_per_s")  # fmt: skip
        return Table("engines", titles, rows)


def _windows(found: tuple[Hits, ...]) -> str:
    """Return hit rates of the exporter's own window, those of 0 together at the end."""
    some = [f"{hit.what} {percent_text(hit.share)}" for hit in found if hit.share]
    none = [hit.what for hit in found if hit.share == 0]
    parts = [*some, *([f"0 %: {', '.join(none)}"] if none else [])]
    return f"{'  '.join(parts)} (its window)" if parts else ""


def _queue(row: EngineRow) -> tuple[float | None, float | None]:
    return (None, None) if row.queue is None else (row.queue.running, row.queue.waiting)


def _name(row: EngineRow) -> str:
    return f"{source_name(row.source)} {row.kind}"


def _glyph(part: PromptPart) -> str:
    # A frontend knows that tokens were cached, and not in which tier.
    return "▌" if not part.tier and not is_computed(part.name) else _GLYPHS[part.tier]


def _tone(part: PromptPart) -> str:
    return f"tier:{part.tier}" if part.tier else "dim" if is_computed(part.name) else ""


def _tokens(value: float | None) -> str:
    return "–" if value is None else f"{count_text(round(value))}"


def _hit_cell(hit: Hits | None) -> Span:
    """Return a hit rate: the last interval's, else dim that of the whole time."""
    if hit is None:
        return cell("–", _SHARE, "dim", right=True)
    if hit.now is not None:
        return cell(percent_text(hit.now), _SHARE, "ok" if hit.now else "", right=True)
    return cell(percent_text(hit.share), _SHARE, "dim", right=True)
