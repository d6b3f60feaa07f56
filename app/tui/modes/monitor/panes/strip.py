"""Time line pane: traffic and annotations of the whole time that can be shown, and the time shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kvdeck.app.text.monitor_names import time_of_day
from kvdeck.app.tui.modes.monitor.annotations import TONES
from kvdeck.app.tui.modes.monitor.headline import offloaded, onboarded
from kvdeck.app.tui.modes.monitor.panes.panel import Panel
from kvdeck.app.tui.modes.monitor.sparks import area, most, scale
from kvdeck.app.tui.widgets.cells import Cells
from kvdeck.app.tui.widgets.lines import Row, heading
from kvdeck.sessions.units import clock_text, figure, local_time, rate_text

if TYPE_CHECKING:
    from kvdeck.app.tui.export import Table

_LABEL, _PEAK = 10, 10
MIRRORED = 8
"""Rows from which onboard is drawn above an axis and offload below it."""
_SIGNS = {"bad": "✗", "warning": "▲", "threshold": "▲", "look": "▲", "source": "↻", "gap": "╌", "note": "●"}


class TimeStrip(Panel):
    """Offload and onboard over the history, or over the two minutes read of a recording; `┃` is the time shown."""

    title = "Time line"

    def rows(self, width: int, height: int) -> list[Row]:
        note = "[ ] 1 s · { } 30 s · a annotates"
        return [heading(self.title, width, self.has_focus, note), *self._body(width, height - 1)]

    def _body(self, width: int, height: int) -> list[Row]:
        view = self.view
        begin, end = view.begin, view.end
        room = width - _LABEL - _PEAK
        if end <= begin or room < 20 or height < 2:
            return []
        at = min(room - 1, max(0, int((view.now - begin) / (end - begin) * (room - 1) + 0.5)))
        rows = self._graphs(width, room, height - 2)
        rows += [self._events(width, room, begin, end), axis(width, _LABEL, room, begin, end, view.live)]
        for cells in rows:
            character = cells.at(_LABEL + at)
            if character in " ·⠀" or cells is rows[-2]:
                cells.put(_LABEL + at, "┃", "key")
        return [cells.row() for cells in rows]

    def _graphs(self, width: int, room: int, height: int) -> list[Cells]:
        view = self.view
        span = view.end - view.begin
        both = [("onboard", "tier:G1", onboarded(view.moment)), ("offload", "tier:G2", offloaded(view.moment))]
        drawn = [
            (name, tone, moved, view.rates.sum_cells(moved.flows, view.end, room, span)) for name, tone, moved in both
        ]
        rows: list[Cells] = []
        mirrored = height >= MIRRORED - 3
        half = height // 2 if mirrored else 1
        top = scale(max((most(values) or 0.0 for _, _, _, values in drawn), default=0.0))
        for name, tone, moved, values in drawn if mirrored else reversed(drawn):
            peak = most(values)
            bars = area(
                _moving(values), top if mirrored else scale(peak or 0.0), half, hangs=name == "offload" and mirrored
            )
            gaps = _gaps(values)
            unit = rate_text(peak) if moved.unit == "B" else "" if peak is None else f"{figure(peak)} bl/s"
            for place, text in enumerate(bars):
                cells = Cells(width)
                edge = half - 1 if name == "offload" and mirrored else 0
                if place == edge:
                    cells.put(1, name, "dim")
                    cells.right(width, unit if peak is not None else "–", "dim")
                cells.put(_LABEL, text, tone)
                for column in gaps:
                    cells.put(_LABEL + column, "╌", "rule")
                rows.append(cells)
        return rows

    def _events(self, width: int, room: int, begin: float, end: float) -> Cells:
        cells = Cells(width)
        cells.put(1, "events", "dim")
        cells.put(_LABEL, "·" * room, "rule")
        free = room
        # From the newest back: an older one is cut where a newer one begins.
        for mark in reversed(self.view.all_marks):
            if not begin <= mark.t <= end:
                continue
            place = min(room - 1, int((mark.t - begin) / (end - begin) * (room - 1) + 0.5))
            if place >= free:
                continue
            text = f"{_SIGNS.get(mark.kind, '●')} {mark.text} "[: free - place]
            cells.put(_LABEL + place, text, TONES.get(mark.kind, ""))
            free = place
        return cells

    def table(self) -> Table:
        from kvdeck.app.tui.export import Table

        rows = tuple((time_of_day(mark.t), mark.kind, mark.text) for mark in self.view.all_marks)
        return Table("events", ("time", "kind", "event"), rows)


def _moving(values: Sequence[float | None]) -> list[float | None]:
    """Return the rates, those of 0 as unknown: they are drawn as nothing, so that an idle screen isn't redrawn."""
    return [value or None for value in values]


def _gaps(values: Sequence[float | None]) -> list[int]:
    """Return the columns without a known rate between two with one."""
    known = [place // 2 for place, value in enumerate(values) if value is not None]
    return sorted(set(range(known[0], known[-1])) - set(known)) if known else []


def axis(width: int, left: int, room: int, begin: float, end: float, live: bool) -> Cells:
    """Return the times below a chart: `4:00 ago` of a live one, whose clock times would change all the time."""
    cells = Cells(width)
    count = next((count for count in (5, 4, 3, 2) if room // count >= 18), 1)
    for place in range(count + 1):
        back = (end - begin) * (1 - place / count)
        text = local_time(end - back, "%H:%M:%S") if not live else f"{clock_text(back)} ago" if back else "now"
        column = round(room * place / count) - (len(text) // 2 if place else 0)
        cells.put(left + min(room - len(text), max(0, column)), text, "dim")
    return cells
