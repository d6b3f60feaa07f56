"""Two traffic tests beside each other: where the congestion ratio changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from kvdeck.app.tui.modes.base import DeckScreen
from kvdeck.app.tui.widgets.key_bar import LIST
from kvdeck.app.tui.widgets.lines import Lines, Row, cell, heading
from kvdeck.app.tui.widgets.list import Listing
from kvdeck.app.tui.widgets.table import Column
from kvdeck.sessions.model.records import Interval, is_same
from kvdeck.sessions.model.traffic import PatternResult
from kvdeck.sessions.stats import independent_ratio
from kvdeck.sessions.text.tables import wrapped
from kvdeck.sessions.units import figure, many, range_text, ratio_figure, ratio_text, size_text

if TYPE_CHECKING:
    from kvdeck.app.tui.export import Table
    from kvdeck.sessions.model.records import Session

Change = Literal["more", "less", "same", "can't tell", "other pattern", "only before", "only now", ""]
_TONES = {"more": "warn", "less": "ok", "can't tell": "dim", "other pattern": "dim"}


@dataclass(frozen=True, slots=True)
class PatternChange:
    """A pattern's ratio before and now; None where a test has none."""

    number: int
    size: int
    before: float | None
    now: float | None
    before_ms: float | None
    now_ms: float | None
    change: Interval | None
    """Ratio now over ratio before; None without an interval of both."""
    kind: Change


def pattern_changes(before: Sequence[PatternResult], now: Sequence[PatternResult]) -> tuple[PatternChange, ...]:
    """Return a row for each pattern of either test."""
    rows = []
    for number in range(max(len(before), len(now))):
        one = before[number] if number < len(before) else None
        other = now[number] if number < len(now) else None
        rows.append(_changed(number, one, other))
    return tuple(rows)


def _changed(number: int, one: PatternResult | None, other: PatternResult | None) -> PatternChange:
    change: Interval | None = None
    kind: Change = "can't tell"
    first, second = (None if found is None else found.ratio for found in (one, other))
    if one is None or other is None:
        kind = "only now" if one is None else "only before"
    elif _moved(one) != _moved(other):
        kind = "other pattern"
    elif not one.bytes:
        kind = ""
    elif first is not None and second is not None and first.known and second.known:
        change = independent_ratio(first, second)
        if change is not None:
            kind = _kind(change)
    shown = other or one
    return PatternChange(
        number, 0 if shown is None else shown.bytes,
        _median(first), _median(second), _together(one), _together(other), change, kind,
    )  # fmt: skip


def _moved(result: PatternResult) -> tuple[object, ...]:
    return result.bytes, result.senders, result.operation, result.shards


def _median(found: Interval | None) -> float | None:
    return None if found is None else found.median


def _together(result: PatternResult | None) -> float | None:
    return None if result is None or result.together_ms is None else result.together_ms.median


def _kind(change: Interval) -> Change:
    if is_same(change.low, change.high):
        return "same"
    return "more" if change.low > 1 else "less" if change.high < 1 else "can't tell"


def change_text(rows: Sequence[PatternChange]) -> str:
    """Return in words where the ratio changed."""
    compared = [row for row in rows if row.kind in ("more", "less", "same", "can't tell")]
    if not compared:
        return "The tests have no pattern in common."
    changed = [row for row in compared if row.kind in ("more", "less")]
    open_ = sum(row.kind == "can't tell" for row in compared)
    if not changed:
        text = f"Can't tell for {open_} of {len(compared)}: their intervals are too wide." if open_ else ""
        none = f"The ratio changed in none of {many(len(compared), 'pattern')}."
        return text if open_ == len(compared) else f"{none} {text}".strip()
    worst = max(changed, key=lambda row: abs((row.change.median if row.change else 1) - 1))
    assert worst.change is not None
    more = sum(row.kind == "more" for row in changed)
    text = (
        f"The ratio changed in {len(changed)} of {many(len(compared), 'pattern')} "
        f"({more} more, {len(changed) - more} less), #{worst.number} most: "
        f"{ratio_figure(worst.before)} → {ratio_figure(worst.now)}, "
        f"{ratio_text(worst.change.median, worst.change.low, worst.change.high)}."
    )
    return f"{text} Can't tell for {open_}." if open_ else text


def change_columns(width: int) -> list[Column[PatternChange]]:
    """Return the columns of the table."""
    columns: list[Column[PatternChange]] = [
        Column("#", 4, lambda row: str(row.number)),
        Column("bytes", 9, lambda row: size_text(row.size)),
        Column("ratio A", 8, lambda row: ratio_figure(row.before)),
        Column("ratio B", 8, lambda row: ratio_figure(row.now)),
        Column("B / A", 7, lambda row: "–" if row.change is None else ratio_figure(row.change.median)),
        Column("95 %", 11, lambda row: "–" if row.change is None else range_text(row.change.low, row.change.high)),
        Column("collides", 13, lambda row: row.kind, lambda row: _TONES.get(row.kind, ""), right=False),
    ]
    if width >= 100:
        columns[4:4] = [
            Column("A ms", 9, lambda row: figure(row.before_ms), lambda _: "dim"),
            Column("B ms", 9, lambda row: figure(row.now_ms), lambda _: "dim"),
        ]
    return columns


class ChangeAnswer(Lines):
    """Which two tests, and where the ratio changed."""

    DEFAULT_CSS = "ChangeAnswer { height: 6; }"

    def __init__(self, before: str, now: str, text: str) -> None:
        super().__init__(id="changed")
        self.before, self.now, self.text = before, now, text

    def rows(self, width: int, height: int) -> list[Row]:
        return [
            heading("Traffic diff", width, False, "ratio: time together over time alone"),
            (cell(f" A {self.before}", width, "dim"),),
            (cell(f" B {self.now}", width, "dim"),),
            *((cell(f" {line}", width, "!"),) for line in wrapped(self.text, width - 2)),
        ]


class TrafficDiffScreen(DeckScreen):
    """The patterns of two tests; Esc goes back."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "back", key_display="Esc", id="trafficdiff.back", tooltip="Go back", group=LIST),
    ]

    def __init__(self, before: Session, now: Session) -> None:
        super().__init__()
        self.names = before.name, now.name
        first, second = (() if session.traffic is None else session.traffic.patterns for session in (before, now))
        self.changes = pattern_changes(first, second)

    def body(self) -> ComposeResult:
        yield ChangeAnswer(*self.names, change_text(self.changes))
        yield ChangeList("Patterns", change_columns, lambda row: str(row.number), id="changes")

    def on_mount(self) -> None:
        changes = self.query_one(ChangeList)
        changes.show(self.changes, "Neither test has patterns.")
        changes.focus()
        super().on_mount()

    def action_back(self) -> None:
        self.dismiss()


class ChangeList(Listing[PatternChange]):
    """The patterns and their change."""

    tells = False

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return action != "open"

    def table(self) -> Table:
        from dataclasses import replace

        return replace(super().table(), name="traffic-diff")
