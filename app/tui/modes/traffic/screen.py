"""Mode 5: patterns between ranks: opened or made, edited, measured alone and together, and compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical

from kvdeck.app.tui.modes.base import OPENING, SHORT, DeckScreen
from kvdeck.app.tui.modes.traffic.document import TrafficDocument
from kvdeck.app.tui.modes.traffic.figures import TrafficView
from kvdeck.app.tui.modes.traffic.heat_map import FRAME, MOST_CELLS, shown_ranks
from kvdeck.app.tui.modes.traffic.matrix_pane import MatrixPane
from kvdeck.app.tui.modes.traffic.panes import About, AnswerPane, PatternList, RankPane, about_text
from kvdeck.app.tui.modes.traffic.timeline_pane import TimelinePane
from kvdeck.app.tui.modes.traffic.times_pane import TimesPane
from kvdeck.app.tui.modes.traffic.view import RunView, config_view, plan_config
from kvdeck.app.tui.widgets.key_bar import RUN
from kvdeck.app.tui.widgets.list import RowMoved, RowOpened
from kvdeck.sessions.errors import KvdeckError
from kvdeck.sessions.model.records import FINAL_STATES
from kvdeck.sessions.model.traffic import TRAFFIC
from kvdeck.sessions.units import size_text

if TYPE_CHECKING:
    from kvdeck.app.tui.state import EngineState
    from kvdeck.engine.traffic.config import TrafficConfig
    from kvdeck.sessions.model.run_state import RunState

FOLDER = "traffic"
"""Folder of the patterns that the screen makes or saves, beside the sessions."""
KEPT = "traffic"
"""Key of the opened file in the deck's UI state."""
READING = "reading"
MOST_CHOICES = 200


class TrafficScreen(DeckScreen):
    """The answer above; the matrix beside the patterns; the ranks of one beside the time line of all."""

    CSS_PATH = "traffic.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("r", "launch", "run", id="traffic.run", tooltip="Measure the patterns, alone and together", group=RUN),
        Binding("x", "cancel", "cancel", id="traffic.cancel", tooltip="Cancel the test shown", group=RUN),
        Binding("o", "open", "open", id="traffic.open", tooltip="Open a YAML file or a traffic session", group=RUN),
        Binding("e", "edit", "edit", id="traffic.edit", tooltip="Edit the cell under the cursor", group=RUN),
        Binding("m", "make", "make", id="traffic.make", tooltip="Make matrices from a model's KV", group=RUN),
        Binding("d", "diff", "diff", id="traffic.diff", tooltip="Compare with the test before this one", group=RUN),
        Binding("w", "save", "write", id="traffic.save", tooltip="Save the patterns as YAML and matrices", group=RUN),
        Binding("escape", "back", "Back", show=False, id="traffic.back", tooltip="Go to the patterns", group=RUN),
    ]
    PANES: ClassVar = {"ranks": "ranks", "timeline": "time line", "times": "times"}

    def __init__(self) -> None:
        super().__init__()
        self.document = TrafficDocument()
        self.run: RunState | None = None
        """The run shown, live or stored; None if the document's patterns aren't measured."""
        self.error: KvdeckError | None = None
        """Why the last file can't be opened."""
        self._left = ""
        """Session of the engine's run that is no longer shown, since something else was opened or edited."""
        self._views = RunView()
        self._view = TrafficView()
        self._shown: tuple[object, ...] = ()

    def body(self) -> ComposeResult:
        yield About(id="about")
        yield AnswerPane(id="answer")
        with Horizontal(id="above"):
            yield MatrixPane(id="matrix")
            yield PatternList(id="patterns")
        with Horizontal(id="below"):
            with Vertical(id="left"):
                yield RankPane(id="ranks")
                yield TimesPane(id="times")
            yield TimelinePane(id="timeline")

    def on_mount(self) -> None:
        self.query_one(PatternList).focus()
        super().on_mount()
        last = self.app.memory.get(KEPT)
        if isinstance(last, str) and last:
            self._read(last, remembered=True)

    # --- what is shown ---

    def apply(self, engine: EngineState) -> None:
        super().apply(engine)
        run = engine.run
        kinds = {info.session: info.kind for info in engine.runs}
        if run is None or run.session == self._left:
            pass
        elif run.traffic is not None or kinds.get(run.session) == TRAFFIC:
            if self.run is None or self.run.session != run.session:
                self._views, self.error = RunView(), None
            self.run = run
        self._show()

    def _show(self) -> None:
        view = self._make_view()
        pattern = self.pattern
        key = view, pattern, self.document, self.error
        if self._shown and all(one is other for one, other in zip(key, self._shown, strict=True)):
            return
        self._shown, self._view = key, view
        config = self._config()
        self.query_one(About).show(about_text(view, config.ranks if config else 0, self.document.changed))
        self.query_one(AnswerPane).show(view)
        patterns = self.query_one(PatternList)
        patterns.measured = view.measured
        patterns.show(view.patterns, "No patterns: o opens, m makes some.")
        self._show_pattern()

    def _make_view(self) -> TrafficView:
        if self.error is not None:
            view = config_view(self.document.config, self.document.title)
            return replace(view, error=self.error.what, fix=self.error.fix or "", state="")
        if self.run is None:
            return config_view(self.document.config, self.document.title)
        if self.run.traffic is None:  # its ranks are not started yet, or couldn't be
            view = config_view(self.document.config, self.run.session)
            over = self.run.state in FINAL_STATES and self.run.state != "done"
            reason = (self.run.reason or f"the test {self.run.state}") if over else ""
            return replace(view, state=self.run.state, error=reason)
        return self._views.make(self.run, self.run.session)

    @property
    def pattern(self) -> int:
        """Number of the pattern under the cursor."""
        row = self.query_one(PatternList).under_cursor
        return 0 if row is None else row.number

    def _config(self) -> TrafficConfig | None:
        """Return the patterns shown: of the run, if it tells its cells, or of the document."""
        traffic = None if self.run is None else self.run.traffic
        if traffic is None or self.error is not None:
            return self.document.config
        planned = (traffic.iterations, traffic.warmup, *(pattern.plan for pattern in traffic.patterns))
        if self._planned[0] != planned:
            self._planned = planned, plan_config(traffic)
        return self._planned[1]

    _planned: tuple[tuple[Any, ...], TrafficConfig | None] = (), None

    def _show_pattern(self) -> None:
        view, number = self._view, self.pattern
        config = self._config()
        matrix = config.patterns[number].matrix if config is not None and number < len(config.patterns) else None
        empty = "The session doesn't hold so many cells." if view.patterns else "o opens a file, m makes matrices."
        chosen = number if view.patterns else None
        title = "Matrix" if chosen is None else f"Pattern {number}"
        self.query_one(MatrixPane).show(matrix, title, empty)
        self.query_one(RankPane).show(view.ranks[number] if number < len(view.ranks) else (), chosen)
        self.query_one(TimelinePane).show(view.stretches, chosen)
        self.query_one(TimesPane).show(*(view.times[number] if number < len(view.times) else ((), ())), chosen)
        self._divide()

    def _divide(self) -> None:
        """Give the panes above the rows that they need, three fifths of all at most."""
        pane, rows = self.query_one(MatrixPane), len(self._view.patterns)
        senders = 0 if pane.matrix is None else len(shown_ranks(pane.matrix, pane.everyone)[0])
        room = max(13, self.size.height - 7)
        needed = max(rows + 2, min(senders, MOST_CELLS) + FRAME + 1)
        height = max(8, min(needed, room * 3 // 5))
        above = self.query_one("#above")
        if above.styles.height is None or above.styles.height.value != height:
            above.styles.height = height
        # The times stand right below the ranks, if those leave room.
        ranks = self.query_one(RankPane)
        rows = max(3, min(len(ranks.ranks) + 1, self.size.height - 7 - height - 4))
        if self.size.height >= SHORT and (ranks.styles.height is None or ranks.styles.height.value != rows):
            ranks.styles.height = rows
        elif self.size.height < SHORT:
            ranks.styles.height = None

    def on_resize(self) -> None:
        if self.ready:
            self._divide()

    def on_row_moved(self, _: RowMoved) -> None:
        self._show_pattern()

    def on_row_opened(self, _: RowOpened) -> None:
        self.query_one(MatrixPane).focus()

    def action_back(self) -> None:
        matrix = self.query_one(MatrixPane)
        if matrix.has_focus and matrix.opened:
            matrix.action_open()
        else:
            self.query_one(PatternList).focus()

    def session_shown(self) -> str:
        return "" if self.run is None else self.run.session

    def would_lose(self) -> str:
        return "The edited patterns are not saved." if self.document.changed else ""

    # --- opening ---

    def action_open(self) -> None:
        self._sure_to_lose(lambda: self.ask(lambda: self._choose(), OPENING, exclusive=True))

    def _sure_to_lose(self, then: Callable[[], object]) -> None:
        """Call `then`, if edits would be lost after asking."""
        if not self.document.changed:
            then()
            return
        from kvdeck.app.tui.dialogs.confirm import Ask

        def answered(yes: bool | None) -> None:
            if yes:
                then()

        self.app.push_screen(Ask("Leave the edited patterns?", "They are not saved; w writes them."), answered)

    async def _choose(self) -> None:
        from kvdeck.app.tui.dialogs.picker import Choice, Picker

        requests = self.app.requests
        files = await requests.read(self._files)
        sessions = [row for row in await requests.list_sessions() if row.kind == "traffic"]
        choices = [
            *(Choice(text, "file") for text in files),
            *(Choice(row.name, f"session, {row.state}") for row in sessions[:MOST_CHOICES]),
        ]
        empty = "type the path of a YAML file or of its folder, with a slash, then Enter"
        self.app.push_screen(Picker("Open:", choices, empty), self._opened)

    def _opened(self, text: str | None) -> None:
        if text is not None:
            self._read(text)

    def _folder(self) -> Path:
        return self.app.requests.plans_folder().parent / FOLDER

    def _files(self) -> list[str]:
        """Return the YAML files of this screen's folder, the newest first."""
        from kvdeck.sessions.host.files import is_regular

        folder = self._folder()
        found = [path for pattern in ("*.yaml", "*/metadata.yaml") for path in folder.glob(pattern) if is_regular(path)]
        return [str(path) for path in sorted(found, key=lambda path: -path.stat().st_mtime)[:MOST_CHOICES]]

    def _read(self, text: str, remembered: bool = False) -> None:
        self.ask(lambda: self._open(text, remembered), READING, exclusive=True)

    async def _open(self, text: str, remembered: bool) -> None:
        """Open a file, or a session of that name; a file opened before that is gone is no error."""
        from kvdeck.app.tui.modes.traffic.document import open_document

        requests = self.app.requests
        try:
            if "/" in text or text.endswith((".yaml", ".yml")):
                document, run = await requests.read(lambda: open_document(text)), None
            else:
                run = await requests.load_run(text)
                document = TrafficDocument(source=text)
        except KvdeckError as error:
            if not remembered:
                self._leave_run()
                self.document, self.error = TrafficDocument(), error
                self._show()
            return
        if remembered and (self.run is not None or self.document.config.patterns):
            return  # something else came meanwhile
        self._leave_run()
        self.document, self.error, self.run, self._views = document, None, run, RunView()
        self.app.memory[KEPT] = text if run is not None else document.source
        self._show()

    def _leave_run(self) -> None:
        """Show the engine's run no longer."""
        engine = self.app.engine.run
        self._left = "" if engine is None else engine.session
        self.run = None

    # --- editing, making and saving ---

    def _taken(self) -> TrafficDocument | None:
        """Return the patterns shown as a document to edit; None, with a toast, if there are none."""
        if self.run is None or self.run.traffic is None:
            document = self.document
        else:
            config = self._config()
            if config is None:
                self.notify("the log doesn't hold its cells · fix: open its YAML file with o", severity="warning")
                return None
            # What is shown may be the run of this very document, which has a name of its own.
            same = self.document.config.patterns and self._same(config)
            document = self.document if same else TrafficDocument(config, self.run.session)
        if not document.config.patterns:
            self.notify("there are no patterns: o opens a file, m makes some", severity="warning")
            return None
        return document

    def _same(self, config: TrafficConfig) -> bool:
        mine = [(one.matrix, one.operation, one.shards) for one in self.document.config.patterns]
        return mine == [(one.matrix, one.operation, one.shards) for one in config.patterns]

    def action_edit(self) -> None:
        document = self._taken()
        pane = self.query_one(MatrixPane)
        if document is None or pane.matrix is None:
            return
        if pane.grouped:
            pane.action_open()
            pane.focus()
            self.notify("single ranks are shown now: go to a cell, then e", markup=False)
            return
        number, (source, destination) = self.pattern, pane.cell_shown
        from kvdeck.app.tui.dialogs.prompt import AskText
        from kvdeck.app.tui.modes.traffic.document import parse_cell

        async def check(text: str) -> str:
            return str(parse_cell(text))

        def answered(text: str | None) -> None:
            if text:
                self._become(document.with_cell(number, source, destination, int(text)))
                pane.point(source, destination)

        now = document.config.patterns[number].matrix.rows[source][destination]
        what = f"Bytes from r{source} to r{destination} in pattern {number}"
        note = f"now {size_text(now)} · bytes, or 64K, 1.5M, 2G · Esc cancels"
        self.app.push_screen(AskText(what, str(now), note, check), answered)

    def _become(self, document: TrafficDocument) -> None:
        if document is self.document or not document.changed:
            return
        self._leave_run()
        self.document, self.error = document, None
        self._show()

    def action_make(self) -> None:
        if self.app.may_command():
            self._sure_to_lose(self._ask_generator)

    def _ask_generator(self) -> None:
        from kvdeck.app.tui.modes.traffic.generator_dialog import KEPT as FORM
        from kvdeck.app.tui.modes.traffic.generator_dialog import GeneratorDialog
        from kvdeck.app.tui.modes.traffic.generator_form import GeneratorForm, remembered

        def answered(form: GeneratorForm | None) -> None:
            if form is not None:
                self.ask(lambda: self._generate(form), READING, exclusive=True)

        self.app.push_screen(GeneratorDialog(remembered(self.app.memory.get(FORM))), answered)

    async def _generate(self, form: Any) -> None:
        from kvdeck.app.tui.modes.traffic.generator_form import generate

        folder = self._folder() / form.title
        path = await self.app.requests.read(lambda: generate(form, folder))
        self.notify(f"written to {path}", markup=False)
        await self._open(str(path), remembered=False)

    def action_save(self) -> None:
        document = self._taken()
        if document is None or not self.app.may_command():
            return
        from kvdeck.app.tui.dialogs.prompt import AskText
        from kvdeck.sessions.host.user_home import expanded

        source = document.source
        name = source if source.endswith((".yaml", ".yml")) else str(self._folder() / f"{source or 'patterns'}.yaml")

        def answered(text: str | None) -> None:
            if text:
                self._save_if_sure(document, text)

        async def check(text: str) -> str:
            return str(expanded(text))

        note = "a YAML file; a matrix file of each pattern beside it"
        self.app.push_screen(AskText("Save the patterns to", name, note, check), answered)

    def _save_if_sure(self, document: TrafficDocument, text: str) -> None:
        from kvdeck.app.tui.dialogs.confirm import Ask

        def answered(yes: bool | None) -> None:
            if yes:
                self.ask(lambda: self._save(document, text), READING, exclusive=True)

        if Path(text).exists():
            self.app.push_screen(Ask("Replace the file?", text), answered)
        else:
            answered(True)

    async def _save(self, document: TrafficDocument, text: str) -> None:
        from kvdeck.app.tui.modes.traffic.document import save_document

        saved = await self.app.requests.read(lambda: save_document(document, text))
        self.notify(f"saved to {saved.source}", markup=False)
        self.app.memory[KEPT] = saved.source
        # It may have been edited again meanwhile.
        if self.document is document or not self.document.changed:
            self.document = saved
            self._show()

    # --- running ---

    def action_launch(self) -> None:
        document = self._taken()
        if document is None:
            return
        from kvdeck.app.tui.modes.traffic.document import spec_of

        try:
            spec = spec_of(document)
        except KvdeckError as error:
            self.notify(str(error), severity="error", markup=False)
            return
        self._left, self.error = "", None
        self.app.submit(spec, TRAFFIC)

    def action_cancel(self) -> None:
        run = self.run
        waiting = [info for info in self.app.engine.runs if info.kind == TRAFFIC and info.state == "queued"]
        if run is not None and run.state in ("queued", "running"):
            session = run.session
        elif waiting:
            session = waiting[-1].session
        elif self.app.submissions.unseen:
            if self.app.may_command():
                self.app.ask(lambda: self.app.submissions.cancel_last())
                self.notify("cancelling the submitted test")
            return
        else:
            self.notify("no test is in progress")
            return
        from kvdeck.app.tui.dialogs.confirm import Ask

        def answered(yes: bool | None) -> None:
            if yes:
                self.app.command(lambda: self.app.requests.cancel(session))

        self.app.push_screen(Ask(f"Cancel {session}?", "Measured results are saved."), answered)

    def action_diff(self) -> None:
        run = self.run
        if run is None or run.traffic is None or run.state in ("queued", "running"):
            self.notify("tests can be compared when this one has ended")
            return
        self.ask(lambda: self._open_diff(run.session), OPENING, exclusive=True)

    async def _open_diff(self, name: str) -> None:
        from kvdeck.app.tui.modes.traffic.diff import TrafficDiffScreen

        rows = await self.app.requests.list_sessions()
        now = next((row for row in rows if row.name == name), None)
        before = [row for row in rows if row.kind == "traffic" and row.name != name
                  and (now is None or row.created <= now.created)]  # fmt: skip
        if not before:
            self.notify("there is no traffic test before this one", severity="warning")
            return
        earlier = await self.app.requests.load_session(before[0].name)
        later = await self.app.requests.load_session(name)
        self.app.push_screen(TrafficDiffScreen(earlier, later))
