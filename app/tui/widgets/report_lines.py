"""Lines of a text report as rows of a screen."""

from __future__ import annotations

import re

from kvdeck.app.tui.form_fields import LAYOUTS
from kvdeck.app.tui.widgets.lines import Row, cell
from kvdeck.sessions.text.run_report import Line
from kvdeck.sessions.units import layout_name

_TONES = {"plain": "", "heading": "title", "bad": "bad", "warning": "warn"}
_LAYOUTS = {layout_name(text): text for text in LAYOUTS}
_TABLE_ROW = re.compile(rf"\s+({'|'.join(sorted(_LAYOUTS, reverse=True))})\s+\d+/")


def line_row(line: Line, width: int) -> Row:
    """Return a report line as a row coloured by its tone, or in a table by its layout."""
    found = _TABLE_ROW.match(line.text)
    if found is None:
        return (cell(f" {line.text}", width, _TONES[line.tone]),)
    end = found.end(1)
    return ((f" {line.text[:end]}", f"layout:{_LAYOUTS[found[1]]}"), cell(line.text[end:], max(1, width - end - 1)))
