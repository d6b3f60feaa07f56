"""Served pane: per engine its latencies, how requests ended, who waits for what, and each tier's hits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.cells import cell_len

from kvdeck.app.text.monitor_names import age_text, source_name
from kvdeck.app.tui.modes.monitor.panes.panel import Panel, said
from kvdeck.app.tui.modes.monitor.served_figures import (
    TIMES,
    TITLES,
    EngineService,
    counts_text,
    engine_services,
    quantile,
)
from kvdeck.app.tui.widgets.lines import Row, Span, cell
from kvdeck.engine.telemetry.service import Service, TierHits
from kvdeck.sessions.units import count_text, percent_text, plain_text, quantity_text

if TYPE_CHECKING:
    from kvdeck.app.tui.export import Table

_LABEL, _TIME = 12, 9


class ServedEngines(Panel):
    """Quantiles are interpolated within a bucket of the engine's histogram: the true one lies in that bucket."""

    title = "Served"

    def note(self) -> str:
        windows = {one.over_s for one in self.view.moment.latencies}
        known = [seconds for seconds in windows if seconds is not None]
        over = f"last {count_text(round(max(known)))} s" if known else "since the engines started" if windows else ""
        return " · ".join(part for part in (over, "by bucket interpolation" if windows else "") if part)

    def body(self, width: int, height: int) -> list[Row]:
        rows: list[Row] = []
        for engine in engine_services(self.view.moment):
            rows += self._engine(engine, width)
        return rows or [said("No engine counts latencies or requests yet", width)]

    def _engine(self, engine: EngineService, width: int) -> list[Row]:
        name = " ".join(part for part in (source_name(engine.source), engine.member, engine.kind) if part)
        age = self.view.age(engine.source)
        if age is not None:
            text = f" no answer, values {age_text(age)}"
            return [(cell(f" {name}", min(width, 30), "!"), cell(text, max(0, width - 30), "bad"))]
        rows: list[Row] = []
        known = [what for what in TIMES if what in engine.latencies]
        if "itl" in known and "tpot" in known and len(known) > (width - _LABEL) // _TIME:
            known.remove("tpot")  # the mean of what ITL counts one by one
        known = known[: (width - _LABEL) // _TIME]
        state = engine.service.state if engine.service is not None else ""
        tail = f" {state}" if state in ("sleeping", "down") else ""
        if known:
            room = _LABEL if len(name) + 2 <= _LABEL else 0
            if not room:
                rows.append((cell(f" {name}{tail}", width, "!"),))
            rows.append(
                (cell(f" {name}" if room else "", _LABEL, "!"),
                 *(cell(TITLES[what], _TIME, "dim", right=True) for what in known))
            )  # fmt: skip
            for percent in (50, 95, 99):
                rows.append(
                    (cell(f"   p{percent}", _LABEL, "dim"),
                     *(cell(quantile(engine.latencies[what], percent), _TIME, "!" if percent == 50 else "", right=True)
                       for what in known))
                )  # fmt: skip
        else:
            rows.append((cell(f" {name}{tail}", width, "!"),))
        if engine.service is not None:
            rows += _service_rows(engine.service, width, self.view.kv_limit)
        if engine.tiers:
            rows += _flowed("   hits", [_hits(one) for one in engine.tiers], width)
        return rows

    def table(self) -> Table:
        from kvdeck.app.tui.export import Table

        rows = tuple(
            (
                source_name(one.source), one.member, one.what, one.unit, plain_text(one.count, 0),
                *(plain_text(value) for value in (one.p50, one.p95, one.p99, one.mean, one.over_s)),
            )
            for one in self.view.moment.latencies
        )  # fmt: skip
        titles = ("source", "engine", "what", "unit", "count", "p50", "p95", "p99", "mean", "over_s")
        return Table("served", titles, rows)


def _service_rows(service: Service, width: int, kv_limit: float) -> list[Row]:
    """Return requests by how they ended, tokens, and who waits for what; nothing for what isn't counted."""
    parts: list[list[Span]] = []
    if service.finished_per_s is not None or service.finished:
        ended = counts_text(service.finished)
        rate = "–" if service.finished_per_s is None else f"{count_text(service.finished_per_s)}/s"
        parts.append([(f"{rate} finished", ""), (f" ({ended})" if ended else "", "dim")])
    for name, value in (("failed", service.failed_per_s), ("aborted", service.aborted_per_s)):
        if value is not None:
            tone = "dim" if not value else "bad" if name == "failed" else ""
            parts.append([(f"{count_text(value)}/s {name}", tone)])
    if service.preempted_per_s:
        parts.append([(f"{count_text(service.preempted_per_s)}/s preempted", "warn")])
    rows = _flowed("   requests", parts, width) if parts else []
    tokens = [
        [(f"{count_text(round(value))}/s {way}", "" if value else "dim")]
        for way, value in (("in", service.tokens_in_per_s), ("out", service.tokens_out_per_s))
        if value is not None
    ]
    if service.kv_usage is not None:
        tokens.append([(f"KV {percent_text(service.kv_usage)} used", "warn" if service.kv_usage > kv_limit else "dim")])
    rows += _flowed("   tokens", tokens, width) if tokens else []
    waits: list[list[Span]] = []
    if reasons := counts_text(service.waiting_by_reason):
        waits.append([(reasons, "warn")])
    if stages := counts_text(service.kv_fetch):
        waits.append([(f"for KV: {stages.replace('_', ' ')}", "warn")])
    return [*rows, *(_flowed("   waiting", waits, width) if waits else [])]


def _hits(one: TierHits) -> list[Span]:
    name = one.what if not one.tier or one.tier in one.what else f"{one.tier.replace('remote', 'peers')} {one.what}"
    window = "" if one.share is None else " (its window)"
    base = f" of {quantity_text(one.asked, one.unit)}" if one.asked is not None else window
    evicted = f", evicts {count_text(one.evicted_per_s)}/s" if one.evicted_per_s else ""
    text = percent_text(one.share) if one.share is not None or one.hits is None else quantity_text(one.hits, one.unit)
    return [(f"{name} ", ""), (text, "!" if one.share else "dim"), (base, "dim"), (evicted, "")]


def _flowed(label: str, parts: list[list[Span]], width: int) -> list[Row]:
    """Return rows with as many parts each as fit, the first one after a label."""
    rows: list[list[Span]] = [[cell(label, _LABEL + 1, "dim")]]
    used = _LABEL + 1
    for part in parts:
        length = sum(cell_len(text) for text, _ in part)
        if used + length > width and used > _LABEL + 1:
            rows.append([cell("", _LABEL + 1)])
            used = _LABEL + 1
        if used + length > width:
            whole = "".join(text for text, _ in part)
            part = [cell(whole, max(1, width - used), part[0][1])]
            length = width - used
        rows[-1] += [*part, ("  ", "")]
        used += length + 2
    return [tuple(row) for row in rows]
