"""Monitor dialog to select sources: found on this host, already sampled, or typed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen

from kvdeck.app.text.monitor_names import source_name
from kvdeck.app.tui.modes.monitor.source_list import SourceList, SourceRow
from kvdeck.app.tui.source_search import FoundSource, FoundSources
from kvdeck.app.tui.widgets.key_bar import MONITOR
from kvdeck.sessions.errors import KvdeckError

if TYPE_CHECKING:
    from textual.timer import Timer
    from textual.worker import WorkType

    from kvdeck.app.tui.app import Deck

MOST_WAIT_S = 3.0
"""Longest time, s, that Enter waits for the search."""
NOTE = "host:port, :8000, a URL, a folder of rings, a session .json"


class SourceChooser(ModalScreen["tuple[tuple[str, ...], tuple[str, ...]] | None"]):
    """Dismissed with the selected and the offered source names, as `--source` takes them; with None for Esc.

    The search shows what it finds at once. Enter waits for its end, at most until `MOST_WAIT_S` after its begin.

    Args:
        watched: The sources selected now; None if none was ever selected, which selects every source that is found.
        seen: Gets what the search has found so far, and its end, even if it failed.
        kinds: Kinds of the watched sources that were sampled.
    """

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

    def __init__(
        self,
        watched: tuple[str, ...] | None,
        seen: Callable[[FoundSources], None],
        kinds: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        super().__init__()
        self.watched, self.seen = watched, seen
        self.list = SourceList(first=watched is None)
        self._own = [FoundSource(name, kinds.get(name, "")) for name in watched or ()]
        self._newest, self._before = FoundSources(), FoundSources()
        self._offered: set[str] = set()
        self._limit: Timer | None = None

    def compose(self) -> ComposeResult:
        yield self.list

    def on_mount(self) -> None:
        self.list.ticked = set(self.watched or ())
        self.list.focus()
        self.action_look()

    def action_look(self) -> None:
        mine = self.list
        mine.looking, mine.late, mine.waits, mine.error = True, False, False, ""
        self._before = self._newest
        self._show()
        if self._limit is not None:
            self._limit.stop()
        self._limit = self.set_timer(MOST_WAIT_S, self._reach_limit)
        job: WorkType[None] = self._find_sources
        self.run_worker(job, exclusive=True)

    async def _find_sources(self) -> None:
        try:
            self._progress(await self.app.requests.find_sources(self._progress))
        except KvdeckError as error:
            self.list.error, self.list.waits = str(error), False
            self.seen(replace(self._newest, done=True))
        self.list.looking = False
        self.list.show()
        if self.list.waits:
            self._take()

    def _reach_limit(self) -> None:
        mine = self.list
        mine.late = mine.looking
        if mine.late and mine.waits:
            self._take()
        else:
            mine.redraw()

    def _progress(self, found: FoundSources) -> None:
        self._newest = found
        known = {one.name for one in found.sources}
        if self.watched is None:  # first use: what is found on this host is on by default
            self.list.ticked |= known - self._offered
        self._offered |= known
        self._show()
        self.seen(found)

    def _show(self) -> None:
        """Show what is known: in an order in which no row moves during a search, which takes no row away."""
        found = self._newest
        earlier = () if found.done else self._before.sources
        slow = [FoundSource(name, "slow") for name in found.unanswered]
        known = (*slow, *self._own, *earlier, *found.sources)
        rows = {one.name: SourceRow(one.name, one.kind) for one in known}
        asked = [SourceRow(name, state="asked") for name in found.awaited if name not in rows]
        endpoints = sorted((*asked, *(row for row in rows.values() if _is_endpoint(row))), key=_by_port)
        local = [row for row in rows.values() if not _is_endpoint(row)]
        silent = [SourceRow(one.name, state="silent", reason=one.reason) for one in found.silent]
        self.list.fill([*endpoints, *local, *silent])

    def action_add(self) -> None:
        from kvdeck.app.tui.dialogs.prompt import AskText

        def added(name: str | None) -> None:
            if name:
                if name not in self.list.names:
                    self._own.append(FoundSource(name, ""))
                self.list.ticked.add(name)
                self._show()
                self.list.go_to(name)

        self.app.push_screen(AskText("Add a source", "", NOTE, self._checked), added)

    async def _checked(self, text: str) -> str:
        """Return the source that a text names, as the list names it."""
        from kvdeck.app.tui.threads import in_thread
        from kvdeck.engine.telemetry.address import source_address

        # The folder may be on a file system that hangs.
        return (await in_thread(lambda: source_address(text), "kvdeck-source")).listed

    def action_take(self) -> None:
        mine = self.list
        if mine.looking and not mine.late and not mine.waits:
            mine.waits = True
            mine.redraw()
        else:
            self._take()

    def _take(self) -> None:
        mine = self.list
        if mine.looking:
            late = f" (no answer from {', '.join(map(source_name, mine.asked))})" if mine.asked else ""
            self.app.notify(f"started before the search ended{late}: s shows what else is found", severity="warning")
        names = tuple(mine.names)
        self.dismiss((tuple(name for name in names if name in mine.ticked), names))


def _is_endpoint(entry: SourceRow) -> bool:
    return entry.name.startswith(("http://", "https://"))


def _by_port(entry: SourceRow) -> tuple[int, str]:
    port = entry.name.rpartition(":")[2].partition("/")[0]
    return int(port) if port.isdigit() else 0, entry.name
