"""Paths and Pinned panes: tables of flows and of pinned series."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

from textual.binding import Binding, BindingType

from kvdeck.app.text.monitor_names import age_text, short, source_name
from kvdeck.app.text.monitor_report import arrow, labels_text, number_value
from kvdeck.app.tui.modes.monitor.flow_figures import Figure, PathRow, path_row
from kvdeck.app.tui.modes.monitor.history import number_key
from kvdeck.app.tui.modes.monitor.panes.tiers import WIDE, rate_text
from kvdeck.app.tui.modes.monitor.tier_figures import begun, in_order, style_of
from kvdeck.app.tui.modes.monitor.view import View
from kvdeck.app.tui.widgets.key_bar import MONITOR
from kvdeck.app.tui.widgets.list import Listing
from kvdeck.app.tui.widgets.table import Column
from kvdeck.engine.telemetry.sample import Number
from kvdeck.sessions.units import count_text, quantity_text, seconds_text, size_text

_THRESHOLD: list[BindingType] = [
    Binding(
        "t", "screen.threshold", "limit", id="monitor.threshold",
        tooltip="Set an alert on this row; crossing it is annotated", group=MONITOR,
    ),
]  # fmt: skip


_NAME, _REST = 17, 36
"""Columns of a flow's name, as in `G1→G2 vLLM store`, and of all columns beside it but the rate."""


class Paths(Listing[PathRow]):
    """One row per flow, ordered as in the Tiers pane. Dim figures are averages since start, if nothing moves."""

    tells = False
    blanks_follow = True

    BINDINGS: ClassVar[list[BindingType]] = [
        *_THRESHOLD,
        Binding("enter", "screen.zoom", "Zoom", show=False, id="paths.zoom", tooltip="Zoom this pane", group=MONITOR),
    ]

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__("Paths", self._columns, lambda row: row.key, id=id)
        self.view = View()

    def apply(self, view: View) -> None:
        self.view = view
        # Flows that never moved come last. Sorting by current rates would make rows jump.
        flows = [] if view.empty else sorted(in_order(view.moment.flows), key=lambda flow: not begun(flow))
        self.show([path_row(flow) for flow in flows], "No transfers seen yet")

    def _columns(self, width: int) -> list[Column[PathRow]]:
        # Only what some flow counts has a column, if the names have room beside it.
        counted = {row.merged for row in self.items if row.descriptors is not None}
        kinds = [("posted", False)] * (False in counted) + [("merged", True)] * (True in counted)
        blocks, now = ("blocks", 13) if width >= WIDE else ("bl", 9)
        rest = _REST + now + 7 * len(kinds)
        if width - rest < _NAME:
            kinds, rest = [], _REST + now
        first = min(40, max(14, width - rest))
        return [
            Column("", first, lambda r: self._named(r, first), self._tone, right=False),
            Column("now", now, lambda r: rate_text(r.flow, blocks), lambda r: "!" if r.moving else "dim"),
            Column("moves/s", 7, _transfers, lambda r: "" if r.flow.transfers_per_s else "dim"),
            Column("size", 9, lambda r: size_text(r.size.value), lambda r: _figure_tone(r.size)),
            *(Column(title, 6, partial(_descriptors, merged), lambda _: "dim") for title, merged in kinds),
            Column("time", 7, lambda r: seconds_text(r.seconds.value), lambda r: _figure_tone(r.seconds)),
            Column("failed", 6, _failed, lambda r: "bad" if r.flow.failures_gained else "dim"),
        ]

    def _named(self, row: PathRow, room: int) -> str:
        thresholds = self.view.thresholds
        mark = "▲" if thresholds.is_out(row.key) else "◇" if thresholds.text(row.key) else ""
        name = f"{mark}{arrow(row.flow).replace(' ', '').replace('remote', 'peer')} {short(row.flow.name)}"
        age = self.view.age(row.flow.source)
        more = f" {source_name(row.flow.source)} {thresholds.text(row.key)}".rstrip()
        more = more if age is None else f" {age_text(age)}{more}"
        return name + more if len(name + more) <= room else name

    def _tone(self, row: PathRow) -> str:
        if self.view.thresholds.is_out(row.key):
            return "warn"
        return style_of(row.flow) if row.moving else "dim"


def _transfers(row: PathRow) -> str:
    return count_text(row.flow.transfers_per_s)


def _descriptors(merged: bool, row: PathRow) -> str:
    """Return the descriptors per transfer of one kind: as posted, or after NIXL has merged neighbours."""
    return count_text(row.descriptors if row.merged is merged else None)


def _failed(row: PathRow) -> str:
    return count_text(row.flow.failures_total)


def _figure_tone(figure: Figure) -> str:
    return "" if figure.now else "dim"


class Pinned(Listing[Number]):
    """The pinned series, each with a sparkline of its last two minutes."""

    tells = False
    blanks_follow = True

    BINDINGS: ClassVar[list[BindingType]] = [
        *_THRESHOLD,
        Binding(
            "delete,backspace", "screen.unpin", "Unpin", show=False, id="monitor.unpin",
            tooltip="Remove this series from the screen", group=MONITOR,
        ),
        Binding("enter", "screen.zoom", "Zoom", show=False, id="pinned.zoom", tooltip="Zoom this pane", group=MONITOR),
    ]  # fmt: skip

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__("Pinned", self._columns, number_key, id=id)
        self.view = View()

    def apply(self, view: View) -> None:
        self.view = view
        missing = [name for name in view.pins if all(number.name != name for number in view.moment.pinned)]
        said = f"{', '.join(missing)}: no source reports it" if missing else "b lists all series; space pins one"
        self.show(view.moment.pinned, said)

    def _columns(self, width: int) -> list[Column[Number]]:
        spark = 24 if width >= 70 else 12
        name = max(16, width - spark - 10 - 14 - 14 - 7)
        return [
            Column("", name, lambda n: f"{n.name}{labels_text(n)}", right=False),
            Column(
                "value",
                14,
                number_value,
                lambda n: "" if n.per_s and not n.stale else "dim",
            ),
            Column("per second", 10, per_s, lambda n: "!" if n.per_s else "dim"),
            Column("2 min", spark, lambda n: self.view.rates.number_spark(n, self.view.now, spark), lambda _: "run"),
            Column("limit", 12, self._limit, self._limit_tone),
        ]

    def _limit(self, number: Number) -> str:
        return self.view.thresholds.text(number_key(number))

    def _limit_tone(self, number: Number) -> str:
        return "warn" if self.view.thresholds.is_out(number_key(number)) else "dim"


def per_s(number: Number) -> str:
    """Return a counter's rate as `B/s` or `/s`; other units are shown beside its value."""
    return quantity_text(number.per_s, "B/s" if number.unit == "bytes" else "/s")
