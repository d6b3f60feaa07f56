"""Screen that lists every series of the selected sources, to be filtered and pinned."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from kvdeck.app.text.monitor_names import source_name
from kvdeck.app.text.monitor_report import labels_text, number_value
from kvdeck.app.tui.connection import TelemetryRequest
from kvdeck.app.tui.messages import TelemetrySampled
from kvdeck.app.tui.modes.base import DeckScreen
from kvdeck.app.tui.modes.monitor.history import number_key
from kvdeck.app.tui.modes.monitor.panes.flows import per_s
from kvdeck.app.tui.widgets.filter_bar import FilterBar, FilterTyped
from kvdeck.app.tui.widgets.key_bar import MONITOR
from kvdeck.app.tui.widgets.lines import Lines, Row, cell
from kvdeck.app.tui.widgets.list import Listing, RowMoved
from kvdeck.app.tui.widgets.table import Column
from kvdeck.engine.telemetry.metrics.definitions import meaning_of
from kvdeck.engine.telemetry.sample import EVERY, Number, Snapshot
from kvdeck.engine.telemetry.source import Series
from kvdeck.sessions.units import count_text

if TYPE_CHECKING:
    from textual.timer import Timer

BROWSE_HZ = 0.5
"""Samples per second while the list is open; low, since every series of every source is sent."""


class SeriesFilter(FilterBar):
    """Filter input, with the number of matching series."""

    def rows(self, width: int, height: int) -> list[Row]:
        right = f"{count_text(self.count)} of {count_text(self.total)} series "
        typed = f" / {self.text}{'▏' if self.has_focus else ''}" if self.has_focus or self.text else " / filters"
        return [(cell(typed, width - len(right), "key" if self.has_focus or self.text else "dim"), (right, "dim"))]


class SeriesList(Listing[Number]):
    """The series; Enter pins as space does."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "screen.pin", "pin", show=False, id="series.enter", tooltip="Pin it", group=MONITOR),
    ]


class SeriesMeaning(Lines):
    """Name and labels of one series in full, and what its exporter says of it, with the source of these words."""

    number: Number | None = None

    def show(self, number: Number | None) -> None:
        """Show a series."""
        self.number = number
        self.redraw()

    def rows(self, width: int, height: int) -> list[Row]:
        if self.number is None:
            return []
        labels = ", ".join(f"{name} {value}" for name, value in self.number.labels.items())
        name, *more = wrap(f"{self.number.name}{f' ({labels})' if labels else ''}", width - 2)
        meaning = wrap(meaning_text(self.number), width - 2)
        lines = [(name, "!"), *((line, "") for line in more), *((line, "dim") for line in meaning)]
        return [(cell(f" {text}", width, tone),) for text, tone in lines[:height]]


def meaning_text(number: Number) -> str:
    """Return what a series measures: its exporter's own words and their source, or the source of the definition."""
    counter = number.before is not None or number.gained is not None
    meaning = meaning_of(Series(number.name, tuple(sorted(number.labels.items())), counter))
    if meaning is None:
        return "no definition: shown as exported, in no total"
    if meaning.help is not None:
        return f"“{meaning.help.text}” — {meaning.help.source}"
    return f"{'gauge' if meaning.gauge else 'counter'} of {meaning.unit or 'numbers'}, known from {meaning.claim}"


class SeriesScreen(DeckScreen):
    """Browse and pin series. Esc returns to the Monitor, which shows the pinned ones."""

    CSS_PATH = "series.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "space,P", "pin", "pin", id="series.pin", tooltip="Pin the series to the Monitor or unpin it", group=MONITOR
        ),
        Binding(
            "slash", "filter", "filter", key_display="/", id="series.filter",
            tooltip="Filter by words in name, labels and source", group=MONITOR,
        ),
        Binding(
            "escape", "back", "back", key_display="Esc", id="series.back",
            tooltip="Clear the filter, then go back to the Monitor", group=MONITOR,
        ),
    ]  # fmt: skip

    def __init__(self, moment: Snapshot, wanted: TelemetryRequest | None, pins: tuple[str, ...]) -> None:
        """List the series of `moment`; with `wanted`, replace them by live samples of every series of its sources."""
        super().__init__()
        self.wanted, self.pins = wanted, list(pins)
        self.series = list({number_key(n): n for n in (*moment.pinned, *moment.counters, *moment.gauges)}.values())
        self._again: Timer | None = None

    def body(self) -> ComposeResult:
        yield SeriesFilter(id="filter")
        yield SeriesList("Series", self._columns, number_key, id="list")
        yield SeriesMeaning(id="meaning")

    def on_mount(self) -> None:
        super().on_mount()
        self.query_one("#list").focus()
        self._fill()
        if self.wanted is not None and self.app.requests.live:
            every = TelemetryRequest(self.wanted.sources, BROWSE_HZ, None, (EVERY,))
            self.ask(lambda: self.app.requests.browse(every, self.post_message))

    def on_telemetry_sampled(self, message: TelemetrySampled) -> None:
        if message.error or self.app.paused:
            return
        self.series = list(message.sample.pinned)
        self._fill()

    def _fill(self) -> None:
        bar = self.query_one(SeriesFilter)
        words = bar.text.lower().split()
        ordered = sorted(self.series, key=lambda n: (n.name not in self.pins, n.source, n.name, labels_text(n)))
        found = [n for n in ordered if all(word in _text(n) for word in words)]
        bar.count, bar.total = len(found), len(self.series)
        bar.redraw()
        none = "no series matches · Esc clears the filter" if words else "reading all series …"
        self.query_one("#list", Listing).show(found, none)

    def _columns(self, width: int) -> list[Column[Number]]:
        source = 18 if width >= 100 else 7
        columns: list[Column[Number]] = [
            Column("", 1, lambda n: "●" if n.name in self.pins else "", lambda _: "key", right=False),
            Column("", max(20, width - source - 34), lambda n: f"{n.name}{labels_text(n)}", right=False),
            Column("value", 14, number_value),
            Column("per second", 10, per_s, lambda n: "ok" if n.per_s else "dim"),
            Column("", 1, lambda n: "" if n.claim else "?", lambda _: "warn", right=False),
            Column("", source, lambda n: source_name(n.source), lambda _: "dim", right=False),
        ]
        return columns

    def on_row_moved(self, _: RowMoved) -> None:
        self.query_one(SeriesMeaning).show(self.query_one("#list", Listing).under_cursor)

    def action_filter(self) -> None:
        self.query_one(SeriesFilter).focus()

    def on_filter_typed(self, message: FilterTyped) -> None:
        self._fill()
        if message.ended:
            self.query_one("#list").focus()

    def action_pin(self) -> None:
        under = self.query_one("#list", Listing).under_cursor
        if under is None:
            return
        if under.name in self.pins:
            self.pins.remove(under.name)
        else:
            self.pins.append(under.name)
        self._fill()

    def action_back(self) -> None:
        bar = self.query_one(SeriesFilter)
        if bar.text:
            bar.text = ""
            self._fill()
        else:
            self.dismiss()


def _text(number: Number) -> str:
    return f"{number.name} {' '.join(number.labels.values())} {number.source}".lower()
