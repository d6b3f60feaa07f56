"""Dialogs of the Monitor: annotation text, alert, block size, sources, series, name of a recording."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from kvdeck.app.text.monitor_names import short
from kvdeck.app.text.monitor_report import arrow
from kvdeck.app.tui.dialogs.prompt import AskText
from kvdeck.app.tui.modes.monitor.series_browser import SeriesScreen
from kvdeck.app.tui.modes.monitor.source_chooser import SourceChooser
from kvdeck.app.tui.widgets.list import Listing
from kvdeck.engine.telemetry.sample import Number
from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.store.telemetry.annotations import Mark
from kvdeck.sessions.units import plain_text

if TYPE_CHECKING:
    from kvdeck.app.tui.modes.monitor.screen import MonitorScreen

LIMITS = "`> 5 GB/s`, `< 100 blocks/s`, `> 90 %`; empty takes it away"


def annotate(screen: MonitorScreen) -> None:
    """Annotate the time shown. Time is taken at the key press, since typing takes a while."""
    timeline = screen.timeline
    at = time.time() if timeline.shown is None else timeline.shown

    def noted(text: str | None) -> None:
        if text:
            timeline.marks.add(Mark(at, text))
            screen.annotate_recording(text, "note", at)
            screen.draw()

    screen.app.push_screen(AskText("Note this moment", "", "such as `load started`; a recording gets it too"), noted)


def threshold(screen: MonitorScreen) -> None:
    """Set or remove the alert of the row under the cursor."""
    pane, thresholds = screen.focused, screen.timeline.thresholds
    if not isinstance(pane, Listing) or pane.under_cursor is None:
        return
    row = pane.under_cursor
    key = pane.key(row)
    name = row.name if isinstance(row, Number) else f"{arrow(row.flow)} ({short(row.flow.name)})"

    def typed(text: str | None) -> None:
        if text is None:
            return
        try:
            thresholds.put(key, text)
        except UsageError as error:
            screen.notify(str(error), severity="warning", markup=False)
            return
        screen.change(replace(screen.settings, thresholds=thresholds.texts))

    screen.app.push_screen(AskText(f"Tell when {name} is", thresholds.text(key), LIMITS), typed)


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

    def chosen(answer: tuple[tuple[str, ...], tuple[str, ...]] | None) -> None:
        settings = screen.settings
        offered = tuple(found.name for found in screen.found)
        ticked, known = answer if answer is not None else (settings.sources or (), offered)
        known = tuple(dict.fromkeys((*settings.known, *known)))
        screen.change(replace(settings, sources=ticked, known=known))

    screen.app.push_screen(SourceChooser(screen.settings.sources), chosen)


def block(screen: MonitorScreen) -> None:
    """Set the size of a KVBM block in bytes; empty: unknown."""

    def typed(text: str | None) -> None:
        if text is None:
            return
        number = text.replace(",", "").replace("_", "")
        if number and not (number.isdecimal() and int(number)):
            screen.notify("give a whole number of bytes", severity="warning")
        else:
            screen.set_block(float(number) if number else None, "as typed")

    size = screen.settings.block_bytes
    note = "empty: not known, blocks stay blocks; the palette takes it from the plan"
    screen.app.push_screen(AskText("Bytes of one KVBM block", plain_text(size, 0), note), typed)


def record(screen: MonitorScreen) -> None:
    """Start a recording under a name, or stop the one that runs."""
    going, wanted = screen.recording, screen.wanted()
    if going is not None:
        screen.app.command(lambda: screen.app.requests.stop_recording(going.name))
        return
    if wanted is None:
        screen.notify("nothing is watched: s chooses sources first", severity="warning")
        return

    def named(name: str | None) -> None:
        if name:
            screen.app.command(lambda: screen.app.requests.start_recording(name, wanted))

    value = time.strftime("monitor-%Y%m%d-%H%M%S")
    screen.app.push_screen(
        AskText("Record into session", value, "it goes on when the deck is closed; R ends it"), named
    )
