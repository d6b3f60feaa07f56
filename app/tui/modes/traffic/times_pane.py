"""Times of a pattern's visits, alone and together, on one scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kvdeck.app.tui.export import Table
from kvdeck.app.tui.widgets.lines import Lines, Row, cell, heading
from kvdeck.sessions.stats import percentile
from kvdeck.sessions.units import plain_text, time_text

if TYPE_CHECKING:
    from kvdeck.app.tui.app import Deck

DENSITY, ASCII_DENSITY = "∙∷▒▓█", ".:=#@"
LABEL = 10
FIGURES = 26
"""Columns of the percentiles at the right."""


def strip(times: Sequence[float], least: float, most: float, width: int, ascii: bool) -> str:
    """Return a mark for each time at its place between `least` and `most` on a log scale; denser where several are."""
    counts = [0] * width
    span = math.log(most / least) if most > least else 1.0
    for time in times:
        counts[max(0, min(width - 1, round(math.log(time / least) / span * (width - 1))))] += 1
    fullest = max(counts, default=0)
    glyphs = ASCII_DENSITY if ascii else DENSITY
    return "".join(
        " " if not count else glyphs[0 if fullest == 1 else round((count - 1) / (fullest - 1) * (len(glyphs) - 1))]
        for count in counts
    )


def time_rows(alone: Sequence[float], together: Sequence[float], width: int, ascii: bool) -> list[Row]:
    """Return a strip of each, and their axis. Times in ns; 0 of a clock that did not move is left out."""
    visits = ("alone", alone), ("together", together)
    rows = [(name, sorted(time for time in times if time > 0)) for name, times in visits]
    every = [time for _, times in rows for time in times]
    if not every:
        return []
    least, most = min(every), max(every)
    room = max(8, width - LABEL - FIGURES)
    found: list[Row] = []
    for name, times in rows:
        if not times:
            found.append((cell(f" {name}", LABEL, "dim"), ("–", "dim")))
            continue
        figures = f"p50 {time_text(percentile(times, 0.5) / 1e3)}  p99 {time_text(percentile(times, 0.99) / 1e3)}"
        found.append((cell(f" {name}", LABEL, "dim"), (strip(times, least, most, room, ascii), "run"),
                      cell(f" {figures}", width - LABEL - room)))  # fmt: skip
    first, last = time_text(least / 1e3), time_text(most / 1e3)
    axis = first + last.rjust(room - len(first)) if most > least else first
    return [*found, (cell("", LABEL), (axis, "dim"))]


class TimesPane(Lines):
    """Each visit a mark: how far the times together lie from those alone."""

    app: Deck
    DEFAULT_CSS = "TimesPane { height: 4; }"

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.alone: Sequence[float] = ()
        self.together: Sequence[float] = ()
        self.pattern: int | None = None

    def show(self, alone: Sequence[float], together: Sequence[float], pattern: int | None) -> None:
        """Show the latencies of a pattern's visits, in ns."""
        if (alone, together, pattern) != (self.alone, self.together, self.pattern):
            self.alone, self.together, self.pattern = alone, together, pattern
            self.redraw()

    def rows(self, width: int, height: int) -> list[Row]:
        if not self.alone and not self.together:
            return []
        count = len(self.alone) + len(self.together)
        head = heading(f"Times of #{self.pattern}, each visit a mark", width, False, f"{count}, log scale")
        return [head, *time_rows(self.alone, self.together, width, self.app.ascii)]

    def points(self) -> Table | None:
        rows = [
            (name, str(number), plain_text(time / 1e6, 6))
            for name, times in (("alone", self.alone), ("together", self.together))
            for number, time in enumerate(times)
        ]
        return Table(f"traffic-times-{self.pattern}", ("visits", "number", "ms"), tuple(rows))
