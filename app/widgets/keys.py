"""The key bar at the foot, made from the bindings that are valid now; and the groups they stand in."""

from __future__ import annotations

from rich.cells import cell_len
from textual.binding import Binding
from textual.screen import Screen

from kvdeck.app.widgets.lines import Lines, Row, Span

MODE_KEYS = Binding.Group("Modes")
DECK = Binding.Group("Deck")
RUN = Binding.Group("Run")
FORM = Binding.Group("Form")
PLAN = Binding.Group("Plan")
MONITOR = Binding.Group("Monitor")
LIST = Binding.Group("List")
SHARE = Binding.Group("Share")

ORDER = (RUN, PLAN, MONITOR, LIST, FORM, DECK, MODE_KEYS, SHARE)


class KeyBar(Lines):
    """The keys that matter here, as many as fit."""

    DEFAULT_CSS = "KeyBar { height: 1; dock: bottom; background: $deck-bar; }"

    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, self._updated)

    def _updated(self, _: Screen[object]) -> None:
        self.redraw()

    def rows(self, width: int, height: int) -> list[Row]:
        shown = [b.binding for b in self.screen.active_bindings.values() if b.binding.show and b.enabled]
        shown.sort(key=lambda b: ORDER.index(b.group) if b.group in ORDER else len(ORDER))
        spans: list[Span] = []
        used, seen = 0, set()
        for binding in shown:
            if binding.action in seen:
                continue
            key = self.app.get_key_display(binding)
            need = cell_len(key) + cell_len(binding.description) + 3
            if used + need > width:
                break
            seen.add(binding.action)
            used += need
            spans += [(f" {key}", "key"), (f" {binding.description} ", "")]
        return [tuple(spans)]
