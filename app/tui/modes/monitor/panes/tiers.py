"""Tiers pane: the tiers side by side, and every flow as an arrow between two."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType
from typing import TYPE_CHECKING

from kvdeck.app.text.monitor_names import age_text, short, source_name
from kvdeck.app.text.monitor_report import arrow
from kvdeck.app.tui.modes.monitor.history import flow_rate
from kvdeck.app.tui.modes.monitor.panes.panel import Panel, said
from kvdeck.app.tui.modes.monitor.tier_figures import (
    NAMES,
    TIERS,
    Fill,
    begun,
    fills,
    in_order,
    spoken_of,
    style_of,
    way,
)
from kvdeck.app.tui.modes.monitor.view import View
from kvdeck.app.tui.widgets.cells import Cells
from kvdeck.app.tui.widgets.lines import Row, cell
from kvdeck.engine.telemetry.sample import Flow
from kvdeck.sessions import units
from kvdeck.sessions.units import UNKNOWN, plain_text, quantity_text, size_text

if TYPE_CHECKING:
    from kvdeck.app.tui.export import Table

SHORT = {"remote": "peers", "G1": "G1 GPU", "G2": "G2 host", "G3": "G3 disk", "G4": "G4 obj"}
BOXES_FROM = 12
"""Minimum height in rows for boxes around the tiers; below it, a line of names."""
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
"""Width from which what was counted before watching and since then have a column each."""
_COLUMN = 13
"""Columns of one amount, as in `1,888 blocks`."""
_BOTH = 19
"""Columns of both amounts in one cell, as in `≈954 MiB +2.98 GiB`."""


@dataclass(frozen=True, slots=True)
class Places:
    """Columns of a row's parts."""

    lines: tuple[int, ...]
    """Column of each tier's lifeline."""
    box: int
    """Width of a tier's box."""
    before: int | None
    """Column that ends the amounts before watching (exclusive); None if they share a cell with those since."""
    watched: int
    """Column that ends the amounts since watching began (exclusive)."""
    spark: int
    spark_width: int
    name: int

    @classmethod
    def fitting(cls, width: int) -> Places:
        """Return the columns for a width of 78 or more; extra width goes to arrows first, then sparklines and names."""
        wide = width >= WIDE
        step = max(11, min(26, (width - 45) // 6 if wide else 11 + (width - 80) // 6))
        first = max(9, step // 2)
        lines = tuple(first + step * place for place in range(len(TIERS)))
        edge = lines[-1] + (step + 1) // 2
        before = edge + _COLUMN if wide else None
        watched = edge + 2 * _COLUMN if wide else lines[-1] + 3 + _BOTH
        left = width - watched - 1
        spark = max(4, left if left < 16 else min(48, left * 3 // 5))
        return cls(lines, step - 1, before, watched, watched + 1, spark, watched + 1 + spark + 1)

    def of(self, tier: str) -> int:
        return self.lines[TIERS.index(tier)]


class Tiers(Panel):
    """Boxes for the tiers, lifelines below them, and an arrow per flow."""

    title = "Tiers"
    full: Mapping[str, list[Fill]] = MappingProxyType({})
    spoken: Set[str] = frozenset()
    abbreviated = False
    """Whether a row was drawn that abbreviates blocks."""

    def apply(self, view: View) -> None:
        self.full = fills(view.moment)
        self.spoken = spoken_of(view.moment, self.full)
        super().apply(view)

    def note(self) -> str:
        if not self.view.moment.flows:
            return ""
        parts = ("now · before · watched · 2 min" if self.size.width >= WIDE else "now · before +watched · 2 min",)
        return " · ".join((*parts, *(["bl: blocks"] if self.abbreviated else [])))

    def rows(self, width: int, height: int) -> list[Row]:
        self.abbreviated = False
        rows = super().rows(width, height)
        if self.top and self.view.moment.flows:
            # Only the flows scroll; the boxes stay on top.
            head = self._heads(Places.fitting(width), width, height - 1)
            rows[1 : 1 + len(head)] = head
        return rows

    def body(self, width: int, height: int) -> list[Row]:
        places = Places.fitting(width)
        heads = self._heads(places, width, height)
        view = self.view
        if not view.moment.flows:
            return [*heads, (), *self._why_nothing(width)]
        flows = in_order(view.moment.flows)
        room = height - len(heads)
        still = [] if len(flows) <= room else [flow for flow in flows if not begun(flow)]
        flows = [flow for flow in flows if flow not in still]
        groups = [list(group) for _, group in groupby(flows, key=way)]
        roomy = len(flows) + len(groups) + bool(still) <= room
        rows = list(heads)
        for number, group in enumerate(groups):
            if number and roomy:
                rows.append(self._lifelines(places, width).row())
            rows += [self._flow(flow, places, width, first=not i) for i, flow in enumerate(group)]
        while len(rows) < height - bool(still):
            rows.append(self._lifelines(places, width).row())
        return [*rows, said(_still_text(still), width)] if still else rows

    def _why_nothing(self, width: int) -> list[Row]:
        """Return rows with the reason for an empty pane, and how to enable sources that report flows."""
        view = self.view
        if view.error:
            return [said(view.error, width, "bad")]
        if view.empty:
            return [said(view.empty, width, "")]
        taught: list[Row] = [((f"   {what:<9}", "key"), cell(how, width - 12)) for what, how in TEACHES]
        return [said(UNTOLD if view.moment.sources else NOTHING, width, "!"), *taught]

    def _heads(self, places: Places, width: int, height: int) -> list[Row]:
        spoken, full = self.spoken, self.full
        if height < BOXES_FROM:
            names, below = Cells(width), Cells(width)
            for tier in TIERS:
                bright = tier in spoken
                names.middle(places.of(tier), SHORT[tier], f"!tier:{tier}" if bright else "dim")
                below.middle(places.of(tier), _fill_text(full.get(tier, []), places.box), "" if bright else "dim")
            return [names.row(), below.row()]
        rows = [Cells(width) for _ in range(4)]
        for tier in TIERS:
            self._box(rows, places, tier, full.get(tier, []), tier in spoken)
        return [row.row() for row in rows]

    def _box(self, rows: list[Cells], places: Places, tier: str, full: list[Fill], bright: bool) -> None:
        x, inner = places.of(tier), places.box - 2
        left = x - places.box // 2
        edge = f"tier:{tier}" if bright else "rule"
        name = NAMES[tier] if inner >= 9 else SHORT[tier]
        rows[0].put(left, f"╭{'─' * inner}╮", edge)
        for row in rows[1:3]:
            row.put(left, "│", edge)
            row.put(left + inner + 1, "│", edge)
        rows[1].put(left + 1, name.center(inner), f"!tier:{tier}" if bright else "dim")
        text = _fill_text(full, inner)
        fresh = bright and not any(fill.stale for fill in full)
        rows[2].put(left + 1, text.center(inner) if bright else UNKNOWN.center(inner), "" if fresh else "dim")
        half = places.box // 2 - 1
        rows[3].put(left, f"╰{'─' * half}┬{'─' * (inner - half - 1)}╯", edge)
        share = next((fill.share for fill in full if fill.share is not None), None)
        if share is not None:  # the lower edge of the box shows the occupancy
            heavy = "━" * round(share * inner)
            rows[3].put(left + 1, heavy, edge)
            if len(heavy) > half:
                rows[3].put(x, "┯", edge)

    def _lifelines(self, places: Places, width: int) -> Cells:
        cells, spoken = Cells(width), self.spoken
        for tier in TIERS:
            cells.put(places.of(tier), "│", f"tier:{tier}" if tier in spoken else "rule")
        return cells

    def _flow(self, flow: Flow, places: Places, width: int, first: bool) -> Row:
        cells = self._lifelines(places, width)
        moving, tone = bool(flow_rate(flow)), style_of(flow)
        if first:
            cells.put(0, f" {way(flow)}"[: places.lines[0]], "dim")
        self._arrow(cells, flow, places, tone if moving else "dim")
        dim = "" if moving else "dim"
        if places.before is None:
            cells.right(places.watched, self._fitting(both_text(flow), both_text(flow, "bl"), _BOTH), dim)
        else:
            for end, amount in ((places.before, before_text), (places.watched, watched_text)):
                cells.right(end, self._fitting(amount(flow), amount(flow, "bl"), _COLUMN - 1), dim)
        spark = self.view.rates.flow_spark(flow, self.view.now, places.spark_width)
        cells.put(places.spark, spark, tone if moving else "dim")
        if self.view.thresholds.is_out(f"{flow.source} {flow.name}"):
            cells.put(places.spark - 1, "▲", "warn")
        room = width - places.name
        if room >= 5:
            name = short(flow.name)
            where = f"{name} {source_name(flow.source)}" if len(name) + len(source_name(flow.source)) < room else name
            cells.put(places.name, where[:room], "dim")
        return cells.row()

    def _arrow(self, cells: Cells, flow: Flow, places: Places, tone: str) -> None:
        age = self.view.age(flow.source)
        known = flow_rate(flow) is not None
        dash = "━" if flow_rate(flow) else "─" if known else "╌"
        source, target = flow.source_tier, flow.target_tier
        if source is None or target is None:
            text = rate_text(flow) if age is None else age_text(age)
            label = f" {short(flow.name)} {text} (tiers unknown) "
            cells.put(places.lines[0], "╌" * (places.lines[-1] - places.lines[0] + 1), "rule")
            cells.middle((places.lines[0] + places.lines[-1]) // 2, label, tone)
            return
        start, end = places.of(source), places.of(target)
        low, high = min(start, end), max(start, end)
        room = places.box - 1 if start == end else high - low - 2
        text = self._fitting(rate_text(flow), rate_text(flow, "bl"), room) if age is None else age_text(age)
        if start == end:
            cells.put(start, f"├{dash} {text} ↔", tone)
            return
        cells.put(low + 1, dash * (high - low - 1), tone)
        tip = ("▶" if dash == "━" else "▸") if end > start else ("◀" if dash == "━" else "◂")
        cells.put(high - 1 if end > start else low + 1, tip, tone)
        cells.put(start, "├" if end > start else "┤", tone)
        label = f" {text} " if len(text) + 3 <= room else text
        left = low + 1 if end > start else low + 2
        cells.put(left + max(0, (room - len(label)) // 2), label[:room], f"!{tone}" if flow_rate(flow) else tone)

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
    """Return both amounts in few columns, as `954 MiB +2.98 GiB`; without the first one if it is 0."""
    before, watched = before_text(flow, blocks), watched_text(flow, blocks)
    counted = flow.bytes_before if flow.bytes_total is not None else flow.blocks_before
    if counted == 0:
        return f"+{watched}"
    return f"{before} +{watched.removeprefix('≈')}"


def _amount(flow: Flow, size: float | None, count: float | None, blocks: str) -> str:
    if flow.bytes_total is None:
        return quantity_text(count, blocks)
    return ("≈" if flow.bytes_from_blocks and size is not None else "") + size_text(size)


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
