"""Mode 1: a model, its parallelism and its load, and the resulting blocks, bytes and descriptors."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.reactive import var

from kvdeck.app.tui.bandwidth import BandwidthHistory
from kvdeck.app.tui.current_plan import KEPT
from kvdeck.app.tui.dialogs.picker import Choice, Picker
from kvdeck.app.tui.messages import BlockChosen
from kvdeck.app.tui.modes.base import DeckScreen
from kvdeck.app.tui.modes.plan.form import plan_in, read_plan
from kvdeck.app.tui.modes.plan.panes import CommandPane, Figures, Grid, ModelLine, PlanChanged, PlanPane, PlanView
from kvdeck.app.tui.modes.plan.run_settings import block_choice, kept
from kvdeck.app.tui.widgets.key_bar import PLAN, RUN
from kvdeck.engine.planning.model_files import catalogue, find_model
from kvdeck.sessions.errors import KvdeckError
from kvdeck.sessions.host.files import is_regular
from kvdeck.sessions.host.user_home import expanded

if TYPE_CHECKING:
    from kvdeck.app.tui.state import Doctor, EngineState

COMMAND_FILE = "nixlbench.sh"


class PlanScreen(DeckScreen):
    """Form above; figures, command and sweep below. Low screens show the figures, or the sweep and the command."""

    CSS_PATH = "plan.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("r", "launch", "run", id="plan.launch", tooltip="Run this block on this path", group=RUN),
        Binding(
            "m", "pick", "model", id="plan.model", tooltip="Choose the model, or type the path of its file", group=PLAN
        ),
        Binding(
            "g", "grid", "sweep", id="plan.grid", tooltip="Show or hide block sizes over TP and page size", group=PLAN
        ),
        Binding(
            "e",
            "carry",
            "to form",
            id="plan.carry",
            tooltip="Copy this plan's block and batch to the Run form",
            group=PLAN,
        ),
        Binding("w", "save", "write", id="plan.save", tooltip="Save this plan as YAML", group=PLAN),
        Binding("o", "open", "open", id="plan.open", tooltip="Open a saved plan", group=PLAN),
    ]
    PANES: ClassVar = {"command": "command", "grid": "sweep"}
    swept: var[bool] = var(False, init=False)

    def __init__(self) -> None:
        super().__init__()
        self.measured = BandwidthHistory()
        self.known: tuple[tuple[str, str], ...] | None = None

    def body(self) -> ComposeResult:
        yield ModelLine(id="model")
        yield PlanPane(id="fields")
        yield Figures(id="figures")
        yield CommandPane(id="command")
        yield Grid(id="grid")

    def on_mount(self) -> None:
        pane = self.query_one(PlanPane)
        if isinstance(before := self.app.memory.get(KEPT), dict):
            with contextlib.suppress(KvdeckError):  # the model's file may no longer exist
                pane.become(plan_in(before, "the deck's stored settings", pane.form))
        pane.focus()
        super().on_mount()
        self._show()

    def on_screen_resume(self) -> None:
        self.known = None  # a run may have ended while another screen was in front
        super().on_screen_resume()

    def apply(self, engine: EngineState) -> None:
        super().apply(engine)
        known = tuple((run.session, run.state) for run in engine.runs)
        if known != self.known:
            self.known = known
            self.ask(lambda: self._load_bandwidth(), "bandwidth", exclusive=True)

    def apply_doctor(self, doctor: Doctor) -> None:
        self.query_one(PlanPane).apply_doctor(doctor)

    def on_plan_changed(self, _: PlanChanged) -> None:
        self._show()

    async def _load_bandwidth(self) -> None:
        try:
            self.measured = await self.app.requests.load_bandwidth(self.app.host)
        except KvdeckError as error:
            self.measured = BandwidthHistory(error=str(error))
        self._show()

    def _show(self) -> None:
        form = self.query_one(PlanPane).form
        for view in self.query(PlanView):
            view.apply(form, self.measured)
        self.app.memory[KEPT] = kept(form)

    def watch_swept(self, swept: bool) -> None:
        self.set_class(swept, "-swept")

    def action_grid(self) -> None:
        self.swept = not self.swept

    def action_launch(self) -> None:
        form = self.query_one(PlanPane).form
        if problem := form.launch_problem():
            self.notify(problem, severity="warning", markup=False)
            return
        self.app.submit(form.to_spec())
        self.app.switch_mode("run")

    async def action_carry(self) -> None:
        form = self.query_one(PlanPane).form
        if problem := form.launch_problem():
            self.notify(problem, severity="warning", markup=False)
            return
        await self.app.open_mode("run", BlockChosen(block_choice(form)))

    def action_pick(self) -> None:
        choices = [Choice(model.name, model.attention) for model in catalogue().values()]
        empty = "no model has that name · fix: type the path of a config.json or a YAML file, then Enter"
        self.app.push_screen(Picker("Model:", choices, empty), self._take_model)

    def _take_model(self, name: str | None) -> None:
        if name is None:
            return
        try:
            model = find_model(name)
        except KvdeckError as error:
            self.notify(str(error), severity="error", markup=False)
            return
        pane = self.query_one(PlanPane)
        of_catalogue = model.name in catalogue() and not expanded(name).exists()
        pane.become(pane.form.with_model(model, "" if of_catalogue else str(expanded(name).absolute())))

    def action_copy(self) -> None:
        form = self.query_one(PlanPane).form
        try:
            text = form.command(form.plan())
        except KvdeckError as error:
            self.notify(str(error), severity="warning", markup=False)
            return
        self.app.copy_to_clipboard(text)
        self._written(COMMAND_FILE, f"{text}\n", "copied to the terminal's clipboard (OSC 52), also saved to")

    def action_save(self) -> None:
        from kvdeck.sessions.host.documents import dump_yaml

        form = self.query_one(PlanPane).form
        self._written(f"{form.title}.yaml", dump_yaml(form.to_mapping()), "saved to")

    def _written(self, name: str, text: str, done: str) -> None:
        if not self.app.may_command():
            return
        folder = self.app.requests.plans_folder()
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            (folder / name).write_text(text)
        except OSError as error:
            self.notify(f"can't write {folder / name}: {error.strerror}", severity="error", markup=False)
            return
        self.notify(f"{done} {folder / name}", markup=False)

    def action_open(self) -> None:
        files = sorted(self.app.requests.plans_folder().glob("*.yaml"), key=lambda path: -path.stat().st_mtime)
        choices = [Choice(path.stem, "") for path in files]
        self.app.push_screen(Picker("Plan:", choices, "no saved plan · w writes one, or type a path"), self._take_plan)

    def _take_plan(self, name: str | None) -> None:
        if name is None:
            return
        pane = self.query_one(PlanPane)
        try:
            path = expanded(name)
            if not is_regular(path):
                path = self.app.requests.plans_folder() / f"{name}.yaml"
            pane.become(read_plan(path, pane.form))
        except KvdeckError as error:
            self.notify(str(error), severity="error", markup=False)
