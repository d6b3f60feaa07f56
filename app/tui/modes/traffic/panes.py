"""The other panes of the Traffic screen: what is tested, the answer, the patterns, and the ranks of one."""

from __future__ import annotations

from rich.cells import cell_len

from kvdeck.app.tui.export import Table
from kvdeck.app.tui.modes.traffic.figures import PatternLine, RankRow, TrafficView, answer
from kvdeck.app.tui.widgets.lines import Lines, Row, cell, heading
from kvdeck.app.tui.widgets.list import Listing
from kvdeck.app.tui.widgets.scroll import Scrolled
from kvdeck.app.tui.widgets.table import Column
from kvdeck.sessions.text.tables import wrapped
from kvdeck.sessions.units import figure, many, range_text, ratio_figure, size_text

BAR, ASCII_BAR = "█", "#"


class About(Lines):
    """What is tested, in one line, and the keys to change it."""

    DEFAULT_CSS = "About { height: 1; }"
    text = ""
    offers = "o open  m make  r run"

    def show(self, text: str) -> None:
        """Show another text."""
        self.text = text
        self.redraw()

    def rows(self, width: int, height: int) -> list[Row]:
        offers = f" {self.offers} " if width >= 100 else ""
        return [(cell(f" {self.text}", width - len(offers), "!"), (offers, "dim"))]


class AnswerPane(Lines):
    """The answer in a frame; it is as high as its words need, three rows at most."""

    DEFAULT_CSS = "AnswerPane { height: 4; }"
    view = TrafficView()

    def show(self, view: TrafficView) -> None:
        """Answer for a test."""
        self.view = view
        self.redraw()

    def rows(self, width: int, height: int) -> list[Row]:
        found = answer(self.view)
        note = f" {found.note} ─" if found.note else "─"
        left = "╭─ Answer "
        lines = wrapped(found.text, width - 8)
        room = height - 2
        if len(lines) > room:
            lines = [*lines[: room - 1], f"{lines[room - 1]} …"]
        rule = "─" * max(0, width - 3 - cell_len(left) - cell_len(note))
        rows: list[Row] = [((" ", ""), (left, "rule"), (rule, "rule"),
                            (note, "bad" if self.view.verified is False else "dim"), ("╮", "rule"))]  # fmt: skip
        tone = found.tone or "!"
        for line in (lines + [""] * room)[:room]:
            rows.append(((" │  ", "rule"), cell(line, width - 7, tone), (" │", "rule")))
        return [*rows, ((" ╰", "rule"), ("─" * max(0, width - 4), "rule"), ("╯", "rule"))]


def _ratio_tone(row: PatternLine) -> str:
    return "warn" if row.collides else "dim" if row.interval is None else ""


def _state(row: PatternLine) -> str:
    return "◌" if row.running else "▲" if row.collides else ""


def pattern_columns(width: int) -> list[Column[PatternLine]]:
    """Return the columns of the patterns' table that fit; the ratio stays longest."""
    columns: list[Column[PatternLine]] = [
        Column("pattern", 9, lambda row: f"#{row.number} {row.operation}", right=False),
        Column("bytes", 8, lambda row: size_text(row.size)),
        Column("alone ms", 8, lambda row: figure(row.alone_ms)),
        Column("together", 8, lambda row: figure(row.together_ms)),
        Column("ratio", 5, _ratio, _ratio_tone),
        Column("95 %", 9, _interval, _ratio_tone),
        Column("GB/s", 5, lambda row: figure(row.gb_per_s)),
        Column("last", 4, lambda row: "" if row.last is None else f"r{row.last}", lambda _: "dim"),
        Column("", 1, _state, lambda row: "warn" if row.collides else "run", right=False),
    ]
    if width >= sum(column.width + 1 for column in columns) + 8:
        columns.insert(1, Column("shards", 6, lambda row: str(row.shards), lambda _: "dim"))
    # The narrower the pane, the fewer: what is asked is whether they collide.
    for title in ("GB/s", "alone ms", "together", "last", "95 %", "bytes"):
        if sum(column.width + 1 for column in columns) + 1 <= width:
            break
        columns = [column for column in columns if column.title != title]
    return columns


def _ratio(row: PatternLine) -> str:
    if row.ratio is None:
        return "–"
    return ratio_figure(row.ratio) if row.interval is not None else f"≈{ratio_figure(row.ratio)}"


def _interval(row: PatternLine) -> str:
    return "–" if row.interval is None else range_text(row.interval.low, row.interval.high)


class PatternList(Listing[PatternLine]):
    """The patterns, with their congestion ratio; Enter goes to a pattern's matrix."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__("Patterns", pattern_columns, lambda row: str(row.number), id=id)
        self.measured = ""

    def rows(self, width: int, height: int) -> list[Row]:
        if not self.measured or height < 6:
            return super().rows(width, height)
        found = super().rows(width, height - 1)
        blank: list[Row] = [()] * max(0, height - 1 - len(found))
        return [*found, *blank, (cell(f" {self.measured}", width, "dim"),)]


def rank_rows(ranks: tuple[RankRow, ...], width: int) -> list[Row]:
    """Return a bar for each rank, as long as its share of the fastest one's GB/s."""
    most = max((row.gb_per_s for row in ranks if row.gb_per_s is not None), default=0.0)
    hosts = max((len(row.host) for row in ranks), default=0)
    hosts = min(hosts, 14)
    room = max(4, width - 7 - hosts - 12)
    rows: list[Row] = []
    for row in ranks:
        tone = "warn" if row.straggler else ""
        label = cell(f" r{row.rank}", 6, tone or "dim")
        host = (cell(row.host, hosts, "dim"), (" ", "")) if hosts else ()
        if row.gb_per_s is None or not most:
            rows.append((label, *host, ("–", "dim")))
            continue
        bar = BAR * max(1, round(room * row.gb_per_s / most))
        mark = " ▲" if row.straggler else ""
        rows.append((label, *host, (bar, tone or "run"), (f" {figure(row.gb_per_s)}{mark}", tone)))
    return rows


class RankPane(Scrolled):
    """GB/s of each rank's own bytes over its own time, the slowest first."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.ranks: tuple[RankRow, ...] = ()
        self.pattern: int | None = None

    def show(self, ranks: tuple[RankRow, ...], pattern: int | None) -> None:
        """Show the ranks of a pattern."""
        infinite = float("inf")
        slowest = sorted(ranks, key=lambda row: (infinite if row.gb_per_s is None else row.gb_per_s, row.rank))
        self.ranks = tuple(slowest)
        self.pattern = pattern
        self.redraw()

    def rows(self, width: int, height: int) -> list[Row]:
        title = "Ranks" if self.pattern is None else f"Ranks of #{self.pattern}, GB/s"
        if self.pattern is not None and width >= 60:
            title = f"Ranks in pattern {self.pattern} · GB/s of its own bytes"
        if not self.ranks:
            head = heading(title, width, self.has_focus)
            return [head, (cell(" Shown once the pattern was measured.", width, "dim"),)]
        room = max(1, height - 1)
        self.top = max(0, min(self.top, len(self.ranks) - room))
        below = len(self.ranks) - room - self.top
        note = f"↓ {below} more" if below > 0 else f"↑ {self.top} more" if self.top else "slowest first"
        head = heading(title, width, self.has_focus, note)
        # All of them, so that the bars don't change their scale while one scrolls.
        return [head, *rank_rows(self.ranks, width)[self.top : self.top + room]]

    def table(self) -> Table | None:
        rows = [
            (f"r{row.rank}", row.host, figure(row.gb_per_s), "straggler" if row.straggler else "") for row in self.ranks
        ]
        return Table("ranks", ("rank", "host", "GB/s", ""), tuple(rows))


def about_text(view: TrafficView, ranks: int, changed: bool) -> str:
    """Return what is tested, in one line."""
    if not view.patterns:
        return view.about or "no patterns"
    played = many(ranks, "rank")
    if 0 < view.processes < ranks:
        played = f"{ranks} virtual ranks in {view.processes} process{'' if view.processes == 1 else 'es'}"
    parts = [view.about, many(len(view.patterns), "pattern"), played]
    hosts = len(set(view.hosts))
    if hosts > 1:
        parts.append(many(hosts, "host"))
    return " · ".join(part for part in parts if part) + (" · changed, not saved" if changed else "")
