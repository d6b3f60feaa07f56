"""Help dialog: the keys valid on the current screen, generated from its bindings."""

from __future__ import annotations

from itertools import groupby
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.screen import ModalScreen, Screen

from kvdeck.app.tui.widgets.key_bar import DECK, ORDER
from kvdeck.app.tui.widgets.lines import Lines, Row, cell


def key_rows(screen: Screen[object]) -> list[tuple[str, str, str]]:
    """Return (group, keys, description) of each binding valid on a screen, in the key bar's order."""
    found: dict[tuple[str, str], tuple[int, str, list[str]]] = {}
    for active in screen.active_bindings.values():
        binding = active.binding
        if binding.group is None or binding.group not in ORDER:
            continue
        entry = found.setdefault(
            (binding.group.description, binding.id or binding.action),
            (ORDER.index(binding.group), binding.tooltip or binding.description, []),
        )
        entry[2].append(screen.app.get_key_display(binding))
    ordered = sorted(found.items(), key=lambda item: item[1][0])
    return [(group, " ".join(dict.fromkeys(keys)), said) for (group, _), (_, said, keys) in ordered]


class HelpPane(Lines, can_focus=True):
    """The help rows; the arrows scroll them if they don't fit."""

    DEFAULT_CSS = "HelpPane { width: 76; height: auto; max-height: 90%; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "scroll_by(-1)", show=False),
        Binding("down,j", "scroll_by(1)", show=False),
    ]

    def __init__(self, keys: list[tuple[str, str, str]]) -> None:
        super().__init__()
        self.keys, self.top = keys, 0

    def action_scroll_by(self, by: int) -> None:
        self.top = max(0, self.top + by)
        self.redraw()

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return len(self._lines(width))

    def rows(self, width: int, height: int) -> list[Row]:
        lines = self._lines(width)
        self.top = max(0, min(self.top, len(lines) - height))
        below = len(lines) - height - self.top
        if below > 0:
            return [*lines[self.top : self.top + height - 1], (cell(f"↓ {below + 1} more lines", width, "dim"),)]
        return lines[self.top :]

    def _lines(self, width: int) -> list[Row]:
        lines: list[Row] = []
        for group, of_group in groupby(self.keys, key=lambda item: item[0]):
            lines += [(), (cell(group, width, "title"),)]
            lines += [(cell(f"  {keys}", 12, "key"), cell(said, width - 12)) for _, keys, said in of_group]
        return [*lines[1:], (), (cell("Esc closes", width, "dim"),)]


class Help(ModalScreen[None]):
    """Help dialog, opened with `?` over any screen."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,q", "dismiss", "close", id="help.close", tooltip="Close this panel", group=DECK),
    ]

    def __init__(self, keys: list[tuple[str, str, str]]) -> None:
        super().__init__()
        self.keys = keys

    def compose(self) -> ComposeResult:
        yield HelpPane(self.keys)
