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
from kvdeck.sessions.analysis.compare_traffic import PatternChange, TrafficDiff, compare_traffic
from kvdeck.sessions.model.records import Interval, Verdict
from kvdeck.sessions.model.traffic import PatternResult, TrafficResult
from kvdeck.sessions.text.tables import wrapped
from kvdeck.sessions.units import figure, many, range_text, ratio_figure, ratio_text, size_text

if TYPE_CHECKING:
    from kvdeck.app.tui.export import Table
    from kvdeck.sessions.model.records import Session

Change = Literal["more", "less", "same", "undecided", "other pattern", "only A", "only B", ""]
_WORDS: dict[Verdict, Change] = {
    "slower": "more", "faster": "less", "no difference": "same", "undecided": "undecided",
}  # fmt: skip
_TONES = {"more": "warn", "less": "ok", "undecided": "dim", "other pattern": "dim"}


@dataclass(frozen=True, slots=True)
class PatternChangeRow:
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


def pattern_changes(diff: TrafficDiff, a: TrafficResult, b: TrafficResult) -> tuple[PatternChangeRow, ...]:
    """Return a row for each pattern of either test."""
    compared = {row.pattern: row for row in diff.rows}
    left, right = ({one.pattern: one for one in test.patterns} for test in (a, b))
    rows = []
    for number in sorted({*left, *right}):
        one, other = left.get(number), right.get(number)
        row = compared.get(number)
        change = row.ratio if row is not None and row.ratio is not None and row.ratio.known else None
        rows.append(
            PatternChangeRow(
                number, (other or one or right[number]).bytes,
                _ratio(one), _ratio(other), _together(one), _together(other), change, _kind(one, other, row),
            )
        )  # fmt: skip
    return tuple(rows)


def _kind(one: PatternResult | None, other: PatternResult | None, row: PatternChange | None) -> Change:
    if one is None or other is None:
        return "only B" if one is None else "only A"
    if row is None:
        return "other pattern"
    if not one.bytes:
        return ""
    return "undecided" if row.verdict is None else _WORDS[row.verdict]


def _ratio(result: PatternResult | None) -> float | None:
    return None if result is None or result.ratio is None else result.ratio.median


def _together(result: PatternResult | None) -> float | None:
    return None if result is None or result.together_ms is None else result.together_ms.median


def change_text(rows: Sequence[PatternChangeRow]) -> str:
    """Return in words where the ratio changed."""
    compared = [row for row in rows if row.kind in ("more", "less", "same", "undecided")]
    if not compared:
        return "The tests have no pattern in common."
    changed = [row for row in compared if row.kind in ("more", "less")]
    open_ = sum(row.kind == "undecided" for row in compared)
    if not changed:
        text = f"Undecided for {open_} of {len(compared)}: their intervals are too wide." if open_ else ""
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
    return f"{text} Undecided: {open_}." if open_ else text


def change_columns(width: int) -> list[Column[PatternChangeRow]]:
    """Return the columns of the table."""
    columns: list[Column[PatternChangeRow]] = [
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

    DEFAULT_CSS = "ChangeAnswer { height: 7; }"

    def __init__(self, diff: TrafficDiff, text: str) -> None:
        super().__init__(id="changed")
        self.diff, self.text = diff, text

    def rows(self, width: int, height: int) -> list[Row]:
        return [
            heading("Traffic diff", width, False, "ratio: time together over time alone"),
            (cell(f" A {self.diff.a}", width, "dim"),),
            (cell(f" B {self.diff.b}", width, "dim"),),
            *((cell(f" {line}", width, "!"),) for line in wrapped(self.text, width - 2)),
            *((cell(f" {line}", width, "warn"),) for line in self._warnings(width)),
        ]

    def _warnings(self, width: int) -> list[str]:
        said = self.diff.differences
        more = f" (and {len(said) - 2} more)" if len(said) > 2 else ""
        return wrapped(f"The tests differ: {'; '.join(said[:2])}{more}", width - 2) if said else []


class TrafficDiffScreen(DeckScreen):
    """The patterns of two tests; Esc goes back."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "back", key_display="Esc", id="trafficdiff.back", tooltip="Go back", group=LIST),
    ]

    def __init__(self, before: Session, now: Session) -> None:
        super().__init__()
        self.diff = compare_traffic(before, now)
        none = TrafficResult("sequential", 0, 0)
        self.changes = pattern_changes(self.diff, before.traffic or none, now.traffic or none)

    def body(self) -> ComposeResult:
        yield ChangeAnswer(self.diff, change_text(self.changes))
        yield ChangeList("Patterns", change_columns, lambda row: str(row.number), id="changes")

    def on_mount(self) -> None:
        changes = self.query_one(ChangeList)
        changes.show(self.changes, "Neither test has patterns.")
        changes.focus()
        super().on_mount()

    def action_back(self) -> None:
        self.dismiss()


class ChangeList(Listing[PatternChangeRow]):
    """The patterns and their change."""

    tells = False

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return action != "open"

    def table(self) -> Table:
        from dataclasses import replace

        return replace(super().table(), name="traffic-diff")
