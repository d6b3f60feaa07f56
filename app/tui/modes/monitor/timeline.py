"""Time position of the Monitor: live, at an earlier sample, or in a recording."""

from __future__ import annotations

from dataclasses import replace

from kvdeck.app.tui.modes.monitor.alerts import Crossing, Thresholds
from kvdeck.app.tui.modes.monitor.annotations import Marks, happened
from kvdeck.app.tui.modes.monitor.history import History, Rates
from kvdeck.app.tui.modes.monitor.replay import Replay, Seen
from kvdeck.app.tui.modes.monitor.view import View
from kvdeck.engine.telemetry.sample import Snapshot
from kvdeck.sessions.store.telemetry.annotations import Mark

LARGE_STEP_S = 30.0


class Timeline:
    """The live history and the position in it, or in the recording that is replayed."""

    def __init__(self, thresholds: Thresholds) -> None:
        self.history, self.rates, self.marks = History(), Rates(), Marks()
        self.thresholds = thresholds
        self.newest: Snapshot | None = None
        self.error = ""
        self.shown: float | None = None
        """Unix time in seconds of the earlier sample shown; None is live."""
        self.replay: Replay | None = None
        self.seen: Seen | None = None
        self._sought: Snapshot | None = None

    def note(self, moment: Snapshot, pins: tuple[str, ...], packed: bytes = b"") -> list[Crossing]:
        """Add a live sample, annotate changes and alerts, and return the alerts' crossings."""
        moment = with_pins(moment, pins)
        crossings = self.thresholds.take(moment)
        if self.newest is not None:
            for mark in happened(self.newest, moment):
                self.marks.add(mark)
        for crossing in crossings:
            self.marks.add(Mark(crossing.t, crossing.text, "threshold"))
        self.history.note(moment, packed)
        self.rates.note(moment)
        self.newest, self.error = moment, ""
        return crossings

    def step(self, seconds: float) -> None:
        """Move by seconds (negative: back) in the live history; moving past the newest sample returns to live."""
        begin, end = self.history.begin, self.history.end
        if begin is None or end is None:
            return
        at = (end if self.shown is None else self.shown) + seconds
        self.shown = None if at >= end else max(begin, at)
        self._sought = None if self.shown is None else self.history.at(self.shown)
        if self._sought is not None:
            self.shown = self._sought.t

    def live(self) -> None:
        """Show the newest live sample, and close the recording."""
        self.shown = self._sought = self.replay = self.seen = None

    @property
    def now(self) -> float | None:
        """Unix time in seconds of the display; None if there is no sample yet."""
        if self.seen is not None:
            return self.seen.position
        return self.shown if self.shown is not None else None if self.newest is None else self.newest.t

    def view(self, pins: tuple[str, ...], empty: str = "") -> View:
        """Return the panes' input at the position; `empty` is the reason to show while there is no sample."""
        if self.replay is not None:
            seen = self.seen
            if seen is None:
                return View(error=self.error, empty="" if self.error else "reading the recording …")
            # Sparklines end at the replay position, which may lie between two samples.
            moment = with_pins(seen.moment, pins)
            marks = tuple(mark for mark in self.replay.recording.marks if mark.t <= seen.position)
            return View(moment, seen.rates, marks, self.thresholds, pins, self.error)
        here = self._sought if self._sought is not None else self.newest
        if here is None:
            marks = self.marks.until(float("inf"))
            return View(marks=marks, error=self.error, empty="" if self.error else empty, pins=pins)
        moment = with_pins(here, pins)
        marks = self.marks.until(moment.t if self._sought is not None else float("inf"))
        return View(moment, self.rates, marks, self.thresholds, pins, self.error)


def with_pins(moment: Snapshot, pins: tuple[str, ...]) -> Snapshot:
    """Return the sample with `pinned` set to the series named in `pins`, in that order, from all its numbers."""
    if not pins:
        return moment if not moment.pinned else replace(moment, pinned=())
    found = [number for number in moment.pinned if number.name in pins]
    here = {number.name for number in found}
    found += [n for n in (*moment.counters, *moment.gauges) if n.name in pins and n.name not in here]
    found.sort(key=lambda number: (pins.index(number.name), number.source, sorted(number.labels.items())))
    return replace(moment, pinned=tuple(found))
