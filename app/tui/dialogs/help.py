"""Help dialog: the keys valid on the current screen, generated from its bindings."""

from __future__ import annotations

from itertools import groupby, zip_longest
from textwrap import wrap
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.screen import ModalScreen, Screen

from kvdeck.app.tui.widgets.key_bar import DECK, ORDER
from kvdeck.app.tui.widgets.lines import Lines, Row, cell

KEYS = 10
"""Width of the keys before what they do."""
CLOSES = "Esc closes · : finds a command: themes, contrast, ascii, and repaint for a garbled screen"
TWO_COLUMNS, GAP = 100, 3
"""Width from which there are two columns, and the blanks between them."""


def key_rows(screen: Screen[object]) -> list[tuple[str, str, str]]:
    """Return (group, keys, description) of each binding valid on a screen: the pane in focus first, then in the key
    bar's order."""
    near = {active.binding.group for active in screen.active_bindings.values() if active.node is screen.focused}
    found: dict[tuple[str, str], tuple[int, str, list[str]]] = {}
    for active in screen.active_bindings.values():
        binding = active.binding
        if binding.group is None or binding.group not in ORDER:
            continue
        entry = found.setdefault(
            (binding.group.description, binding.id or binding.action),
            (
                ORDER.index(binding.group) - len(ORDER) * (binding.group in near),
                binding.tooltip or binding.description,
                [],
            ),
        )
        entry[2].append(screen.app.get_key_display(binding))
    ordered = sorted(found.items(), key=lambda item: item[1][0])
    return [(group, " ".join(dict.fromkeys(keys)), does) for (group, _), (_, does, keys) in ordered]


class HelpPane(Lines, can_focus=True):
    """The help rows, in two columns where there is room; the arrows scroll them if they don't fit."""

    DEFAULT_CSS = "HelpPane { width: 90%; max-width: 116; height: auto; max-height: 90%; }"
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
        closes: list[Row] = [(), *((cell(line, width, "dim"),) for line in wrap(CLOSES, max(1, width)))]
        if width < TWO_COLUMNS:
            return [*self._column(self.keys, width), *closes]
        half = (width - GAP) // 2
        cut = _middle(self.keys)
        left, right = self._column(self.keys[:cut], half), self._column(self.keys[cut:], half)
        gap, empty = (" " * GAP, ""), (cell("", half),)
        pairs = zip_longest(left, right, fillvalue=())
        return [*((*(one or empty), gap, *other) for one, other in pairs), *closes]

    @staticmethod
    def _column(keys: list[tuple[str, str, str]], width: int) -> list[Row]:
        lines: list[Row] = []
        for group, of_group in groupby(keys, key=lambda item: item[0]):
            lines += [(cell("", width),), (cell(group, width, "title"),)]
            room = max(1, width - KEYS)
            for _, pressed, does in of_group:
                first, *rest = wrap(does, room) or [""]
                lines.append((cell(f" {pressed}", KEYS, "key"), cell(first, room)))
                lines += [(cell("", KEYS), cell(line, room)) for line in rest]
        return lines[1:]


def _middle(keys: list[tuple[str, str, str]]) -> int:
    """Return where to cut the rows in two, between groups, so that the longer part is as short as can be."""
    cuts = [i for i in range(1, len(keys)) if keys[i][0] != keys[i - 1][0]]
    return min(cuts, key=lambda cut: max(_height(keys[:cut]), _height(keys[cut:])), default=len(keys))


def _height(keys: list[tuple[str, str, str]]) -> int:
    return len(keys) + 2 * len({group for group, _, _ in keys})


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
