"""Check list of the Monitor's sources: what each costs, and addresses and processes that gave none."""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING, ClassVar, Literal

from textual.binding import Binding, BindingType

from kvdeck.app.tui.widgets.key_bar import LIST
from kvdeck.app.tui.widgets.lines import CURSOR, Lines, Row, Span, cell, window
from kvdeck.sessions.units import count_text

if TYPE_CHECKING:
    from textual.events import Resize

COSTS = {
    "disk": "reads 2 files",
    "network": "reads 2 files",
    "fabric": "asks the card, ≤ 1/s",
    "gpu": "NVML calls, ≤ 20 ms",
    "process": "reads files of /proc",
    "ring": "reads 1 file",
    "session": "reads what is new",
    "nvidia_fs": "reads 1 file",
    "cufile": "gds_stats, every 5 s",
    "slow": "no answer in 2.5 s",
}
"""Cost of one sample, by source kind; by name for sources that differ from their kind; `slow` let a search pass."""
NAME = 30
"""Least width of the names: that of an endpoint of this host, so that the columns stay when one is found."""
_HEAD, _FOOT = 2, 3
"""Rows above and below the list."""


@dataclass(frozen=True, slots=True)
class SourceRow:
    """A row of the list."""

    name: str
    kind: str = ""
    state: Literal["found", "asked", "silent"] = "found"
    """`asked`: an address that hasn't answered. `silent`: a serving process without an endpoint."""
    reason: str = ""


class SourceList(Lines, can_focus=True):
    """Check list of sources, of addresses that are being asked, and of processes without an endpoint."""

    DEFAULT_CSS = "SourceList { width: 95%; max-width: 100; height: auto; max-height: 90%; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", show=False, id="choose.up", tooltip="Previous row", group=LIST),
        Binding("down,j", "move(1)", "Down", show=False, id="choose.down", tooltip="Next row", group=LIST),
        Binding("space", "tick", "select", id="choose.tick", tooltip="Select or clear this source", group=LIST),
    ]

    def __init__(self, first: bool) -> None:
        super().__init__()
        self.first = first
        self.entries: list[SourceRow] = []
        self.ticked: set[str] = set()
        self.place, self.top = 0, 0
        self.looking, self.error = True, ""
        self.late = self.waits = False

    @property
    def names(self) -> list[str]:
        """The names of the sources."""
        return [entry.name for entry in self.entries if entry.state == "found"]

    @property
    def asked(self) -> list[str]:
        """The addresses that haven't answered."""
        return [entry.name for entry in self.entries if entry.state == "asked"]

    def fill(self, entries: list[SourceRow]) -> None:
        """Show these entries; the cursor stays on its entry."""
        under = self.entries[self.place].name if self.place < len(self.entries) else ""
        self.entries = entries
        places = {entry.name: place for place, entry in enumerate(entries)}
        self.place = max(0, places.get(under, min(self.place, len(entries) - 1)))
        self.show()

    def show(self) -> None:
        """Resize to the rows and redraw; while a search runs the list only grows, so that it doesn't jump."""
        width = self.size.width or 60
        rows = _HEAD + max(1, sum(len(lines) for lines in self._body(width))) + _FOOT
        before = self.styles.height
        if self.looking and before is not None and before.value is not None:
            rows = max(rows, int(before.value) - 2)
        if before is not None and before.value == rows + 2:
            self.redraw()
        else:  # a resize follows, which draws
            self.styles.height = rows + 2

    def on_resize(self, event: Resize) -> None:
        super().on_resize(event)
        self.call_after_refresh(self.show)

    def go_to(self, name: str) -> None:
        """Put the cursor on an entry."""
        self.place = next((place for place, entry in enumerate(self.entries) if entry.name == name), self.place)
        self.redraw()

    def action_move(self, by: int) -> None:
        self.place = max(0, min(len(self.entries) - 1, self.place + by))
        self.redraw()

    def action_tick(self) -> None:
        if self.entries:
            if self.entries[self.place].state == "found":
                self.ticked ^= {self.entries[self.place].name}
            self.action_move(1)

    def rows(self, width: int, height: int) -> list[Row]:
        body = self._body(width)
        lines = [line for lines in body for line in lines]
        room = max(1, height - _HEAD - _FOOT)
        first = sum(len(lines) for lines in body[: self.place])
        last = first + len(body[self.place]) - 1 if body else 0
        self.top = window(min(self.top, first), last, len(lines), room)
        shown = lines[self.top : self.top + room]
        below = len(lines) - self.top - len(shown)
        title = "Found on this host. Nothing is read until you press Enter." if self.first else "Sources"
        more = f"↓ {below} more" if below else f"↑ {self.top} more" if self.top else ""
        head: list[Row] = [(cell(title, width - len(more), "!"), (more, "dim")), ()]
        padding: list[Row] = [()] * max(0, room - len(shown))
        return [*head, *shown, *padding, (), self._state(width), _keys()]

    def _body(self, width: int) -> list[list[Row]]:
        widest = max((len(entry.name) for entry in self.entries if entry.state != "silent"), default=0)
        widest = max(NAME, widest)
        return [self._entry(entry, place, widest, width) for place, entry in enumerate(self.entries)]

    def _entry(self, entry: SourceRow, place: int, widest: int, width: int) -> list[Row]:
        mark: Span = ("▸ " if place == self.place else "  ", "key")
        if entry.state == "silent":
            first, *rest = wrap(f"{entry.name}: {entry.reason}", max(20, width - 18)) or [""]
            rows: list[Row] = [(mark, cell("–   no endpoint ", 16, "dim"), cell(first, width - 18, "dim"))]
            rows += [(cell("", 18), cell(line, width - 18, "dim")) for line in rest]
        else:
            name = min(widest, width - 18)
            asked = entry.state == "asked"
            cost = "" if asked else COSTS.get(entry.name) or COSTS.get(entry.kind, "1 request per sample")
            ticked = entry.name in self.ticked
            rows = [
                (
                    mark,
                    cell("·" if asked else "[x]" if ticked else "[ ]", 4, "ok" if ticked and not asked else "dim"),
                    cell("asked" if asked else entry.kind, 11, "dim"),
                    cell(entry.name, name, "dim" if asked else ""),
                    cell(f"  {cost}", max(0, width - 17 - name), "dim"),
                )
            ]
        return [(CURSOR, *row) for row in rows] if place == self.place else rows

    def _state(self, width: int) -> Row:
        """Return what the search does, and what Enter waits for."""
        late = _addresses(len(self.asked))
        if self.error:
            return (cell(self.error, width, "bad"),)
        if self.waits:
            text = f"starts when the search ends{f': {late} left' if self.asked else ''} · Enter again: now"
            return (cell(text, width, "warn"),)
        if self.looking:
            text = f"no answer yet from {late}" if self.asked else "searching this host …"
            return (cell(text, width, "warn" if self.late else "dim"),)
        count = len(self.ticked.intersection(self.names))
        text = f"{count_text(count)} of {count_text(len(self.names))} selected"
        return (cell(text if self.names else "no source found · a adds one", width, "dim"),)


def _keys() -> Row:
    keys = (("Enter", "start"), ("space", "select"), ("a", "add"), ("r", "rescan"), ("Esc", "cancel"))
    return tuple(span for key, what in keys for span in ((f"{key} ", "key"), (f"{what}  ", "dim")))


def _addresses(count: int) -> str:
    return "1 address" if count == 1 else f"{count_text(count)} addresses"
