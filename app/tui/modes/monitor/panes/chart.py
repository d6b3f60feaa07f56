"""One flow's rate over the whole screen, with axes, median, peak and marks."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from kvdeck.app.text.monitor_names import age_text, short, source_name
from kvdeck.app.text.monitor_report import arrow
from kvdeck.app.tui.modes.monitor.annotations import TONES
from kvdeck.app.tui.modes.monitor.history import flow_key, flow_rate
from kvdeck.app.tui.modes.monitor.panes.panel import Panel, said
from kvdeck.app.tui.modes.monitor.panes.strip import axis
from kvdeck.app.tui.modes.monitor.panes.tiers import before_text, rate_text, watched_text
from kvdeck.app.tui.modes.monitor.sparks import area, most
from kvdeck.app.tui.modes.monitor.tier_figures import begun, in_order, style_of
from kvdeck.app.tui.widgets.cells import Cells
from kvdeck.app.tui.widgets.charts import ceiling
from kvdeck.app.tui.widgets.lines import Row, heading
from kvdeck.engine.telemetry.sample import Flow
from kvdeck.sessions import units
from kvdeck.sessions.units import plain_text, quantity_text

if TYPE_CHECKING:
    from kvdeck.app.tui.export import Table

_LABEL = 12
SPANS_S = (60.0, 120.0, 300.0, 600.0)
"""Lengths of the time axis in seconds: the shortest one that holds all that is known."""


class FlowChart(Panel):
    """The chart of the flow chosen in the tiers; the arrows choose another one."""

    title = "Flow"
    chosen = ""

    @property
    def flows(self) -> list[Flow]:
        """The flows in the tiers' order."""
        return sorted(in_order(self.view.moment.flows), key=lambda flow: not begun(flow))

    @property
    def under_cursor(self) -> Flow | None:
        """The flow that is drawn."""
        flows = self.flows
        return next((flow for flow in flows if flow_key(flow) == self.chosen), flows[0] if flows else None)

    def action_scroll_rows(self, by: int) -> None:
        flows, here = self.flows, self.under_cursor
        if here is not None:
            self.chosen = flow_key(flows[max(0, min(len(flows) - 1, flows.index(here) + by))])
            self.redraw()

    def rows(self, width: int, height: int) -> list[Row]:
        flow = self.under_cursor
        if flow is None:
            return [heading("Flow", width, self.has_focus), said("No flow to draw", width)]
        title = f"{arrow(flow)}  {short(flow.name)} {source_name(flow.source)}"
        note = "↑ ↓ another flow · Esc back"
        return [heading(title, width, self.has_focus, note), *self._body(flow, width, height - 1)]

    def _body(self, flow: Flow, width: int, height: int) -> list[Row]:
        room, view = width - _LABEL - 1, self.view
        known = view.now - view.begin
        span = next((length for length in SPANS_S if known <= length), SPANS_S[-1])
        values = view.rates.flow_cells(flow, view.now, room, span)
        seen = sorted(value for value in values if value is not None)
        age = view.age(flow.source)
        middle, peak = (median(seen) if seen else None), most(values)
        moving = [value for value in seen if value > 0]
        now = rate_text(flow) if age is None else age_text(age)
        figures = Cells(width)
        x = 1
        for name, text, tone in (
            ("now", now, f"!{style_of(flow)}" if flow_rate(flow) and age is None else "dim"),
            ("p50", _rate(flow, middle), ""),
            ("p50 while it moves", _rate(flow, median(moving)) if moving else "–", ""),
            ("peak", _rate(flow, peak), ""),
            ("watched", watched_text(flow), ""),
            ("before", before_text(flow), "dim"),
        ):
            figures.put(x, name, "dim")
            figures.put(x + len(name) + 1, text, tone)
            x += len(name) + len(text) + 4
        rows = max(1, height - 4)
        top = ceiling(peak or 0.0)
        bars = area(values, top, rows)
        labels = {0: top, rows - 1: 0.0} | ({rows // 2: top / 2} if rows >= 5 and rows % 2 == 0 else {})
        at_median = None if not middle else max(0, min(rows - 1, int((1 - middle / top) * rows)))
        drawn: list[Row] = [figures.row(), ()]
        tone = style_of(flow) if age is None else "dim"
        for y, text in enumerate(bars):
            cells = Cells(width)
            if y in labels:
                cells.right(_LABEL - 1, _rate(flow, labels[y]), "dim")
            cells.put(_LABEL - 1, "┤" if y in labels else "│", "rule")
            if y == at_median:
                cells.put(_LABEL, "╌" * room, "dim")
                if y not in labels:
                    cells.right(_LABEL - 1, "p50", "dim")
            for column, character in enumerate(text):
                if character != " ":
                    cells.put(_LABEL + column, character, tone)
            drawn.append(cells.row())
        return [
            *drawn,
            self._marks(width, room, span),
            axis(width, _LABEL, room, view.now - span, view.now, view.live).row(),
        ]

    def _marks(self, width: int, room: int, span: float) -> Row:
        cells = Cells(width)
        cells.put(_LABEL - 1, f"└{'─' * room}", "rule")
        begin, free = self.view.now - span, room
        for mark in reversed(self.view.marks):
            place = int((mark.t - begin) / span * (room - 1) + 0.5)
            if 0 <= place < free:
                cells.put(_LABEL + place, f"▲ {mark.text} "[: free - place], TONES.get(mark.kind, ""))
                free = place
        return cells.row()

    def points(self) -> Table:
        from kvdeck.app.tui.export import Table

        flow = self.under_cursor
        key = "" if flow is None else flow_key(flow)
        begin = self.view.now - self.view.rates.span_s
        rows = tuple(
            (what, plain_text(t, 3), plain_text(rate))
            for what, t, rate in self.view.rates.points(begin, self.view.now)
            if what.startswith(f"{key} ")
        )
        return Table("rates", ("what", "unix_time", "per_second"), rows)


def _rate(flow: Flow, value: float | None) -> str:
    return units.rate_text(value) if flow.bytes_total is not None else quantity_text(value, "bl/s")
