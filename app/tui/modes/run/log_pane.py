"""Log pane of the Run screen."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING

from kvdeck.app.text.run_events import log_text
from kvdeck.app.tui.widgets.lines import Lines, Row, cell, heading
from kvdeck.sessions.units import clock_text

if TYPE_CHECKING:
    from kvdeck.sessions.model.run_state import RunState

_TONES = {"info": "", "warning": "warn", "error": "bad"}
_MARKS = {"info": " ", "warning": "!", "error": "✗"}


class LogPane(Lines):
    """The tail of the run's log, with the last output of a crashed worker."""

    run: RunState | None = None

    def apply(self, run: RunState | None) -> None:
        self.run = run
        self.redraw()

    def rows(self, width: int, height: int) -> list[Row]:
        lines: list[Row] = []
        run, room = self.run, width - 9
        for line in () if run is None else run.log[-height:]:
            tone = _TONES[line.level]
            stamp = (f" {clock_text(line.seconds):>5} {_MARKS[line.level]} ", tone or "dim")
            first, *rest = wrap(log_text(line.event), room) or [""]
            lines.append((stamp, cell(first, room, tone)))
            lines += [(cell("", 9), cell(text, room, tone)) for text in rest]
        for text in () if run is None else run.last_words:
            lines.append((("       ✗ ", "bad"), cell(text, room, "bad")))
        return [heading("Log", width), *lines[-(height - 1) :]]
