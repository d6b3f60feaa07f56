"""Diff of two sessions: rows of ratios, and the details of the row under the cursor."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from kvdeck.app.tui.export_tables import curve_table, distribution_table
from kvdeck.app.tui.modes.base import DeckScreen
from kvdeck.app.tui.widgets.bars import curve_rows
from kvdeck.app.tui.widgets.key_bar import LIST, RUN
from kvdeck.app.tui.widgets.lines import Lines, Row, cell, heading
from kvdeck.app.tui.widgets.list import Listing, Page, RowMoved
from kvdeck.app.tui.widgets.report_lines import line_row
from kvdeck.app.tui.widgets.strips import share_rows, strip_rows
from kvdeck.app.tui.widgets.table import Column
from kvdeck.app.tui.widgets.verdicts import forest, framed, scale_of, scale_text
from kvdeck.sessions.analysis.compare import Diff, Insight, Side, compare, key_text, ratio_sentence
from kvdeck.sessions.analysis.compare import Row as Compared
from kvdeck.sessions.analysis.entries import entries
from kvdeck.sessions.text.comparison_report import TELEMETRY, diff_markdown, insight_text
from kvdeck.sessions.text.telemetry_comparison_report import telemetry_diff_lines
from kvdeck.sessions.units import (
    count_text,
    figure,
    local_time,
    many,
    number_text,
    plain_text,
    ratio_text,
    shape_text,
    short_layout_name,
    size_text,
    time_text,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kvdeck.app.tui.export import Table
    from kvdeck.sessions.analysis.histograms import Histogram, Key
    from kvdeck.sessions.model.records import Session

A, B = "run", "warn"
"""Styles of the two sessions; the letters are shown too, so colour is not the only cue."""
View = Literal["times", "curves", "telemetry"]
_VERDICTS = {"faster": "B faster", "slower": "B slower", "no difference": "no difference", "undecided": "can't tell"}
_TONES = {"faster": "ok", "slower": "bad", "undecided": "dim"}


FEW_REQUESTS = 100
"""Requests of a step below which its p99 isn't known, and its interval is wide."""
MOST_CARE = 3


class Head(Lines):
    """The two sessions, and why to be careful with their comparison."""

    diff: Diff | None = None
    sessions: tuple[Session, Session] | None = None

    def rows(self, width: int, height: int) -> list[Row]:
        if self.diff is None or self.sessions is None:
            return []
        body: list[Row] = [
            ((f" {letter} ", style), cell(name, 34, "!"), cell(_session_text(session), width - 40, ""))
            for letter, style, name, session in zip(
                "AB", (A, B), (self.diff.a, self.diff.b), self.sessions, strict=True
            )
        ]
        care = care_texts(self.diff, *self.sessions)
        shown = care if len(care) <= height - 4 else care[: height - 5]
        body += [(cell(f" ▲ {text}", width - 2, "warn"),) for text in shown]
        if len(shown) < len(care):
            text = f" ▲ and {len(care) - len(shown)} more: y copies them all"
            body.append((cell(text, width - 2, "warn"),))
        return framed("A against B", "Esc back", body, width)


def _session_text(session: Session) -> str:
    """Return state, shape, day and host of a session."""
    shapes = dict.fromkeys((r.block_bytes, r.batch) for r in session.results)
    shape = shape_text(*next(iter(shapes))) if len(shapes) == 1 else many(len(shapes), "shape") if shapes else ""
    host = str(session.host.get("hostname") or "")
    return " · ".join(filter(None, (session.state, shape, local_time(session.created), host and f"host {host}")))


def care_texts(diff: Diff, a: Session, b: Session) -> list[str]:
    """Return why two sessions aren't compared lightly: how they ended, how few requests, what else differs."""
    found = [f"{name} is {session.state}" for name, session in (("A", a), ("B", b)) if session.state != "done"]
    for name, session in (("A", a), ("B", b)):
        least = min((r.iterations for r in session.results if r.status == "ok"), default=FEW_REQUESTS)
        if least < FEW_REQUESTS:
            found.append(f"{name} has only {many(least, 'request')} in a step")
    return [*found, *diff.differences]


class DiffSummary(Lines):
    """How many rows differ, and what only one of the two has."""

    diff: Diff | None = None

    def rows(self, width: int, height: int) -> list[Row]:
        diff = self.diff
        if diff is None or not height:
            return []
        counts = Counter(_VERDICTS.get(row.verdict or "", "no verdict") for row in shown_rows(diff))
        verdicts = " · ".join(f"{count} {word}" for word, count in counts.most_common())
        rows: list[Row] = [(cell(f" {verdicts or 'nothing in common'}", width, "!"),)]
        alone = [
            f"only in {name}: {'; '.join(keys)}" for name, keys in (("A", diff.only_a), ("B", diff.only_b)) if keys
        ]
        return [*rows, (cell(f" {' · '.join(alone)}", width, "dim"),)]


class Behind(Lines):
    """Details of the row under the cursor: figures, distributions or curves, and insights."""

    diff: Diff | None = None
    row: Compared | None = None
    curves = False

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.sessions: tuple[Session, Session] | None = None
        self.spreads: tuple[dict[Key, Histogram], dict[Key, Histogram]] | None = None

    def rows(self, width: int, height: int) -> list[Row]:
        if self.diff is None or self.row is None:
            return [heading("nothing to compare", width)]
        insights = self._insights(width)[: max(1, height // 3)]
        room = height - 1 - len(insights)
        left = min(44, width // 2)
        figures, plot = self._figures(left), self._plot(width - left - 1, room)
        title = key_text(self.row.path, self._layouts(), self.row.block_bytes, self.row.batch)
        body: list[Row] = []
        for y in range(room):
            beside = plot[y] if y < len(plot) else ()
            body.append((*(figures[y] if y < len(figures) else (cell("", left),)), (" ", ""), *beside))
        return [heading(title, width, note=self._note()), *body, *insights]

    @property
    def sweeps(self) -> bool:
        """True if the row has curves: one of the sessions was measured at several sizes."""
        return bool(self._sweep())

    def charts(self) -> list[Table]:
        if self.sessions is None or self.diff is None:
            return []
        name = f"{self.diff.a}-{self.diff.b}"
        sides = zip((self.diff.a, self.diff.b), self.spreads or ({}, {}), strict=True)
        return [distribution_table(name, sides), curve_table(name, self.sessions)]

    def _note(self) -> str:
        return (
            "GB/s against block size"
            if self._sweep() and self.curves
            else "request times: dots, box p25 to p75, line p50"
        )

    def _layouts(self) -> str:
        row = self.row
        assert row is not None
        names = ["+".join(short_layout_name(layout) for layout in side.layouts) for side in (row.a, row.b)]
        return names[0] if names[0] == names[1] else " against ".join(names)

    def _figures(self, width: int) -> list[Row]:
        row = self.row
        assert row is not None
        third = (width - 15) // 2
        rows: list[Row] = [(cell("", 15), cell("A", third, A, right=True), cell("B", third, B, right=True))]
        for name, a, b in _facts(row.a, row.b):
            differs = "" if a == b else "!"
            rows.append(
                (cell(f" {name}", 15, "dim"), cell(a, third, differs, right=True), cell(b, third, differs, right=True))
            )
        return rows

    def _plot(self, width: int, height: int) -> list[Row]:
        if self.curves and (lines := self._sweep()):
            return curve_rows(lines, width, height)
        if self.spreads is None:
            return [(cell(" reading the samples …", width, "dim"),)]
        times = [("A", A, self._spread(0)), ("B", B, self._spread(1))]
        strips = strip_rows(times, width)
        curves = share_rows(times, width, height - len(strips) - 2)
        return [*strips, (), (cell(" share of requests done within", width, "dim"),), *curves] if curves else strips

    def _spread(self, side: int) -> Histogram:
        row = self.row
        assert row is not None
        assert self.spreads is not None
        layouts = (row.a, row.b)[side].layouts
        found = self.spreads[side]
        return next(
            (found[key] for layout in layouts if (key := (row.path, layout, row.block_bytes, row.batch)) in found), ()
        )

    def _sweep(self) -> list[tuple[str, list[tuple[float, float]]]]:
        """Return a style and (bytes, GB/s) points per session; empty unless one of them has several sizes."""
        row = self.row
        if row is None or self.sessions is None or row.block_bytes is None:
            return []
        lines = []
        for session, side, style in zip(self.sessions, (row.a, row.b), (A, B), strict=True):
            points = [
                (float(entry.block_bytes), entry.gb_per_s.median)
                for entry in entries(session)
                if entry.path == row.path and entry.layout in side.layouts and entry.batch == row.batch
                if entry.block_bytes and entry.gb_per_s is not None
            ]
            lines.append((style, points))
        return lines if any(len({size for size, _ in points}) > 1 for _, points in lines) else []

    @staticmethod
    def _is_of(item: Insight, row: Compared) -> bool:
        # Across layouts, the ratio's own sentence covers it.
        return (item.layout, item.block_bytes, item.batch) == (row.layout, row.block_bytes, row.batch)

    def _insights(self, width: int) -> list[Row]:
        diff, row = self.diff, self.row
        assert diff is not None
        assert row is not None
        here = [item for item in diff.insights if item.path == row.path and self._is_of(item, row)]
        tones = {"improvement": "ok", "regression": "bad"}
        rows: list[Row] = [
            (
                cell(
                    f" {'+' if i.kind == 'improvement' else '−'} {insight_text(i)}",
                    width,
                    tones[i.kind] if i.judged else "",
                ),
            )
            for i in here
        ]
        for name, keys in (("A", diff.only_a), ("B", diff.only_b)):
            if keys:
                rows.append((cell(f" only in {name}: {'; '.join(keys)}", width, "dim"),))
        return [(cell(f" {ratio_sentence(row)}", width, _TONES.get(row.verdict or "", "dim")),), *rows]


class Rows(Listing[Compared]):
    """The comparison's rows; they can't be opened. An exported table has numbers in place of the bar."""

    names = ("A", "B")

    def table(self) -> Table:
        from kvdeck.app.tui.export import Table

        columns: list[tuple[str, Callable[[Compared], str]]] = [
            ("path", lambda r: r.path),
            ("layout A", lambda r: "+".join(r.a.layouts)),
            ("layout B", lambda r: "+".join(r.b.layouts)),
            ("block bytes", lambda r: _text(r.block_bytes)),
            ("batch", lambda r: _text(r.batch)),
            (f"GB/s A: {self.names[0]}", lambda r: _text(r.a.gb_per_s)),
            (f"GB/s B: {self.names[1]}", lambda r: _text(r.b.gb_per_s)),
            ("B's time over A's", lambda r: _text(r.ratio)),
            ("95 % low", lambda r: _text(r.low)),
            ("95 % high", lambda r: _text(r.high)),
            ("verdict", lambda r: r.verdict or "no times"),
            ("descriptors per block A", lambda r: _text(r.a.descriptors_per_block)),
            ("descriptors per block B", lambda r: _text(r.b.descriptors_per_block)),
        ]
        rows = tuple(tuple(text(row) for _, text in columns) for row in self.items)
        return Table("diff", tuple(title for title, _ in columns), rows)

    def check_action(self, action: str, _: tuple[object, ...]) -> bool | None:
        return action != "open"


def _text(value: float | None) -> str:
    """Return a number for another program: six digits if measured, all digits if counted."""
    return plain_text(value)


def _facts(a: Side, b: Side) -> list[tuple[str, str, str]]:
    def pair(name: str, text: object) -> tuple[str, str, str]:
        assert callable(text)
        return name, text(a), text(b)

    return [
        pair("GB/s", lambda side: figure(side.gb_per_s)),
        pair("  95 %", lambda side: "–" if side.low is None else f"{figure(side.low)}–{figure(side.high)}"),
        pair("time/block", lambda side: time_text(side.us_per_block)),
        pair(
            "desc./block",
            lambda side: number_text(side.descriptors_per_block),
        ),
        pair("transfers", lambda side: count_text(side.transfers)),
        pair("average size", lambda side: size_text(side.average_bytes)),
        pair("bytes", lambda side: size_text(side.bytes)),
        pair("blocks", lambda side: count_text(side.blocks)),
    ]


def _columns(width: int, rows: Sequence[Compared]) -> list[Column[Compared]]:
    def layouts(row: Compared) -> str:
        names = ["+".join(short_layout_name(layout) for layout in side.layouts) for side in (row.a, row.b)]
        return names[0] if names[0] == names[1] else " | ".join(names)

    def shape(row: Compared) -> str:
        return "" if row.block_bytes is None else f"{size_text(row.block_bytes)}×{count_text(row.batch)}"

    bar = 11 if width < 105 else min(41, (width - 95) | 1)
    scale = scale_of([bound for row in rows for bound in (row.ratio, row.low, row.high)])

    def plot(row: Compared) -> str:
        return forest(row.ratio, row.low, row.high, bar, scale)

    return [
        Column("path", 14, lambda r: r.path, lambda r: f"path:{r.path}", right=False),
        Column("layouts", 15, layouts, right=False),
        Column("size", 10, shape, lambda _: "dim"),
        Column("A GB/s", 7, lambda r: figure(r.a.gb_per_s), lambda _: A),
        Column("B GB/s", 7, lambda r: figure(r.b.gb_per_s), lambda _: B),
        Column("time", 7, lambda r: ratio_text(r.ratio), lambda r: _TONES.get(r.verdict or "", "")),
        Column(scale_text(scale, bar), bar, plot, lambda r: _TONES.get(r.verdict or "", "")),
        Column("", 13, _verdict_text, lambda r: _TONES.get(r.verdict or "", "dim"), right=False),
    ]


def _verdict_text(row: Compared) -> str:
    return _VERDICTS.get(row.verdict or "", row.verdict or "no times")


def _row_key(row: Compared) -> str:
    return repr((row.path, row.layout, row.block_bytes, row.batch))


def shown_rows(diff: Diff) -> list[Compared]:
    """Return the rows across layouts where the layouts differ, then those of one layout."""
    return [*(row for row in diff.paths if row.a.layouts != row.b.layouts), *diff.keys]


class DiffScreen(DeckScreen):
    """Compares sessions A and B; Esc returns to where it was opened."""

    CSS_PATH = "diff.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("X", "swap", "swap", id="diff.swap", tooltip="B becomes A", group=RUN),
        Binding("v", "view", "view", id="diff.view", tooltip="Show distributions, curves, or telemetry", group=LIST),
        Binding("y", "copy", "copy", id="diff.copy", tooltip="Copy as Markdown", group=LIST),
        Binding("escape", "back", "back", key_display="Esc", id="diff.back", tooltip="Go back", group=LIST),
    ]

    def __init__(self, a: Session, b: Session) -> None:
        super().__init__()
        self.a, self.b = a, b
        self.view: View = "times"

    def body(self) -> ComposeResult:
        yield Head(id="head")
        yield Rows("B's time over A's", self._columns, _row_key, id="rows")
        yield DiffSummary(id="summary")
        yield Behind(id="behind")
        yield Page(self._telemetry_rows, id="telemetry")

    def _columns(self, width: int) -> list[Column[Compared]]:
        return _columns(width, shown_rows(self.diff))

    def on_mount(self) -> None:
        self._compare()
        self._focus_view()
        super().on_mount()

    def _telemetry_rows(self, width: int, focused: bool) -> list[Row]:
        if self.diff.telemetry is None:
            return []
        rows = [line_row(line, width - 1) for line in telemetry_diff_lines(self.diff.telemetry, width - 2)]
        return [heading(TELEMETRY, width, focused), *rows]

    def _compare(self) -> None:
        self.diff = compare(self.a, self.b)
        head, behind = self.query_one(Head), self.query_one(Behind)
        head.diff = behind.diff = self.diff
        head.sessions = self.a, self.b
        head.styles.height = 4 + min(MOST_CARE, len(care_texts(self.diff, self.a, self.b)))
        summary = self.query_one(DiffSummary)
        summary.diff = self.diff
        summary.redraw()
        behind.sessions, behind.spreads = (self.a, self.b), None
        rows = shown_rows(self.diff)
        behind.row = rows[0] if rows else None
        if not rows and self.diff.telemetry is not None:
            self.view = "telemetry"  # there is nothing else to see
        elif self.view != "telemetry":
            self.view = "curves" if len({row.block_bytes for row in rows}) > 1 else "times"
        listing = self.query_one("#rows", Rows)
        listing.names = self.diff.a, self.diff.b
        listing.styles.height = 1 + max(1, len(rows))
        listing.show(rows, "nothing in common")
        head.redraw()
        self._show_view()
        self.call_after_refresh(lambda: self.ask(lambda: self._load_spreads(), "spreads", exclusive=True))

    async def _load_spreads(self) -> None:
        requests, behind = self.app.requests, self.query_one(Behind)
        behind.spreads = await requests.load_histograms(self.a), await requests.load_histograms(self.b)
        behind.redraw()

    def on_row_moved(self, message: RowMoved) -> None:
        behind = self.query_one(Behind)
        behind.row = self.query_one("#rows", Listing).under_cursor if message.key is not None else None
        behind.redraw()

    def action_swap(self) -> None:
        self.a, self.b = self.b, self.a
        self._compare()

    def action_view(self) -> None:
        behind = self.query_one(Behind)
        views: list[View] = ["times"]
        views += ["curves"] if behind.sweeps else []
        views += ["telemetry"] if self.diff.telemetry is not None else []
        shown = views.index(self.view) if self.view in views else 0
        self.view = views[(shown + 1) % len(views)]
        self._show_view()
        self._focus_view()

    def _focus_view(self) -> None:
        self.query_one("#telemetry" if self.view == "telemetry" else "#rows").focus()

    def _show_view(self) -> None:
        """Show the rows with their details, or the telemetry in place of both."""
        rows, behind, telemetry = self.query_one("#rows"), self.query_one(Behind), self.query_one("#telemetry", Page)
        telemetry.display = self.view == "telemetry"
        rows.display = behind.display = not telemetry.display
        behind.curves = self.view == "curves"
        behind.redraw()
        telemetry.redraw()

    def action_copy(self) -> None:
        care = tuple(care_texts(self.diff, self.a, self.b))
        self.app.copy_to_clipboard(diff_markdown(replace(self.diff, differences=care)))
        self.notify("copied as Markdown, if the terminal supports OSC 52", markup=False)

    def action_back(self) -> None:
        self.dismiss()


def diff_layouts(screen: DeckScreen, session: Session) -> None:
    """Open the diff of a session's first two layouts; warn if it has only one."""
    items = [result.layout for result in session.results] + [counts.layout for counts in session.transfer_counts]
    layouts = list(dict.fromkeys(items))
    if len(layouts) < 2:
        screen.notify("the run has only one layout", severity="warning")
        return
    from kvdeck.sessions.store.lookup import part

    screen.app.push_screen(DiffScreen(*(part(session, layout) for layout in layouts[:2])))
