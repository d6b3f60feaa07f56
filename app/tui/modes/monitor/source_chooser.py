"""Dialog for selecting telemetry sources: those discovered on this host (unused so far) and entered addresses."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen

from kvdeck.app.tui.source_search import FoundSource
from kvdeck.app.tui.widgets.key_bar import LIST, MONITOR
from kvdeck.app.tui.widgets.lines import CURSOR, Lines, Row, cell, window
from kvdeck.sessions.errors import KvdeckError, UsageError
from kvdeck.sessions.host.addresses import refuse_credentials

if TYPE_CHECKING:
    from textual.worker import WorkType

    from kvdeck.app.tui.app import Deck

COSTS = {
    "disk": "reads 2 files",
    "network": "reads 2 files",
    "fabric": "reads the card's firmware, at most 1/s",
    "gpu": "NVML calls; 20 ms per direction if the card has no counter",
    "process": "reads /proc of serving processes",
    "ring": "reads 1 file, doesn't drain it",
    "session": "checks a file, reads what is new",
    "nvidia_fs": "reads 1 file",
    "cufile": "runs gds_stats per process every 5 s",
}
"""Cost of one sample, by source kind; by name for sources that differ from their kind."""


HTTP = "http://"
"""Prefilled in the address prompt: the most common beginning."""


class SourceList(Lines, can_focus=True):
    """Check list of sources."""

    DEFAULT_CSS = "SourceList { width: 90%; max-width: 100; height: auto; max-height: 90%; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", show=False, id="choose.up", tooltip="Previous row", group=LIST),
        Binding("down,j", "move(1)", "Down", show=False, id="choose.down", tooltip="Next row", group=LIST),
        Binding("space", "tick", "select", id="choose.tick", tooltip="Select or clear this source", group=LIST),
    ]

    def __init__(self, first: bool) -> None:
        super().__init__()
        self.first = first
        self.found: list[FoundSource] = []
        self.ticked: set[str] = set()
        self.place, self.top = 0, 0
        self.looking, self.error = True, ""

    def show(self) -> None:
        """Resize to the rows and redraw."""
        self.styles.height = len(self._lines(60)) + 2
        self.redraw()

    def action_move(self, by: int) -> None:
        self.place = max(0, min(len(self.found) - 1, self.place + by))
        self.redraw()

    def action_tick(self) -> None:
        if self.found:
            self.ticked ^= {self.found[self.place].name}
            self.action_move(1)

    def rows(self, width: int, height: int) -> list[Row]:
        lines = self._lines(width)
        if len(lines) <= height:
            return lines
        head, foot = lines[:2], lines[-2:]
        body, room = lines[2:-2], height - 4
        self.top = window(self.top, self.place, len(body), room)
        return [*head, *body[self.top : self.top + room], *foot]

    def _lines(self, width: int) -> list[Row]:
        said = "Found on this host. Nothing is read until you press Enter." if self.first else "Sources"
        head: list[Row] = [(cell(said, width, "!"),), ()]
        widest = max((len(found.name) for found in self.found), default=20)
        rows: list[Row] = []
        for place, found in enumerate(self.found):
            mark = "[x]" if found.name in self.ticked else "[ ]"
            name = min(widest, width - 18)
            spans = (
                ("▸ " if place == self.place else "  ", "key"),
                cell(f"{mark} ", 4, "ok" if mark == "[x]" else "dim"),
                cell(found.kind, 11, "dim"),
                cell(found.name, name),
                cell(
                    f"  {COSTS.get(found.name) or COSTS.get(found.kind, '1 HTTP request per sample')}",
                    max(0, width - 17 - name),
                    "dim",
                ),
            )
            rows.append((CURSOR, *spans) if place == self.place else spans)
        if self.error:
            rows.append((cell(self.error, width, "bad"),))
        elif self.looking:
            rows.append((cell("scanning the usual ports of the loopback address …", width, "dim"),))
        elif not self.found:
            rows.append((cell("no source found · a adds an address", width, "dim"),))
        keys = (("Enter", "start"), ("space", "select"), ("a", "add"), ("r", "rescan"), ("Esc", "cancel"))
        foot: Row = tuple(span for key, what in keys for span in ((f"{key} ", "key"), (f"{what}  ", "dim")))
        return [*head, *rows, (), foot]


class SourceChooser(ModalScreen["tuple[tuple[str, ...], tuple[str, ...]] | None"]):
    """Returns (selected, offered) source names as `--source` takes them; None on Esc."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "take", "watch", id="choose.take", tooltip="Monitor the selected sources", group=MONITOR),
        Binding(
            "a",
            "add",
            "add",
            id="choose.add",
            tooltip="Add an address, a folder of telemetry rings, or a session",
            group=MONITOR,
        ),
        Binding("r", "look", "rescan", id="choose.look", tooltip="Scan this host again", group=MONITOR),
        Binding(
            "escape,q", "dismiss(None)", "leave", id="choose.leave", tooltip="Close without a change", group=MONITOR
        ),
    ]
    app: Deck

    def __init__(self, watched: tuple[str, ...] | None) -> None:
        super().__init__()
        self.watched = watched
        self.list = SourceList(first=watched is None)

    def compose(self) -> ComposeResult:
        yield self.list

    def on_mount(self) -> None:
        self.list.ticked = set(self.watched or ())
        self.list.found = [FoundSource(source, "") for source in self.watched or ()]
        self.list.focus()
        self.action_look()

    def action_look(self) -> None:
        self.list.looking, self.list.error = True, ""
        self.list.show()
        job: WorkType[None] = self._find_sources
        self.run_worker(job, exclusive=True)

    async def _find_sources(self) -> None:
        try:
            self._show_found(await self.app.requests.find_sources())
        except KvdeckError as error:
            self.list.looking, self.list.error = False, str(error)
            self.list.show()

    def _show_found(self, offered: tuple[FoundSource, ...]) -> None:
        mine = self.list
        mine.looking, mine.error = False, ""
        known = {found.name for found in offered}
        others = [found for found in mine.found if found.name not in known]
        before = {found.name for found in mine.found}
        mine.found = [*offered, *others]
        if self.watched is None:  # first use: loopback and host sources are on by default
            mine.ticked |= known - before
        mine.show()

    def action_add(self) -> None:
        from kvdeck.app.tui.dialogs.prompt import AskText

        def added(text: str | None) -> None:
            if text and text != HTTP:
                text = text.removeprefix(HTTP) if "://" in text.removeprefix(HTTP) else text  # pasted after the prefix
                try:
                    refuse_credentials(text, "the source")
                except UsageError as error:
                    self.notify(str(error), severity="error", timeout=15)
                    return
                self.list.found.append(FoundSource(text, ""))
                self.list.ticked.add(text)
                self.list.show()

        note = "http://host:6880/metrics, a folder of NIXL rings, or a session's .json"
        self.app.push_screen(AskText("Add a source", HTTP, note), added)

    def action_take(self) -> None:
        ticked = [found.name for found in self.list.found if found.name in self.list.ticked]
        self.dismiss((tuple(dict.fromkeys(ticked)), tuple(found.name for found in self.list.found)))
