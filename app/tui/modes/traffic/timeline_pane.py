"""The time line: a row for each sender, waiting, moving or sleeping."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kvdeck.app.tui.modes.traffic.figures import Stretch
from kvdeck.app.tui.widgets.lines import Row, Span, cell, heading
from kvdeck.app.tui.widgets.scroll import Scrolled
from kvdeck.sessions.units import many, time_text

if TYPE_CHECKING:
    from kvdeck.app.tui.app import Deck

WAITS, MOVES, SLEEPS = "▁", "▓", "░"
CHOSEN, ASCII_CHOSEN = "█", "@"
"""Movement of the pattern under the cursor; `█` would be drawn as `#` in ASCII, as any movement."""
_TONES = {WAITS: "rule", MOVES: "", SLEEPS: "dim"}
LABEL = 6


def lane_text(
    stretches: Sequence[Stretch], width: int, end_ms: float, pattern: int | None = None, chosen: str = CHOSEN
) -> list[Span]:
    """Return one rank's row: in each column what it does for the longer part; a movement has one column at least.

    Args:
        stretches: What the rank does.
        width: Columns.
        end_ms: Time of the last column's end.
        pattern: The pattern to stand out.
        chosen: Its mark.
    """
    if end_ms <= 0:
        return [("", "")]
    step = end_ms / width
    cells: list[tuple[str, str]] = [(WAITS, _TONES[WAITS])] * width
    for doing, glyph in (("sleeps", SLEEPS), ("moves", MOVES)):
        for part in stretches:
            if part.doing != doing:
                continue
            first, last = round(part.start_ms / step), round(part.end_ms / step)
            stands_out = glyph == MOVES and part.pattern == pattern
            drawn = (chosen, "run") if stands_out else (glyph, _TONES[glyph])
            for column in range(min(first, width - 1), min(max(last, first + (glyph == MOVES)), width)):
                cells[column] = drawn
    spans: list[Span] = []
    for glyph, tone in cells:
        if spans and spans[-1][1] == tone and spans[-1][0][-1] == glyph:
            spans[-1] = (spans[-1][0] + glyph, tone)
        else:
            spans.append((glyph, tone))
    return spans


def timeline_rows(
    stretches: Sequence[Stretch], width: int, pattern: int | None = None, chosen: str = CHOSEN
) -> list[Row]:
    """Return a row for each rank that moves or sleeps, in order."""
    end_ms = max((part.end_ms for part in stretches), default=0.0)
    ranks: dict[int, list[Stretch]] = {}
    for part in stretches:
        ranks.setdefault(part.rank, []).append(part)
    return [
        (cell(f" r{rank}", LABEL, "dim"), *lane_text(ranks[rank], max(1, width - LABEL - 1), end_ms, pattern, chosen))
        for rank in sorted(ranks)
    ]


class TimelinePane(Scrolled):
    """The last sequence: who moves bytes when. The bytes of the chosen pattern stand out."""

    app: Deck

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.stretches: tuple[Stretch, ...] = ()
        self.pattern: int | None = None
        self._drawn: tuple[tuple[object, ...], list[Row]] = ((), [])

    def show(self, stretches: tuple[Stretch, ...], pattern: int | None) -> None:
        """Show what ranks did, and a pattern's part in it."""
        self.stretches, self.pattern = stretches, pattern
        self.redraw()

    def rows(self, width: int, height: int) -> list[Row]:
        title = "Time line, one row per sender" if width >= 50 else "Time line"
        if not self.stretches:
            head = heading(title, width, self.has_focus)
            return [head, (cell(" Shown once a sequence was measured.", width, "dim"),)]
        chosen = ASCII_CHOSEN if self.app.ascii else CHOSEN
        key = self.stretches, width, self.pattern
        if self._drawn[0] != key:
            self._drawn = key, timeline_rows(self.stretches, width, self.pattern, chosen)
        body = self._drawn[1]
        room = max(1, height - 2)
        self.top = max(0, min(self.top, len(body) - room))
        below = len(body) - room - self.top
        note = f"↓ {below} more" if below > 0 else f"↑ {self.top} more" if self.top else many(len(body), "sender")
        end = time_text(max(part.end_ms for part in self.stretches) * 1e3)
        apart = "   " if width >= 50 else " "
        legend = f" {apart.join((f'{WAITS} waits', f'{MOVES} moves', f'{SLEEPS} sleeps', f'{chosen} #{self.pattern}'))}"
        span = f"0 … {end} "
        foot: Row = (cell(legend, max(0, width - len(span)), "dim"), (span, "dim"))
        head = heading(title, width, self.has_focus, note)
        return [head, *body[self.top : self.top + room], foot]
