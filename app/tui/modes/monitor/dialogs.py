"""Dialogs of the Monitor: annotation text, alert, block size, sources, series, name of a recording."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from kvdeck.app.text.monitor_names import short
from kvdeck.app.text.monitor_report import arrow
from kvdeck.app.tui.dialogs.prompt import AskText
from kvdeck.app.tui.modes.monitor.flow_figures import PathRow
from kvdeck.app.tui.modes.monitor.panes.tiers import Tiers
from kvdeck.app.tui.modes.monitor.series_browser import SeriesScreen
from kvdeck.app.tui.modes.monitor.source_chooser import SourceChooser
from kvdeck.app.tui.source_search import FoundSources
from kvdeck.app.tui.widgets.list import Listing
from kvdeck.engine.quantities import parse_count
from kvdeck.engine.telemetry.sample import Number
from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.store.telemetry.annotations import Mark
from kvdeck.sessions.units import plain_text

if TYPE_CHECKING:
    from kvdeck.app.tui.modes.monitor.screen import MonitorScreen

LIMITS = "`> 5 GB/s`, `< 100 blocks/s`, `> 90 %`; empty removes the alert"


def annotate(screen: MonitorScreen) -> None:
    """Annotate the time shown. Time is taken at the key press, since typing takes a while."""
    timeline = screen.timeline
    at = time.time() if timeline.shown is None else timeline.shown

    def noted(text: str | None) -> None:
        if text:
            timeline.marks.add(Mark(at, text))
            screen.annotate_recording(text, "note", at)
            screen.draw()

    screen.app.push_screen(
        AskText("Annotate this moment", "", "such as `load started`; also stored in a recording"), noted
    )


def threshold(screen: MonitorScreen) -> None:
    """Set or remove the alert of the row under the cursor."""
    pane, thresholds = screen.focused, screen.timeline.thresholds
    if not isinstance(pane, (Listing, Tiers)) or pane.under_cursor is None:
        return
    found = pane.under_cursor
    key = pane.key(found)
    row = found.flow if isinstance(found, PathRow) else found
    name = row.name if isinstance(row, Number) else f"{arrow(row)} ({short(row.name)})"

    def typed(text: str | None) -> None:
        if text is None:
            return
        try:
            thresholds.put(key, text, row)
        except UsageError as error:
            screen.notify(str(error), severity="warning", markup=False)
            return
        screen.change(replace(screen.settings, thresholds=thresholds.texts))

    screen.app.push_screen(AskText(f"Alert when {name} is", thresholds.text(key), LIMITS), typed)


def series(screen: MonitorScreen) -> None:
    """Open the series browser, and apply the pins chosen there."""
    wanted = None if screen.timeline.replay is not None else screen.wanted()
    listed = SeriesScreen(screen.timeline.view(screen.settings.pins).moment, wanted, screen.settings.pins)

    def chosen(_: None) -> None:
        if tuple(listed.pins) != screen.settings.pins:
            screen.change(replace(screen.settings, pins=tuple(listed.pins)))

    screen.app.push_screen(listed, chosen)


def sources(screen: MonitorScreen) -> None:
    """Open the source dialog and apply the selection; Esc, too, marks the sources as seen."""

    def seen(found: FoundSources) -> None:
        screen.note_found(found)

    def chosen(answer: tuple[tuple[str, ...], tuple[str, ...]] | None) -> None:
        settings = screen.settings
        offered = tuple(found.name for found in screen.found)
        ticked, known = answer if answer is not None else (settings.sources or (), offered)
        known = tuple(dict.fromkeys((*settings.known, *known)))
        screen.change(replace(settings, sources=ticked, known=known))

    newest = screen.timeline.newest
    kinds = {} if newest is None else {source.name: source.kind for source in newest.sources}
    screen.app.push_screen(SourceChooser(screen.settings.sources, seen, kinds), chosen)


def block(screen: MonitorScreen) -> None:
    """Set the size of a KVBM block in bytes; empty: unknown."""

    def typed(text: str | None) -> None:
        if text is None:
            return
        try:
            size = float(parse_count(text)) if text.strip() else None
        except UsageError as error:
            screen.notify(str(error), severity="warning", markup=False)
        else:
            screen.set_block(size, "as typed")

    size = screen.settings.block_bytes
    note = "empty: unknown, shown in blocks; the palette copies it from the plan"
    screen.app.push_screen(AskText("Size of one KVBM block in bytes", plain_text(size, 0), note), typed)


def record(screen: MonitorScreen) -> None:
    """Start a recording under a name, or stop the one that runs."""
    going, wanted = screen.recording, screen.wanted()
    if going is not None:
        screen.app.command(lambda: screen.app.requests.stop_recording(going.name))
        return
    if wanted is None:
        screen.notify("no source is selected · s selects sources", severity="warning")
        return

    def named(name: str | None) -> None:
        if name:
            screen.app.command(lambda: screen.app.requests.start_recording(name, wanted))

    value = time.strftime("monitor-%Y%m%d-%H%M%S")
    screen.app.push_screen(
        AskText("Record into session", value, "continues when the deck is closed; R stops it"), named
    )
