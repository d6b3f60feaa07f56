"""Time position of the Monitor: live, at an earlier sample, or in a recording."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

from kvdeck.app.tui.modes.monitor.alerts import Crossing, Thresholds
from kvdeck.app.tui.modes.monitor.annotations import Marks, happened
from kvdeck.app.tui.modes.monitor.history import SPAN_S, History, Rates
from kvdeck.app.tui.modes.monitor.replay import Replay, Seen
from kvdeck.app.tui.modes.monitor.view import View
from kvdeck.engine.telemetry.sample import Snapshot
from kvdeck.sessions.store.telemetry.annotations import Mark
from kvdeck.sessions.units import duration_text

LARGE_STEP_S = 30.0
CLOCK_SET_S = 1.0
"""Seconds that the clock goes back when it is set, rather than adjusted."""


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
        self._last: Snapshot | None = None
        """The last sample added, which may lack values: see `note_past`."""

    def note(self, moment: Snapshot, pins: tuple[str, ...], packed: bytes = b"") -> list[Crossing]:
        """Add a live sample, annotate changes and alerts, and return the alerts' crossings."""
        self.error = ""
        if self._is_known(moment):
            return []
        moment = with_pins(moment, pins)
        self._follow_clock(moment)
        crossings = self.thresholds.take(moment)
        for crossing in crossings:
            self.marks.add(Mark(crossing.t, crossing.text, "threshold"))
        self._add(moment, packed)
        return crossings

    def note_past(self, moment: Snapshot, pins: tuple[str, ...], packed: bytes, whole: bool) -> None:
        """Add a sample that the engine took earlier; one that isn't after the last sample is ignored.

        Args:
            whole: Whether it may be shown, as all its values are there; `packed` is always whole.
        """
        if not self._is_known(moment):
            moment = with_pins(moment, pins)
            self._follow_clock(moment)
            self._add(moment, packed, whole)

    def _add(self, moment: Snapshot, packed: bytes, whole: bool = True) -> None:
        if self._last is not None:
            for mark in happened(self._last, moment):
                self.marks.add(mark)
        self.history.note(moment, packed)
        self.rates.note(moment)
        self._last = moment
        if whole:
            self.newest = moment

    def _is_known(self, moment: Snapshot) -> bool:
        return self._last is not None and 0 < moment.at_ns <= self._last.at_ns

    def _follow_clock(self, moment: Snapshot) -> None:
        """Move everything in time if the clock was set back, so that newer samples come after older ones."""
        last = self._last
        if last is None or not last.at_ns or not moment.at_ns:
            return
        back = (last.t - moment.t) + (moment.at_ns - last.at_ns) / 1e9
        if back <= CLOCK_SET_S:
            return
        self.history.shift(-back)
        self.rates.shift(-back)
        self.marks.shift(-back)
        if self.shown is not None:
            self.shown -= back
        if self._sought is not None:
            self._sought = replace(self._sought, t=self._sought.t - back)
        self._last = replace(last, t=last.t - back)
        if self.newest is not None:
            self.newest = replace(self.newest, t=self.newest.t - back)
        self.marks.add(Mark(moment.t, f"the clock was set back by {duration_text(back)}", "gap"))

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

    def age_s(self, now_ns: int) -> float | None:
        """Return the age in seconds of the newest sample at monotonic time `now_ns`; None if it isn't known."""
        at_ns = 0 if self.newest is None else self.newest.at_ns
        return (now_ns - at_ns) / 1e9 if at_ns else None

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
            begin, end, every = self.replay.begin, self.replay.end, self.replay.recording.marks
            return View(
                moment, seen.rates, marks, self.thresholds, pins, self.error, "", begin, end, tuple(every), live=False
            )
        here = self._sought if self._sought is not None else self.newest
        if here is None:
            marks = self.marks.until(float("inf"))
            return View(marks=marks, error=self.error, empty="" if self.error else empty, pins=pins)
        moment = with_pins(here, pins)
        marks = self.marks.until(moment.t if self._sought is not None else float("inf"))
        every = self.marks.until(float("inf"))
        end = moment.t if self.newest is None else max(moment.t, self.newest.t)
        begin = max(end - SPAN_S, min(end, self.history.begin or end))
        # Steps of two minutes, so that the scale of a growing history doesn't change with each sample.
        begin = end - min(SPAN_S, max(1, ceil((end - begin) / 120.0)) * 120.0)
        return View(moment, self.rates, marks, self.thresholds, pins, self.error, "", begin, end, every)


def with_pins(moment: Snapshot, pins: tuple[str, ...]) -> Snapshot:
    """Return the sample with `pinned` set to the series named in `pins`, in that order, from all its numbers."""
    if not pins:
        return moment if not moment.pinned else replace(moment, pinned=())
    found = [number for number in moment.pinned if number.name in pins]
    here = {number.name for number in found}
    found += [n for n in (*moment.counters, *moment.gauges) if n.name in pins and n.name not in here]
    found.sort(key=lambda number: (pins.index(number.name), number.source, sorted(number.labels.items())))
    return replace(moment, pinned=tuple(found))
