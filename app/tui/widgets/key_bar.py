"""The key bar at the bottom, made from the bindings valid now, and the groups of bindings."""

from __future__ import annotations

from rich.cells import cell_len
from textual.binding import Binding
from textual.events import Click
from textual.screen import Screen

from kvdeck.app.tui.widgets.lines import Lines, Row, Span

MODE_KEYS = Binding.Group("Modes")
DECK = Binding.Group("Deck")
RUN = Binding.Group("Run")
FORM = Binding.Group("Form")
PLAN = Binding.Group("Plan")
MONITOR = Binding.Group("Monitor")
LIST = Binding.Group("List")
SHARE = Binding.Group("Share")

ORDER = (RUN, PLAN, MONITOR, LIST, FORM, DECK, MODE_KEYS, SHARE)


ALWAYS = "deck.help"
"""The key that lists all others; always shown, however few fit."""


class KeyBar(Lines):
    """The keys valid here, as many as fit, and always `ALWAYS`."""

    DEFAULT_CSS = "KeyBar { height: 1; dock: bottom; background: $deck-bar; }"

    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, self._updated)

    def _updated(self, _: Screen[object]) -> None:
        self.redraw()

    def on_click(self, event: Click) -> None:
        """Press the key under the mouse."""
        x = 0
        for binding in self._shown(self.size.width):
            x += self._need(binding)
            if event.x < x:
                self.app.simulate_key(binding.key)
                return

    def rows(self, width: int, height: int) -> list[Row]:
        return [tuple(span for binding in self._shown(width) for span in self._spans(binding))]

    def _shown(self, width: int) -> list[Binding]:
        """Return the bindings that fit, `ALWAYS` last if not all do."""
        shown = [b.binding for b in self.screen.active_bindings.values() if b.binding.show and b.enabled]
        shown.sort(key=lambda b: ORDER.index(b.group) if b.group in ORDER else len(ORDER))
        shown = list({binding.action: binding for binding in reversed(shown)}.values())[::-1]
        always = [binding for binding in shown if binding.id == ALWAYS]
        if sum(map(self._need, shown)) > width:
            shown = [binding for binding in shown if binding.id != ALWAYS]
            room = width - sum(map(self._need, always))
            while shown and sum(map(self._need, shown)) > room:
                shown.pop()
            shown += always
        return shown

    def _need(self, binding: Binding) -> int:
        return sum(cell_len(text) for text, _ in self._spans(binding))

    def _spans(self, binding: Binding) -> tuple[Span, ...]:
        return ((f" {self.app.get_key_display(binding)}", "key"), (f" {binding.description} ", ""))
