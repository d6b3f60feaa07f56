"""Mode 4: list of kvdeck's and Dynamo's sessions, newest first; two marked ones open as a Diff."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widget import Widget

from kvdeck.app.tui.comparison.report import replay_telemetry, report_rows
from kvdeck.app.tui.modes.base import OPENING, DeckScreen
from kvdeck.app.tui.widgets.filter_bar import SORTS, FilterBar, FilterTyped
from kvdeck.app.tui.widgets.key_bar import LIST, RUN
from kvdeck.app.tui.widgets.lines import Row, cell, heading, linked
from kvdeck.app.tui.widgets.list import Listing, Page, RowMoved, RowOpened
from kvdeck.app.tui.widgets.table import SHARED_WIDTH, Column
from kvdeck.app.tui.widgets.verdicts import result_text, rows_of_session, sentence, verdict_rows
from kvdeck.sessions import units
from kvdeck.sessions.errors import KvdeckError
from kvdeck.sessions.model.records import Session
from kvdeck.sessions.store.catalogue import matching
from kvdeck.sessions.text.run_report import is_telemetry
from kvdeck.sessions.text.tables import wrapped
from kvdeck.sessions.units import clock_text, many, short_layout_name

if TYPE_CHECKING:
    from textual.timer import Timer

    from kvdeck.sessions.store.index import SessionSummary

LIVE_S, LIVE_DYNAMO_S = 1.0, 60.0
"""Interval in s at which live sessions are read again; time in s after its last write that a Dynamo file counts as
live."""
MOST_WATCHED = 50
"""Number of newest sessions checked for changes by other processes."""
PREVIEW_S = 0.1
"""Time in s that the cursor rests on a row before its session is read."""
MOST_MARKED = 8
MOST_VERDICTS = 8
LEAST_LISTED = 6
"""Rows that the list has room for, however few there are."""
MOST_RESULTS = 60
"""Number of rows, from the first, whose verdicts are read; and those of the rows in view."""
PREVIEW, CHANGES = "preview", "changes"
"""Groups of workers of which one runs at a time."""
Identity: TypeAlias = "tuple[str, float, float | None]"
"""Name, begin and end of a session: a deleted one's name may be another's."""
TONES = {"recording": "run", "done": "ok", "running": "run", "queued": "dim", "failed": "bad", "crashed": "bad"}


def _took(row: SessionSummary) -> float | None:
    return None if row.started is None or row.ended is None else row.ended - row.started


def sorted_rows(rows: tuple[SessionSummary, ...], key: str) -> list[SessionSummary]:
    """Return the rows sorted by one of `SORTS`, the newest first among equals."""
    newest = sorted(rows, key=lambda row: (-row.created, row.name))
    if key == "name":
        return sorted(newest, key=lambda row: row.name)
    if key == "state":
        return sorted(newest, key=lambda row: row.state)
    return sorted(newest, key=lambda row: -(_took(row) or 0.0)) if key == "longest" else newest


_STAMP = re.compile(r"\d{8}-\d{6}-(?=.)")
_STATE = 16


def when_text(created: float, now: float) -> str:
    """Return when a session was made, with the day in words if it is today or yesterday."""
    day = units.local_time(created, "%Y-%m-%d")
    words = {units.local_time(now, "%Y-%m-%d"): "today", units.local_time(now - 86400, "%Y-%m-%d"): "yesterday"}
    return f"{words.get(day, day)} {units.local_time(created, '%H:%M')}"


def _shown_name(name: str, width: int) -> str:
    """Return a session's name: on the screen without its date, which stands beside it; whole where rows are copied."""
    return name if width >= SHARED_WIDTH else _STAMP.sub("", name, count=1)


def _identity(row: SessionSummary) -> Identity:
    return row.name, row.created, row.ended


def _columns(width: int, marked: Sequence[str], results: Mapping[Identity, str]) -> list[Column[SessionSummary]]:
    now = time.time()
    columns: list[Column[SessionSummary]] = [
        Column("", 1, lambda r: _mark(r.name, marked), lambda _: "key", right=False),
        Column("made", 16, lambda r: when_text(r.created, now), lambda _: "dim", right=False),
        Column("session", 20 if width < 90 else 28, lambda r: _shown_name(r.name, width), right=False),
        Column("state", _STATE, _state_text, lambda r: TONES.get(r.state, "warn"), right=False),
    ]
    left = width - 1 - sum(column.width + 1 for column in columns) - 1
    columns.append(
        Column("  result", max(7, left), lambda r: _about(r, results), right=False),
    )
    return columns


def _state_text(row: SessionSummary) -> str:
    took = _took(row) if row.kind in ("run", "telemetry") else None
    return row.state if took is None else f"{row.state} {clock_text(took)}"


def _mark(name: str, marked: Sequence[str]) -> str:
    """Return A for the baseline, B and on for the others, "" if unmarked."""
    return chr(ord("A") + marked.index(name)) if name in marked else ""


def _about(row: SessionSummary, results: Mapping[Identity, str]) -> str:
    """Return what came out: the verdicts, or why there are none, behind tags and origin."""
    tags = f"#{' #'.join(row.tags)} " if row.tags else ""
    origin = {"dynamo": "dynamo's ", "imported": "imported ", "trace": "trace ", "telemetry": "telemetry "}.get(
        row.kind, ""
    )
    counted = many(row.transfers, "transfer") if row.transfers else ""
    bad = row.reason if row.state not in ("done", "running", "queued") else ""
    outcome = results.get(_identity(row)) or bad or row.about or ", ".join(row.paths) or row.reason or ""
    return f"  {tags}{origin}{' · '.join(filter(None, (counted, outcome)))}"


@dataclass(frozen=True, slots=True)
class Preview:
    """The session under the cursor, or why it can't be read."""

    name: str
    session: Session | None
    error: str = ""


class SessionsScreen(DeckScreen):
    """The list beside a preview of the session under the cursor; Enter opens a session."""

    CSS_PATH = "sessions.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "space",
            "mark",
            "mark",
            id="sessions.mark",
            tooltip="Mark this session for comparison: A, then B",
            group=LIST,
        ),
        Binding(
            "d",
            "diff",
            "diff",
            id="sessions.diff",
            tooltip="Compare the marked sessions, or this run's layouts",
            group=RUN,
        ),
        Binding(
            "v",
            "view",
            "telemetry",
            show=False,
            id="sessions.telemetry",
            tooltip="Replay the session's telemetry in the Monitor",
            group=RUN,
        ),
        Binding(
            "slash",
            "filter",
            "filter",
            key_display="/",
            id="sessions.filter",
            tooltip="Filter rows by words",
            group=LIST,
        ),
        Binding(
            "s",
            "sort",
            "sort",
            show=False,
            id="sessions.sort",
            tooltip="Sort by age, name, state or duration",
            group=LIST,
        ),
        Binding(
            "E", "export", "export", id="sessions.export", tooltip="Export to a file: .json, .csv, .md …", group=LIST
        ),
        Binding(
            "N",
            "name('rename')",
            "rename",
            show=False,
            id="sessions.rename",
            tooltip="Rename the session",
            group=LIST,
        ),
        Binding("T", "name('tag')", "tag", show=False, id="sessions.tag", tooltip="Set the session's tags", group=LIST),
        Binding(
            "n", "name('note')", "note", show=False, id="sessions.note", tooltip="Write the session's note", group=LIST
        ),
        Binding(
            "D", "delete", "delete", id="sessions.delete", tooltip="Delete the session, after confirmation", group=LIST
        ),
        Binding("o", "open", "open", show=False, id="sessions.open", tooltip="Open this session", group=LIST),
        Binding("r", "reread", "refresh", show=False, id="sessions.refresh", tooltip="Reload the list", group=RUN),
        Binding(
            "escape",
            "back",
            "Back",
            show=False,
            id="sessions.back",
            tooltip="Clear the filter, then the marks",
            group=LIST,
        ),
    ]

    PANES: ClassVar = {"preview": "preview"}

    def __init__(self) -> None:
        super().__init__()
        self.kept: tuple[SessionSummary, ...] = ()
        self.error = ""
        self.known: tuple[tuple[str, str], ...] | None = None
        self.marked: list[str] = []
        self.previewed: Preview | None = None
        self.results: dict[Identity, str] = {}
        """Verdicts of each run in one line."""
        self._selected = ""
        """The followed run that the cursor was put on last."""
        self._arriving = True
        """Whether this mode was opened and its list not shown since: only then the cursor goes to the followed run."""
        self._loading = False
        """Whether results are being read."""
        self._wait: Timer | None = None
        self._fingerprint: tuple[int, ...] = ()
        self._listing = self._outdated = False
        """Whether the list is being read, and whether it is to be read again after that."""

    def body(self) -> ComposeResult:
        yield FilterBar(id="filter")
        with Widget(id="split"):
            yield Listing(
                "Sessions", lambda width: _columns(width, self.marked, self.results), lambda row: row.name, id="list"
            )
            yield Page(self._preview_rows, id="preview")

    def on_mount(self) -> None:
        if (sort := self.app.memory.get("sort")) in SORTS:
            self.query_one(FilterBar).sort = sort
        self.query_one("#list", Listing).show((), "reading …")
        self.query_one("#preview").can_focus = False
        self.query_one("#list").focus()
        self.set_interval(LIVE_S, self._reread_live)
        super().on_mount()

    def apply(self, engine: object) -> None:
        super().apply(self.app.engine)
        known = tuple((run.session, run.state) for run in self.app.engine.runs)
        if known != self.known:
            self.known = known
            self.action_reread()
        elif self.kept and not self._listing:
            self._select_newest_run()

    def _reread_live(self) -> None:
        """Reread live or changed sessions: other processes write, tag and rename them without the engine's
        knowledge."""
        now = time.time()
        counting = any(row.state == "recording" for row in self.kept)
        dynamo = any(row.kind == "dynamo" and now - (row.ended or 0) < LIVE_DYNAMO_S for row in self.kept)
        if not self.is_current or self.app.paused:
            return
        if counting or dynamo:
            self.action_reread()
        else:
            names = tuple(row.name for row in self.kept[:MOST_WATCHED] if row.kind != "dynamo")
            self.ask(lambda: self._look_for_changes(names), CHANGES, exclusive=True)

    async def _look_for_changes(self, names: tuple[str, ...]) -> None:
        before, self._fingerprint = self._fingerprint, await self.app.requests.fingerprint(names)
        if before and before != self._fingerprint:
            self.action_reread()

    def action_reread(self) -> None:
        self._outdated = True
        if not self._listing:
            self._listing = True
            self.ask(lambda: self._list_sessions(), "list")

    async def _list_sessions(self) -> None:
        """Read the list until it is up to date; reading it again at each change would never end on a slow disk."""
        try:
            while self._outdated:
                self._outdated = False
                try:
                    rows, error = await self.app.requests.list_sessions(), ""
                except KvdeckError as failure:
                    rows, error = (), str(failure)
                self._show_sessions(rows, error)
        finally:
            self._listing = False

    def _show_sessions(self, rows: tuple[SessionSummary, ...], error: str) -> None:
        before = self._here()
        self.kept, self.error = rows, error
        self.marked = [name for name in self.marked if any(row.name == name for row in self.kept)]
        self._fill()
        self._select_newest_run()
        if (row := self._here()) is not None and row != before:
            self._preview(row.name)

    def _select_newest_run(self) -> None:
        """Put the cursor on the followed run's row, once, and only when the mode was just opened."""
        run, arriving, self._arriving = self.app.engine.run, self._arriving, False
        if run is None or run.session == self._selected or not arriving:
            return
        if any(row.name == run.session for row in self.kept):
            self._selected = run.session
            self.query_one("#list", Listing).go_to(run.session)

    def on_screen_suspend(self) -> None:
        self._arriving = self not in self.app.screen_stack

    def _want_results(self) -> None:
        if not self._loading:
            self._loading = True
            self.ask(lambda: self._load_results(), "results")

    async def _load_results(self) -> None:
        """Read verdicts until all are known; beginning anew at each change would never end on a slow disk."""
        try:
            while (row := self._without_result()) is not None:
                try:
                    self.results[_identity(row)] = result_text(await self.app.requests.load_session(row.name))
                except KvdeckError:
                    self.results[_identity(row)] = ""  # its state says that it can't be read
                self.query_one("#list", Listing).redraw()
        finally:
            self._loading = False

    def _without_result(self) -> SessionSummary | None:
        """Return the first run that has ended and whose verdicts aren't known: of the rows in view, then of the rows
        from the first."""
        listing: Listing[SessionSummary] = self.query_one("#list", Listing)
        wanted = [*listing.items[listing.top : listing.top + listing.size.height], *listing.items[:MOST_RESULTS]]
        runs = (row for row in wanted if row.kind == "run" and row.ended is not None)
        return next((row for row in runs if _identity(row) not in self.results), None)

    def _here(self) -> SessionSummary | None:
        return self.query_one("#list", Listing).under_cursor

    def _fill(self) -> None:
        bar = self.query_one(FilterBar)
        rows = matching(sorted_rows(self.kept, bar.sort), bar.text.split())
        bar.count, bar.total = len(rows), len(self.kept)
        bar.redraw()
        none = "no session matches · Esc clears the filter" if bar.text else "no session yet · 2, then r, starts a run"
        self.query_one("#list", Listing).show(rows, self.error or none, "bad" if self.error else "dim")
        self._share_height()
        self._want_results()

    def _share_height(self) -> None:
        """Give the list the rows that it needs, and all of them where there is no preview below it."""
        listing: Listing[SessionSummary] = self.query_one("#list", Listing)
        previewed = bool(listing.items) and self.has_class("-tall") and "preview" not in self.hidden
        self.set_class(previewed, "-previewed")
        listing.styles.height = 1 + max(LEAST_LISTED, len(listing.items)) if previewed else "1fr"

    def on_resize(self) -> None:
        self.call_after_refresh(self._share_height)

    def switch_pane(self, pane: str) -> None:
        super().switch_pane(pane)
        self._share_height()

    def action_sort(self) -> None:
        bar = self.query_one(FilterBar)
        bar.sort = self.app.memory["sort"] = SORTS[(SORTS.index(bar.sort) + 1) % len(SORTS)]
        self._fill()

    def action_filter(self) -> None:
        self.query_one(FilterBar).focus()

    def action_back(self) -> None:
        bar = self.query_one(FilterBar)
        if not bar.text:
            self.marked = []
        bar.text = ""
        self._fill()

    def on_filter_typed(self, message: FilterTyped) -> None:
        self._fill()
        if message.ended:
            self.query_one("#list").focus()

    # --- the preview ---

    def on_row_moved(self, message: RowMoved) -> None:
        if self._wait is not None:
            self._wait.stop()
        self._want_results()
        name = message.key
        if name is None or (self.previewed is not None and self.previewed.name == name):
            self.query_one("#preview", Page).redraw()
            return
        self._wait = self.set_timer(PREVIEW_S, lambda: self._preview(name))

    def _preview(self, name: str) -> None:
        self.ask(lambda: self._load_preview(name), PREVIEW, exclusive=True)

    async def _load_preview(self, name: str) -> None:
        try:
            self.previewed = Preview(name, await self.app.requests.load_session(name))
        except KvdeckError as error:
            self.previewed = Preview(name, None, str(error))
        self.query_one("#preview", Page).redraw()

    def _preview_rows(self, width: int, focused: bool) -> list[Row]:
        row, shown = self._here(), self.previewed
        if row is None:
            return [heading("", width)]
        if shown is None or shown.name != row.name:
            return [heading(row.name, width), (cell(" reading …", width, "dim"),)]
        if shown.session is None:
            return [
                heading(row.name, width),
                *((cell(f" {line}", width, "bad"),) for line in wrapped(shown.error, width - 2)),
            ]
        head = linked(heading(row.name, width, focused, "Enter opens the whole report"), self.link_to(row.name))
        verdicts = rows_of_session(shown.session)
        answer: Row = (cell(f" {sentence(verdicts, width - 2)}", width, "!"),)
        shown_first = [answer, *verdict_rows(verdicts, width, MOST_VERDICTS), ()] if verdicts else []
        return [head, *shown_first, *report_rows(shown.session, width)]

    def session_shown(self) -> str:
        row = self._here()
        return "" if row is None else row.name

    # --- actions on sessions ---

    def action_mark(self) -> None:
        row = self._here()
        if row is None:
            return
        if row.name in self.marked:
            self.marked.remove(row.name)
        elif len(self.marked) < MOST_MARKED:
            self.marked.append(row.name)
        listing = self.query_one("#list", Listing)
        listing.action_move(1)
        listing.redraw()

    def action_diff(self) -> None:
        row = self._here()
        names = list(self.marked)
        if len(names) < 2 and row is not None and row.name not in names:
            names.append(row.name)
        if len(names) >= 2:
            self._compare(tuple(names))
        elif row is not None and len(row.layouts) >= 2:
            self._compare(tuple(f"{row.name}:{short_layout_name(text)}" for text in row.layouts[:2]))
        else:
            self.notify("mark two sessions with space first, or select one with two layouts", severity="warning")

    def _compare(self, names: tuple[str, ...]) -> None:
        self.ask(lambda: self._open_comparison(names), OPENING, exclusive=True)

    async def _open_comparison(self, names: tuple[str, ...]) -> None:
        sessions = await self.app.requests.load_parts(names)
        if all(map(is_telemetry, sessions)):
            from kvdeck.app.tui.modes.sessions.diff_telemetry import open_recordings

            open_recordings(self, sessions)
        elif len(sessions) == 2:
            from kvdeck.app.tui.comparison.diff import DiffScreen

            self.app.push_screen(DiffScreen(*sessions))
        else:
            from kvdeck.app.tui.modes.sessions.diff_many import VersusScreen

            self.app.push_screen(VersusScreen(sessions))

    def action_view(self) -> None:
        row = self._here()
        if row is not None:
            self.ask(lambda: self._replay(row.name), OPENING, exclusive=True)

    async def _replay(self, name: str) -> None:
        replay_telemetry(self, await self.app.requests.load_session(name))

    def action_name(self, what: str) -> None:
        row = self._own()
        if row is None:
            return
        value = {"rename": row.name, "tag": " ".join(row.tags), "note": row.note}[what]
        asked = {"rename": "New name of", "tag": "Tags, separated by spaces, of", "note": "Note on"}[what]
        self._ask_text(what, row.name, f"{asked} {row.name}", value)

    def action_export(self) -> None:
        row = self._here()
        if row is not None:
            note = ".json: Dynamo's · .kvdeck.json: everything · .csv · .md · .parquet"
            if row.kind == "telemetry":
                note = ".csv, .json: flows over time · .jsonl: all samples · .md"
            self._ask_text("export", row.name, f"Export {row.name} to", f"{row.name}.json", note)

    def _ask_text(
        self, what: str, name: str, asked: str, value: str, note: str = "Enter confirms · Esc cancels"
    ) -> None:
        from kvdeck.app.tui.dialogs.prompt import AskText

        def answered(text: str | None) -> None:
            if text is not None and (text != value or what == "export"):
                self._change(what, name, text, value)

        self.app.push_screen(AskText(asked, value, note), answered)

    def action_delete(self) -> None:
        from kvdeck.app.tui.dialogs.confirm import Ask

        row = self._own()
        if row is None:
            return

        def sure(yes: bool | None) -> None:
            if yes:
                self._change("delete", row.name)

        def once(yes: bool | None) -> None:
            if yes:
                self.app.push_screen(Ask("This can't be undone.", row.name), sure)

        counted = many(row.transfers, "counted transfer")
        held = {"run": many(row.steps, "result"), "telemetry": "samples"}.get(row.kind, counted)
        self.app.push_screen(Ask(f"Delete {row.name}?", f"with its {held}"), once)

    def _own(self) -> SessionSummary | None:
        """Return the row under the cursor; None, with a warning, if it is Dynamo's."""
        row = self._here()
        if row is not None and row.kind == "dynamo":
            self.notify("this is Dynamo's file and can't be changed · fix: export or import it", severity="warning")
            return None
        return row

    def _change(self, what: str, name: str, value: str = "", before: str = "") -> None:
        if self.app.may_command():
            self.ask(lambda: self._change_session(what, name, value, before), "change")

    async def _change_session(self, what: str, name: str, value: str, before: str) -> None:
        try:
            self.notify(await self.app.requests.change_session(what, name, value, before), markup=False)
        finally:
            self.previewed = None
            self.action_reread()

    def action_open(self) -> None:
        self.query_one("#list", Listing).action_open()

    async def on_row_opened(self, message: RowOpened) -> None:
        row = self._here()
        if row is not None and row.kind == "telemetry":
            await self.app.replay(row.name)
        else:
            self.ask(lambda: self._open_report(message.key), OPENING, exclusive=True)

    async def _open_report(self, name: str) -> None:
        from kvdeck.app.tui.comparison.report import ResultScreen

        self.app.push_screen(ResultScreen(await self.app.requests.load_session(name)))
