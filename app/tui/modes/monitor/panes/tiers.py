"""Tiers pane: every flow as an arrow between two tiers, with its rate, its last two minutes and what it moved."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.events import Click

from kvdeck.app.text.monitor_names import age_text, short, source_name
from kvdeck.app.text.monitor_report import arrow
from kvdeck.app.tui.modes.monitor.history import flow_key, flow_rate
from kvdeck.app.tui.modes.monitor.panes.panel import Panel, said
from kvdeck.app.tui.modes.monitor.sparks import most, spark
from kvdeck.app.tui.modes.monitor.tier_figures import (
    NAMES,
    TIERS,
    Fill,
    begun,
    fills,
    in_order,
    largest,
    spoken_of,
    style_of,
    way,
)
from kvdeck.app.tui.modes.monitor.view import View
from kvdeck.app.tui.widgets.cells import Cells
from kvdeck.app.tui.widgets.key_bar import MONITOR
from kvdeck.app.tui.widgets.lines import Row, cell, heading, window
from kvdeck.engine.telemetry.sample import Flow
from kvdeck.sessions import units
from kvdeck.sessions.units import UNKNOWN, figure, moved_text, plain_text, quantity_text

if TYPE_CHECKING:
    from kvdeck.app.tui.export import Table

SHORT = {"remote": "peers", "G1": "G1", "G2": "G2", "G3": "G3", "G4": "G4"}
UNTOLD = "No monitored source reports transfers between tiers."
NOTHING = "No source selected."
TEACHES = (
    ("KVBM", "DYN_KVBM_METRICS=true on the Dynamo worker (port 6880)"),
    ("NIXL", "NIXL_TELEMETRY_ENABLE=y and NIXL_TELEMETRY_EXPORTER=prometheus"),
    ("", "or NIXL_TELEMETRY_DIR=<folder> (reading doesn't drain the rings)"),
    ("vLLM", "/metrics, with an OffloadingConnector or a NixlConnector"),
    ("kvdeck", "start a run: 2, then r"),
    ("s", "select sources on this host, or add an address (`--source`)"),
)


WIDE = 110
"""Width from which the tiers are drawn as columns; below it, flows are named by their tiers."""
_NOW, _PEAK, _AMOUNT, _ROOMY, _BOTH = 12, 8, 10, 13, 18
"""Columns of a rate, of the peak beside a spark, of one amount as in `10,789 bl` or `10,789 blocks`, and of both in
one cell."""
HEADS = 3
"""Rows above the flows: the heading, and two of titles."""
_NAMED, _MOST_NAMED = 11, 26
"""Least and largest width of a flow's name."""
THIN = 0.1
"""Part of the largest rate on the same edge below which an arrow is thin."""


@dataclass(frozen=True, slots=True)
class Places:
    """Columns of a row's parts; those with an `end` are right-aligned before it."""

    lines: tuple[int, ...]
    """Column of each tier's lifeline; empty if the tiers aren't drawn."""
    named: int
    """Width of the way's name and, if the tiers aren't drawn, of the flow's."""
    now: int
    """End of the rate."""
    spark: int
    spark_width: int
    peak: int
    """End of the peak."""
    before: int | None
    """End of the amounts before watching; None if they share a cell with those since."""
    watched: int
    """End of the amounts since watching began."""
    name: int

    @classmethod
    def fitting(cls, width: int) -> Places:
        """Return the columns for a width of 78 or more; extra width goes to arrows first, then sparks and names."""
        if width < WIDE:
            spark = min(24, 8 + (width - 80) // 2)
            named = width - 1 - _NOW - 1 - spark - _PEAK - _BOTH - 1
            now = named + 1 + _NOW
            peak = now + 1 + spark + _PEAK
            return cls((), named, now, now + 1, spark, peak, None, peak + _BOTH, width)
        step = max(10, min(16, 10 + (width - 120) // 10))
        lines = tuple(10 + step * place for place in range(len(TIERS)))
        now = lines[-1] + step // 2 + 1 + _NOW
        amount = _AMOUNT if width < 160 else _ROOMY
        left = width - now - 1 - _PEAK - 2 * amount - 1
        named = max(_NAMED, min(_MOST_NAMED, left // 4))
        spark = max(4, min(60, left - named))
        peak = now + 1 + spark + _PEAK
        before = peak + amount
        return cls(lines, 9, now, now + 1, spark, peak, before, before + amount, before + amount + 1)

    def of(self, tier: str) -> int:
        return self.lines[TIERS.index(tier)]


class Tiers(Panel):
    """A column for each tier, and an arrow per flow; the cursor stands on a flow, of which `z` shows the chart."""

    title = "Where KV moves"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "t", "screen.threshold", "alert", id="tiers.threshold", tooltip="Set an alert on this flow", group=MONITOR
        ),
    ]
    full: Mapping[str, list[Fill]] = MappingProxyType({})
    spoken: Set[str] = frozenset()
    largest: Mapping[tuple[str, str, str], float] = MappingProxyType({})
    abbreviated = False
    """Whether a row was drawn that abbreviates blocks."""
    chosen = ""
    """Key of the flow under the cursor; empty: the first one."""

    def apply(self, view: View) -> None:
        self.full = fills(view.moment)
        self.spoken = spoken_of(view.moment, self.full)
        self.largest = largest(view.moment.flows)
        super().apply(view)

    @property
    def flows(self) -> list[Flow]:
        """The flows in display order; where not all fit, those that never moved come last."""
        flows = in_order(self.view.moment.flows)
        fit = len(flows) <= self.size.height - HEADS
        return flows if fit else sorted(flows, key=lambda flow: not begun(flow))

    @property
    def under_cursor(self) -> Flow | None:
        """The flow under the cursor; None if there is none."""
        flows = self.flows
        return next((flow for flow in flows if flow_key(flow) == self.chosen), flows[0] if flows else None)

    def key(self, flow: Flow) -> str:
        return flow_key(flow)

    def action_scroll_rows(self, by: int) -> None:
        flows, here = self.flows, self.under_cursor
        if here is not None:
            place = max(0, min(len(flows) - 1, flows.index(here) + by))
            self.chosen = flow_key(flows[place])
            self.redraw()

    def on_click(self, event: Click) -> None:
        rows = self._keys[event.y : event.y + 1]
        if rows and rows[0]:
            self.chosen = rows[0]
            self.redraw()

    _keys: tuple[str, ...] = ()
    """Key of the flow in each row as painted; empty for other rows."""

    def rows(self, width: int, height: int) -> list[Row]:
        self.abbreviated = False
        places = Places.fitting(width)
        heads = self._heads(places, width)
        view = self.view
        if not view.moment.flows:
            self._keys = ()
            body = [*heads, *([()] * (height > 12)), *self._why_nothing(width)]
            return [heading(self.title, width, self.has_focus), *body]
        flows = self.flows
        room = max(1, height - 1 - len(heads))
        moved = [flow for flow in flows if begun(flow)]
        still = [flow for flow in flows if not begun(flow)]
        folded = len(flows) > room and bool(still) and len(moved) < room and self.chosen not in map(flow_key, still)
        shown = moved if folded else flows
        here = self.under_cursor
        groups = [list(group) for _, group in groupby(shown, key=way)]
        roomy = bool(places.lines) and len(shown) + len(groups) + folded <= room
        drawn: list[tuple[str, Row]] = []
        for number, group in enumerate(groups):
            if number and roomy:
                drawn.append(("", self._lifelines(places, width).row()))
            drawn += [
                (flow_key(flow), self._flow(flow, places, width, not i, flow is here)) for i, flow in enumerate(group)
            ]
        room -= folded
        at = next((i for i, (key, _) in enumerate(drawn) if here is not None and key == flow_key(here)), 0)
        self.top = window(self.top, at, len(drawn), room)
        below = len(drawn) - self.top - room
        drawn = drawn[self.top : self.top + room]
        if places.lines:
            drawn += [("", self._lifelines(places, width).row())] * (room - len(drawn))
        if folded:
            drawn.append(("", said(_still_text(still), width)))
        self._keys = ("", *("" for _ in heads), *(key for key, _ in drawn))
        return [heading(self.title, width, self.has_focus, self._note(below)), *heads, *(row for _, row in drawn)]

    def _note(self, below: int) -> str:
        parts = ["bl: blocks"] if self.abbreviated else []
        if self.has_focus:
            parts.append("z chart · t alert")
        if below > 0 or self.top:
            parts.append(f"↓ {below} more" if below > 0 else f"↑ {self.top} more")
        return " · ".join(parts)

    def _why_nothing(self, width: int) -> list[Row]:
        """Return rows with the reason for an empty pane, and how to enable sources that report flows."""
        view = self.view
        if view.error:
            return [said(view.error, width, "bad")]
        if view.empty:
            return [said(view.empty, width, "")]
        taught: list[Row] = [((f"   {what:<9}", "key"), cell(how, width - 12)) for what, how in TEACHES]
        return [said(UNTOLD if view.moment.sources else NOTHING, width, "!"), *taught]

    def _heads(self, places: Places, width: int) -> list[Row]:
        """Return a row of titles, and one of how full each tier is."""
        names, used = Cells(width), Cells(width)
        titled = bool(self.view.moment.flows)
        if not places.lines:
            texts = [(tier, _fill_text(self.full.get(tier, []), 24)) for tier in TIERS]
            known = [f"{SHORT[tier]} {text}" for tier, text in texts if text != UNKNOWN]
            names.put(1, "   ".join(known)[: places.named] if titled else "   ".join(known), "dim" if not known else "")
            self._titles(names, places, titled)
            return [names.row()]
        names.put(1, "tier", "dim")
        used.put(1, "KV used", "dim")
        room = places.lines[1] - places.lines[0] - 1
        for tier in TIERS:
            bright = tier in self.spoken
            names.middle(places.of(tier), NAMES[tier], f"!tier:{tier}" if bright else "dim")
            full = self.full.get(tier, [])
            fresh = bright and bool(full) and not any(fill.stale for fill in full)
            share = next((fill.share for fill in full if fill.share is not None), None)
            text = _fill_text(full[:1] if share is not None and room < 14 else full, room)
            if share is not None and text.startswith("KV "):
                text = text.removeprefix("KV ")  # as the row's title says
            bar = room - len(text) - 2
            if share is not None and bar >= 3:
                text = f"{'█' * round(share * bar)}{'░' * (bar - round(share * bar))} {text}"
            used.middle(places.of(tier), text, (f"tier:{tier}" if share is not None else "") if fresh else "dim")
        self._titles(names, places, titled)
        return [names.row(), used.row()]

    def _titles(self, cells: Cells, places: Places, titled: bool) -> None:
        if not titled:
            return
        cells.right(places.now, "now", "dim")
        cells.put(places.spark, "2 min"[: places.spark_width], "dim")
        cells.right(places.peak, "peak", "dim")
        if places.before is None:
            cells.right(places.watched, "before +watched", "dim")
            return
        cells.right(places.before, "before", "dim")
        cells.right(places.watched, "watched", "dim")
        cells.put(places.name, "source", "dim")

    def _lifelines(self, places: Places, width: int) -> Cells:
        cells, spoken = Cells(width), self.spoken
        for tier, column in zip(TIERS, places.lines, strict=False):
            cells.put(column, "│", f"tier:{tier}" if tier in spoken else "rule")
        return cells

    def _flow(self, flow: Flow, places: Places, width: int, first: bool, here: bool) -> Row:
        cells = self._lifelines(places, width)
        rate, age = flow_rate(flow), self.view.age(flow.source)
        moving, tone = bool(rate) and age is None, style_of(flow)
        quiet = "" if moving else "dim"
        out = self.view.thresholds.is_out(flow_key(flow))
        mark = "▲" if out else "◇" if self.view.thresholds.text(flow_key(flow)) else ""
        if here and self.has_focus:
            cells.put(0, "▸", "key")
        if places.lines:
            if first:
                cells.put(1, NAMED_WAYS.get(way(flow), way(flow)), "dim")
            self._arrow(cells, flow, places, tone if moving else "dim")
            cells.put(places.now - _NOW, mark, "warn" if out else "dim")
        else:
            cells.put(1, self._named(flow, mark, places.named - 1), "warn" if out else tone if moving else "dim")
        now = rate_text(flow) if age is None else age_text(age)
        cells.right(places.now, self._fitting(now, rate_text(flow, "bl") if age is None else now, _NOW - 1),
                    "warn" if out else f"!{tone}" if moving else "dim")  # fmt: skip
        values = self.view.rates.flow_cells(flow, self.view.now, places.spark_width)
        cells.put(places.spark, spark(values), tone if moving else "dim")
        cells.right(places.peak, peak_text(flow, most(values)), quiet)
        if places.before is None:
            cells.right(places.watched, self._fitting(both_text(flow), both_text(flow, "bl"), _BOTH - 1), "dim")
            return cells.row()
        for end, amount in ((places.before, before_text), (places.watched, watched_text)):
            cells.right(end, self._fitting(amount(flow), amount(flow, "bl"), places.watched - places.before - 1), quiet)
        room = width - places.name
        name = short(flow.name)
        more = f"{name} {source_name(flow.source)}"
        cells.put(places.name, (more if len(more) <= room else name)[:room], "dim")
        return cells.row()

    def _named(self, flow: Flow, mark: str, room: int) -> str:
        """Return a flow by its tiers, name and source, as far as there is room."""
        name = f"{mark}{arrow(flow).replace(' ', '').replace('remote', 'peer')} {short(flow.name)}"
        more = f"{name} {source_name(flow.source)}"
        return more if len(more) <= room else name[:room]

    def _arrow(self, cells: Cells, flow: Flow, places: Places, tone: str) -> None:
        source, target = flow.source_tier, flow.target_tier
        if source is None or target is None:
            label = f" {short(flow.name)}: tiers unknown "
            cells.put(places.lines[0], "╌" * (places.lines[-1] - places.lines[0] + 1), "rule")
            cells.middle((places.lines[0] + places.lines[-1]) // 2, label, tone)
            return
        rate = flow_rate(flow)
        most_here = self.largest.get((source, target, _unit(flow)), 0.0)
        heavy = bool(rate) and (rate or 0.0) >= THIN * most_here
        dash = "╌" if rate is None else "━" if heavy else "─"
        start, end = places.of(source), places.of(target)
        if start == end:
            cells.put(start, f"├{dash * 3}↔", tone)
            return
        low, high = min(start, end), max(start, end)
        cells.put(low + 1, dash * (high - low - 1), tone)
        tip = ("▶" if rate else "▸") if end > start else ("◀" if rate else "◂")
        cells.put(high - 1 if end > start else low + 1, tip, tone)
        cells.put(start, "├" if end > start else "┤", tone)

    def _fitting(self, text: str, abbreviated: str, room: int) -> str:
        """Return a text, or if it doesn't fit the one that abbreviates blocks."""
        if len(text) <= room:
            return text
        self.abbreviated = self.abbreviated or abbreviated != text
        return abbreviated

    def table(self) -> Table:
        from kvdeck.app.tui.export import Table

        rows = tuple(
            (way(f), arrow(f), f.name, rate_text(f), before_text(f), watched_text(f), source_name(f.source))
            for f in in_order(self.view.moment.flows)
        )
        return Table("tiers", ("way", "move", "flow", "now", "before", "watched", "source"), rows)

    def points(self) -> Table:
        from kvdeck.app.tui.export import Table

        begin = self.view.now - self.view.rates.span_s
        rows = tuple(
            (what, plain_text(t, 3), plain_text(rate)) for what, t, rate in self.view.rates.points(begin, self.view.now)
        )
        return Table("rates", ("what", "unix_time", "per_second"), rows)


NAMED_WAYS = {"transfer": "unplaced"}
"""Ways whose name on the screen isn't their own."""


def _unit(flow: Flow) -> str:
    return "blocks" if flow.bytes_total is None else "bytes"


def peak_text(flow: Flow, peak: float | None) -> str:
    """Return the largest rate of a spark without its `B/s` or `blocks/s`: `3.90 G`, `5.67`; empty if none is known."""
    if peak is None:
        return ""
    if flow.bytes_total is None:
        return figure(peak) if peak < 1000 else f"{figure(peak / 1000)} k"
    return units.rate_text(peak).removesuffix("B/s")


def rate_text(flow: Flow, blocks: str = "blocks") -> str:
    """Return `1.23 GB/s`, `14 blocks/s` if the source counts no bytes, or a dash if the rate is unknown.

    Args:
        blocks: The word for blocks.
    """
    if flow.bytes_total is not None:
        return units.rate_text(flow.bytes_per_s)
    return quantity_text(flow.blocks_per_s, f"{blocks}/s")


def before_text(flow: Flow, blocks: str = "blocks") -> str:
    """Return what the source had counted before watching; `≈` if it is blocks times the block size."""
    return _amount(flow, flow.bytes_before, flow.blocks_before, blocks)


def watched_text(flow: Flow, blocks: str = "blocks") -> str:
    """Return what moved since watching began, as `before_text`; a dash after a single reading."""
    return _amount(flow, flow.bytes_gained, flow.blocks_gained, blocks)


def both_text(flow: Flow, blocks: str = "blocks") -> str:
    """Return both amounts in few columns, as `954 MB +2.98 GB`; without the first one if it is 0."""
    before, watched = before_text(flow, blocks), watched_text(flow, blocks)
    counted = flow.bytes_before if flow.bytes_total is not None else flow.blocks_before
    if counted == 0:
        return f"+{watched}"
    return f"{before} +{watched.removeprefix('≈')}"


def _amount(flow: Flow, size: float | None, count: float | None, blocks: str) -> str:
    if flow.bytes_total is None:
        if blocks == "bl" and count is not None and 100_000 <= count < 1_000_000:
            return f"{figure(count / 1000)}k bl"
        return quantity_text(count, blocks)
    return ("≈" if flow.bytes_from_blocks and size is not None else "") + moved_text(size)


def _still_text(flows: list[Flow]) -> str:
    """Return one line for flows with a total of zero, which have no row of their own if space is short."""
    who: dict[str, list[str]] = {}
    for flow in flows:
        who.setdefault(short(flow.name).partition(" ")[0], []).append(arrow(flow).replace(" ", ""))
    return "No traffic yet: " + "; ".join(f"{name} {', '.join(dict.fromkeys(moves))}" for name, moves in who.items())


def _fill_text(full: list[Fill], room: int) -> str:
    """Return the occupancies that fit, the first one cut if need be; a dash without any."""
    text = UNKNOWN if not full else full[0].text
    for fill in full[1:]:
        if len(text) + len(fill.text) + 3 <= room:
            text += f" · {fill.text}"
    return text[:room]
