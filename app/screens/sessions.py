"""Mode 4: the sessions that are kept, newest first."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.events import Key

from kvdeck.app.messages import FilterTyped, RowOpened, SessionRead, SessionsListed
from kvdeck.app.screens.frame import DeckScreen
from kvdeck.app.widgets.keys import LIST, RUN
from kvdeck.app.widgets.lines import Lines, Row, cell
from kvdeck.app.widgets.listing import Listing
from kvdeck.app.widgets.table import Column
from kvdeck.app.words import clock
from kvdeck.sessions.units import short_layout_name

if TYPE_CHECKING:
    from kvdeck.sessions.listing import SessionSummary

TONES = {"done": "ok", "running": "run", "queued": "dim", "failed": "bad", "crashed": "bad"}
SORTS = ("newest", "name", "state", "longest")


def _took(row: SessionSummary) -> float | None:
    return None if row.started is None or row.ended is None else row.ended - row.started


def sorted_rows(rows: tuple[SessionSummary, ...], key: str) -> list[SessionSummary]:
    """The rows by one of `SORTS`; among equals the newest first."""
    newest = sorted(rows, key=lambda row: (-row.created, row.name))
    if key == "name":
        return sorted(newest, key=lambda row: row.name)
    if key == "state":
        return sorted(newest, key=lambda row: row.state)
    return sorted(newest, key=lambda row: -(_took(row) or 0.0)) if key == "longest" else newest


def matching(rows: list[SessionSummary], text: str) -> list[SessionSummary]:
    """The rows in which every word of the text is found, in whatever case."""
    words = text.lower().split()
    if not words:
        return rows
    return [row for row in rows if all(word in _haystack(row) for word in words)]


def _haystack(row: SessionSummary) -> str:
    layouts = " ".join(short_layout_name(text) for text in row.layouts)
    return " ".join((row.name, row.state, *row.paths, *row.layouts, layouts, *row.tags, row.note)).lower()


def _columns(width: int) -> list[Column[SessionSummary]]:
    columns: list[Column[SessionSummary]] = [
        Column("session", 22 if width < 110 else 34, lambda r: r.name, right=False),
        Column("state", 11, lambda r: r.state, lambda r: TONES.get(r.state, "warn"), right=False),
        Column(
            "made",
            16,
            lambda r: time.strftime("%Y-%m-%d %H:%M", time.localtime(r.created)),
            lambda _: "dim",
            right=False,
        ),
        Column("took", 7, lambda r: clock(_took(r)), lambda _: "dim"),
    ]
    if width >= 110:
        columns.append(Column("steps", 5, lambda r: str(r.steps)))
    left = width - 1 - sum(column.width + 1 for column in columns) - 1
    columns.append(
        Column("  paths", max(7, left), lambda r: "  " + (", ".join(r.paths) or r.reason or ""), right=False)
    )
    return columns


class FilterBar(Lines, can_focus=True):
    """What `/` types, and what sorts. While it has the focus every letter is a part of the filter."""

    text, sort, count, total = "", SORTS[0], 0, 0

    def rows(self, width: int, height: int) -> list[Row]:
        right = f"{self.count:,} of {self.total:,} · by {self.sort} "
        typed = (
            f" / {self.text}{'▏' if self.has_focus else ''}" if self.has_focus or self.text else " / filters, s sorts"
        )
        return [(cell(typed, width - len(right), "key" if self.has_focus or self.text else "dim"), (right, "dim"))]

    def check_consume_key(self, key: str, character: str | None) -> bool:
        return character is not None and character.isprintable()

    def on_key(self, event: Key) -> None:
        if event.key in ("enter", "down", "escape"):
            text = "" if event.key == "escape" else self.text
        elif event.key == "backspace":
            text = self.text[:-1]
        elif event.is_printable and event.character:
            text = self.text + event.character
        else:
            return
        event.stop()
        event.prevent_default()
        self.text = text
        self.post_message(FilterTyped(text, ended=event.key in ("enter", "down", "escape")))


class SessionsScreen(DeckScreen):
    """The list; Enter opens a result."""

    CSS_PATH = "sessions.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "slash",
            "filter",
            "filter",
            key_display="/",
            id="sessions.filter",
            tooltip="Show only rows with these words",
            group=LIST,
        ),
        Binding("s", "sort", "sort", id="sessions.sort", tooltip="By age, name, state or length", group=LIST),
        Binding("r", "reread", "refresh", id="sessions.refresh", tooltip="Read the folder again", group=RUN),
        Binding("escape", "back", "Back", show=False, id="sessions.back", tooltip="Clear the filter", group=LIST),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.kept: tuple[SessionSummary, ...] = ()
        self.error = ""
        self.known: tuple[tuple[str, str], ...] | None = None

    def body(self) -> ComposeResult:
        yield FilterBar(id="filter")
        yield Listing("Sessions", _columns, lambda row: row.name, id="list")

    def on_mount(self) -> None:
        self.query_one("#list", Listing).show((), "reading …")
        self.query_one("#list").focus()
        super().on_mount()

    def apply(self, snapshot: object) -> None:
        super().apply(self.app.snapshot)
        known = tuple((run.session, run.state) for run in self.app.snapshot.runs)
        if known != self.known:
            self.known = known
            self.action_reread()

    def action_reread(self) -> None:
        self.app.list_sessions()

    def on_sessions_listed(self, message: SessionsListed) -> None:
        self.kept, self.error = message.rows, message.error
        self._fill()

    def _fill(self) -> None:
        bar = self.query_one(FilterBar)
        rows = matching(sorted_rows(self.kept, bar.sort), bar.text)
        bar.count, bar.total = len(rows), len(self.kept)
        bar.redraw()
        none = (
            "no session has these words · Esc clears the filter"
            if bar.text
            else "no session yet · 2, then r, makes one"
        )
        self.query_one("#list", Listing).show(rows, self.error or none)

    def action_sort(self) -> None:
        bar = self.query_one(FilterBar)
        bar.sort = SORTS[(SORTS.index(bar.sort) + 1) % len(SORTS)]
        self._fill()

    def action_filter(self) -> None:
        self.query_one(FilterBar).focus()

    def action_back(self) -> None:
        self.query_one(FilterBar).text = ""
        self._fill()

    def on_filter_typed(self, message: FilterTyped) -> None:
        self._fill()
        if message.ended:
            self.query_one("#list").focus()

    def on_row_opened(self, message: RowOpened) -> None:
        self.app.read_session(message.key)

    def on_session_read(self, message: SessionRead) -> None:
        if message.session is None:
            self.notify(message.error, severity="error", markup=False)
            return
        from kvdeck.app.screens.result import ResultScreen

        self.app.push_screen(ResultScreen(message.session))
