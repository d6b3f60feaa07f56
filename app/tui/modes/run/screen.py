"""Mode 2: choose what to compare, launch it and follow it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.reactive import var

from kvdeck.app.tui.messages import BlockChosen
from kvdeck.app.tui.modes.base import OPENING, SHORT, DeckScreen
from kvdeck.app.tui.modes.run.fold import FoldedForm
from kvdeck.app.tui.modes.run.form import Form
from kvdeck.app.tui.modes.run.form_pane import FormPane
from kvdeck.app.tui.modes.run.log_pane import LogPane
from kvdeck.app.tui.modes.run.percentile_pane import PercentilePane
from kvdeck.app.tui.modes.run.progress_pane import ProgressPane
from kvdeck.app.tui.modes.run.queue_pane import QueuePane
from kvdeck.app.tui.modes.run.steps import StepChosen, StepTable
from kvdeck.app.tui.widgets.charts import Plot
from kvdeck.app.tui.widgets.key_bar import RUN
from kvdeck.app.tui.widgets.list import RowOpened
from kvdeck.app.tui.widgets.verdicts import VerdictBox
from kvdeck.sessions.model.records import FINAL_STATES

if TYPE_CHECKING:
    from kvdeck.app.tui.state import Doctor, EngineState


class RunScreen(DeckScreen):
    """Form and live view: once something runs the form is folded, and the verdict takes its place; `f` unfolds it."""

    CSS_PATH = "run.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("r", "launch", "run", id="run.launch", tooltip="Start a run with the form's settings", group=RUN),
        Binding(
            "x",
            "cancel",
            "cancel",
            id="run.cancel",
            tooltip="Cancel the run shown, or the queued run under the cursor",
            group=RUN,
        ),
        Binding(
            "a",
            "quick",
            "Quick A/B",
            show=False,
            id="run.quick",
            tooltip="Compare the layouts quickly on every ready path",
            group=RUN,
        ),
        Binding("d", "diff", "diff", id="run.diff", tooltip="Compare the run's first two layouts", group=RUN),
        Binding(
            "v",
            "more",
            "view more",
            id="run.more",
            tooltip="More fields: sweeps, layouts, concurrency, safety",
            group=RUN,
        ),
        Binding(
            "R",
            "reset",
            "Defaults",
            show=False,
            id="run.reset",
            tooltip="Reset the form to its defaults",
            group=RUN,
        ),
        Binding("f", "view", "form/live", id="run.view", tooltip="Go to the form, or to the live view", group=RUN),
        Binding("e", "edit", "edit", show=False, id="run.edit", tooltip="Change the form, for another run", group=RUN),
        Binding("escape", "back", "Back", show=False, id="run.back", tooltip="Go back to the form", group=RUN),
    ]
    PANES: ClassVar = {"percentiles": "request times", "plot": "plot", "log": "log", "queue": "queue"}
    live: var[bool] = var(False, init=False)

    def body(self) -> ComposeResult:
        yield FormPane(id="form")
        yield VerdictBox(id="verdict")
        yield FoldedForm(id="fold")
        yield ProgressPane(id="progress")
        yield StepTable(id="steps")
        yield PercentilePane(id="percentiles")
        with Horizontal(id="bottom"):
            yield Plot(id="plot")
            with Vertical(id="side"):
                yield LogPane(id="log")
                yield QueuePane(id="queue")

    def on_mount(self) -> None:
        self._shown: str | None = None
        self.query_one(FormPane).focus()
        super().on_mount()

    def apply(self, engine: EngineState) -> None:
        super().apply(engine)
        run, picked = engine.run, self.query_one(StepTable).picked
        self.query_one(ProgressPane).apply(engine, picked)
        self.query_one(VerdictBox).apply(run)
        self.query_one(FoldedForm).apply(run)
        self.query_one(StepTable).apply(run)
        self.query_one(PercentilePane).apply(run, picked)
        self.query_one(Plot).apply(run, picked)
        self.query_one(LogPane).apply(run)
        self.query_one(QueuePane).apply(engine.runs)
        if run is not None and run.session != self._shown:
            self._shown = run.session
            # Going live takes the focus, and with it what is being typed.
            self.live = self.live or self.query_one(FormPane).typing is None

    def apply_doctor(self, doctor: Doctor) -> None:
        self.query_one(FormPane).apply_doctor(doctor)
        self.query_one(ProgressPane).redraw()

    def watch_live(self, live: bool) -> None:
        self.set_class(live, "-live")
        self.query_one("#steps" if live else "#form").focus()

    def on_step_chosen(self, message: StepChosen) -> None:
        run = self.app.engine.run
        self.query_one(ProgressPane).apply(self.app.engine, message.step)
        self.query_one(PercentilePane).apply(run, message.step)
        self.query_one(Plot).apply(run, message.step)

    def on_row_opened(self, message: RowOpened) -> None:
        self.ask(lambda: self.app.requests.follow(message.key))

    def action_launch(self) -> None:
        pane = self.query_one(FormPane)
        form = pane.form
        if problem := form.problem():
            self.notify(problem, severity="warning", markup=False)
            return
        pane.keep_peers()
        self.app.submit(form.to_mapping())

    def on_block_chosen(self, message: BlockChosen) -> None:
        """Take a plan's block into the form, and show a toast; `r` is still needed to launch it."""
        pane = self.query_one(FormPane)
        pane.become(pane.form.with_block(message.block))
        self.live = False
        pane.focus()
        self.notify(f"the form has the plan's block: {pane.form.carried()} · r runs it", markup=False)

    def action_quick(self) -> None:
        self.app.submit({**Form(doctor=self.app.doctor).to_mapping(), "effort": "quick"})

    def action_diff(self) -> None:
        run = self.app.engine.run
        if run is None or run.state not in FINAL_STATES:
            self.notify("layouts can be compared when the run has ended")
            return
        self.ask(lambda: self._open_diff(run.session), OPENING, exclusive=True)

    async def _open_diff(self, name: str) -> None:
        from kvdeck.app.tui.comparison.diff import diff_layouts

        diff_layouts(self, await self.app.requests.load_session(name))

    def action_more(self) -> None:
        if self.live:
            self.live = False
        else:
            self.query_one(FormPane).turn()
        self.query_one(FormPane).focus()

    def action_reset(self) -> None:
        self.query_one(FormPane).reset()
        self.notify("Form reset")

    def action_view(self) -> None:
        if self.app.engine.run is None and self.size.height >= SHORT:
            self.query_one(StepTable if self.query_one(FormPane).has_focus else FormPane).focus()
        else:
            self.live = not self.live

    def action_edit(self) -> None:
        self.live = False
        self.query_one(FormPane).focus()

    def on_report_wanted(self) -> None:
        run = self.app.engine.run
        if run is not None:
            self.ask(lambda: self._open_report(run.session), OPENING, exclusive=True)

    async def _open_report(self, name: str) -> None:
        from kvdeck.app.tui.comparison.report import ResultScreen

        self.app.push_screen(ResultScreen(await self.app.requests.load_session(name)))

    def action_back(self) -> None:
        steps = self.query_one(StepTable)
        if steps.has_focus and steps.picked is not None:
            steps.action_follow()
        elif self.live:
            self.live = False
        else:
            self.query_one(FormPane).focus()

    def action_cancel(self) -> None:
        queue, run = self.query_one(QueuePane), self.app.engine.run
        under = queue.under_cursor if queue.has_focus else None
        shown = run.session if run is not None and run.state in ("queued", "running") else None
        session = under.session if under is not None else shown
        if session is None and self.app.submissions.unseen:
            if self.app.may_command():
                self.app.ask(lambda: self.app.submissions.cancel_last())
                self.notify("cancelling the submitted run")
            return
        if session is None:
            self.notify("no run is in progress")
            return
        # Imported when needed, as all dialogs: the first paint has a budget of half a second.
        from kvdeck.app.tui.dialogs.confirm import Ask

        def answered(yes: bool | None) -> None:
            if yes:
                self.app.command(lambda: self.app.requests.cancel(session))

        self.app.push_screen(Ask(f"Cancel {session}?", "Measured results are saved."), answered)
