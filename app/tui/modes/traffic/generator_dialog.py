"""Dialog that makes matrices from a model and two sides' workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen

from kvdeck.app.tui.modes.traffic.generator_form import COLUMNS, GeneratorForm, kept
from kvdeck.app.tui.widgets.fields import FieldsPane
from kvdeck.app.tui.widgets.key_bar import DECK, FORM
from kvdeck.app.tui.widgets.lines import Row, cell
from kvdeck.sessions.errors import KvdeckError

if TYPE_CHECKING:
    from kvdeck.app.tui.app import Deck

KEPT = "traffic_generator"
"""Key of the form in the deck's UI state."""


class GeneratorPane(FieldsPane[GeneratorForm]):
    """The form; Enter on the model chooses one of the catalogue, or a file."""

    app: Deck
    columns = COLUMNS
    label_width = 14
    titles = ("What is handed over", "Prefill", "Decode")
    DEFAULT_CSS = "GeneratorPane { width: 92%; max-width: 110; height: 11; }"

    def widths(self, width: int) -> tuple[int, ...]:
        side = max(20, width // 4)
        return width - 2 * side, side, side

    def action_edit(self) -> None:
        if self.at.key == "model":
            self._pick()
        else:
            super().action_edit()

    def _pick(self) -> None:
        from kvdeck.app.tui.dialogs.picker import Choice, Picker
        from kvdeck.engine.planning.model_files import catalogue

        choices = [Choice(model.name, model.attention) for model in catalogue().values()]
        empty = "no model has that name · fix: type the path of a config.json or a YAML file, then Enter"
        self.app.push_screen(Picker("Model:", choices, empty), self._take)

    def _take(self, name: str | None) -> None:
        if name is None:
            return
        try:
            self.become(self.form.with_model(name))
        except KvdeckError as error:
            self.notify(str(error), severity="error", markup=False)

    def become(self, form: GeneratorForm) -> None:
        self.app.memory[KEPT] = kept(form)
        super().become(form)

    def rows(self, width: int, height: int) -> list[Row]:
        keys = "g makes the matrices · space − + change · Enter types · Esc closes"
        return [*super().rows(width, height - 1), (cell(f" {keys}", width, "key"),)]


class GeneratorDialog(ModalScreen["GeneratorForm | None"]):
    """Dismissed with the form to make matrices of; None for Esc."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("g", "make", "generate", id="generator.make", tooltip="Make the matrices and open them", group=FORM),
        Binding("escape", "leave", "close", id="generator.close", tooltip="Close without making any", group=DECK),
    ]

    def __init__(self, form: GeneratorForm) -> None:
        super().__init__()
        self.pane = GeneratorPane(form)

    def compose(self) -> ComposeResult:
        yield self.pane

    def on_mount(self) -> None:
        self.pane.focus()

    def action_make(self) -> None:
        if problem := self.pane.form.problem():
            self.notify(problem, severity="warning", markup=False)
        else:
            self.dismiss(self.pane.form)

    def action_leave(self) -> None:
        self.dismiss(None)
