"""The newest lines that a run has for its operator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvdeck.app.widgets.lines import Lines, Row, cell, heading
from kvdeck.app.words import clock

if TYPE_CHECKING:
    from kvdeck.app.folding import RunView

_TONES = {"info": "", "warning": "warn", "error": "bad"}
_MARKS = {"info": " ", "warning": "!", "error": "✗"}


class LogPane(Lines):
    """The tail of the log; a crashed worker's last words stand in it too."""

    run: RunView | None = None

    def apply(self, run: RunView | None) -> None:
        self.run = run
        self.redraw()

    def rows(self, width: int, height: int) -> list[Row]:
        lines: list[Row] = []
        for line in () if self.run is None else self.run.log[-height:]:
            stamp = (
                f" {clock(line.seconds):>5} {_MARKS[line.level]} ",
                "dim" if line.level == "info" else _TONES[line.level],
            )
            lines.append((stamp, cell(line.text, width - 9, _TONES[line.level])))
        for text in () if self.run is None else self.run.last_words:
            lines.append((("       ✗ ", "bad"), cell(text, width - 9, "bad")))
        return [heading("Log", width), *lines[-(height - 1) :]]
