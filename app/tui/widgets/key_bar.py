"""The key bar at the bottom, made from the bindings valid now, and the groups of bindings."""

from __future__ import annotations

from rich.cells import cell_len
from textual.binding import ActiveBinding, Binding
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
        """Do what the key under the mouse does; the key itself would be typed into a field that takes text."""
        x = 0
        for active in self._shown(self.size.width):
            x += self._need(active.binding)
            if event.x < x:
                self.app.call_later(self.app.run_action, active.binding.action, active.node)
                return

    def rows(self, width: int, height: int) -> list[Row]:
        return [tuple(span for active in self._shown(width) for span in self._spans(active.binding))]

    def _shown(self, width: int) -> list[ActiveBinding]:
        """Return the bindings that fit, `ALWAYS` last if not all do."""
        shown = [b for b in self.screen.active_bindings.values() if b.binding.show and b.enabled]
        shown.sort(key=lambda b: ORDER.index(b.binding.group) if b.binding.group in ORDER else len(ORDER))
        shown = list({b.binding.action: b for b in reversed(shown)}.values())[::-1]
        always = [b for b in shown if b.binding.id == ALWAYS]
        if self._all(shown) > width:
            shown = [b for b in shown if b.binding.id != ALWAYS]
            room = width - self._all(always)
            while shown and self._all(shown) > room:
                shown.pop()
            shown += always
        return shown

    def _all(self, bindings: list[ActiveBinding]) -> int:
        return sum(self._need(active.binding) for active in bindings)

    def _need(self, binding: Binding) -> int:
        return sum(cell_len(text) for text, _ in self._spans(binding))

    def _spans(self, binding: Binding) -> tuple[Span, ...]:
        return ((f" {self.app.get_key_display(binding)}", "key"), (f" {binding.description} ", ""))
