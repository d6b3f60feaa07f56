"""Base of all live widgets: rows of styled spans, of which only the cells that differ are repainted."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from kvdeck.app.tui import theme
from kvdeck.app.tui.columns import columns, join
from kvdeck.sessions.host.escapes import visible

if TYPE_CHECKING:
    from textual.events import Resize

    from kvdeck.app.tui.export import Table

Span: TypeAlias = "tuple[str, str]"
"""Text and its style name, as `theme.style` takes it."""
Row: TypeAlias = "tuple[Span, ...]"

CURSOR: Span = ("", "cursor")
"""First span of a row: marks the row under the cursor."""


def cell(text: str, width: int, style: str = "", *, right: bool = False) -> Span:
    """Return text cut or padded to exactly `width` columns; cut text ends in `…`, control characters are made
    visible."""
    text = visible(text)
    # Fast path: most texts are ASCII, and thousands of cells are made per second.
    size = len(text) if text.isascii() else cell_len(text)
    if size > width:
        text = set_cell_size(text, width - 1) + "…" if width > 1 else set_cell_size(text, width)
        size = cell_len(text)
    pad = " " * (width - size)
    return (pad + text if right else text + pad, style)


def heading(title: str, width: int, focused: bool = False, note: str = "") -> Row:
    """Return a pane's heading row: the title, a rule, and a note at the right end."""
    mark = "▌" if focused else " "
    left = f"{mark}{title} "
    right = f" {note} " if note else ""
    rule = "─" * max(0, width - cell_len(left) - cell_len(right))
    return ((left, "title" if focused else "!dim"), (rule, "rule"), (right, "dim"))


def linked(row: Row, target: str) -> Row:
    """Return the row with its first span as a link; unchanged if `target` is empty."""
    return ((row[0][0], f"{row[0][1]}@{target}"), *row[1:]) if target else row


def _visible(row: Row) -> Row:
    """Return the row with control characters made visible."""
    if all(text.isprintable() for text, _ in row):
        return row
    return tuple((visible(text), style) for text, style in row)


def window(top: int, cursor: int, total: int, height: int) -> int:
    """Return the first row to show so that the cursor is visible and no room is wasted."""
    top = min(top, cursor) if cursor < top else max(top, cursor - height + 1)
    return max(0, min(top, total - height))


class Lines(Widget):
    """A pane drawn line by line. Subclasses implement `rows`; `redraw` paints what has changed."""

    ALLOW_SELECT = False
    blanks_follow = False
    """Blanks take the style before them: fewer colour changes to send, for panes that update often."""
    DEFAULT_CSS = "Lines { width: 1fr; height: 1fr; }"

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._painted: list[Row] = []
        self._own: tuple[str, Style] | None = None
        self._meant: tuple[dict[str, Style], dict[str, Style]] = ({}, {})
        """Style of each name over the widget's own style, and over the cursor's."""
        self.changes = 0
        """Number of row repaints; unchanged rows are not painted."""

    def rows(self, width: int, height: int) -> list[Row]:
        """Return at most `height` rows for `width` columns."""
        raise NotImplementedError

    def table(self) -> Table | None:
        """Return the table to copy from this pane, or None."""
        return None

    def points(self) -> Table | None:
        """Return the chart's points to export, or None."""
        return None

    def charts(self) -> list[Table]:
        """Return all tables of chart points to export; several if the pane shows several charts."""
        found = self.points()
        return [] if found is None else [found]

    def redraw(self) -> None:
        """Compose the rows again and mark the cells that differ for repainting."""
        width, height = self.size
        if not width or not height:
            return
        fresh = [_visible(row) for row in self.rows(width, height)[:height]]
        before, self._painted = self._painted, fresh
        for y in range(max(len(before), len(fresh))):
            old, new = before[y] if y < len(before) else (), fresh[y] if y < len(fresh) else ()
            if old != new:
                start, end = _difference(old, new, width)
                if end > start:
                    self.changes += 1
                    self.refresh(Region(start, y, end - start, 1))

    def on_resize(self, _: Resize) -> None:
        self._painted = []
        self.redraw()
        self.refresh()

    def watch_has_focus(self, has_focus: bool) -> None:
        super().watch_has_focus(has_focus)
        self.redraw()

    def render_line(self, y: int) -> Strip:
        row = self._painted[y] if y < len(self._painted) else ()
        return self._strip(row, self.size.width)

    def _strip(self, row: Row, width: int) -> Strip:
        variables, base = self.app.theme_variables, self._base()
        if CURSOR in row and variables["deck-cursor"] == "ansi_default":
            # The terminal's own palette has no shade for the row, so reverse the row and drop its colours.
            text = "".join(text for text, _ in row)
            return Strip([Segment(text, base + Style(reverse=True))]).adjust_cell_length(
                width, base + Style(reverse=True)
            )
        cursor = CURSOR in row
        known = self._meant[cursor]
        if cursor:
            base = base + Style(bgcolor=Color.parse(variables["deck-cursor"]).rich_color)
        segments: list[Segment] = []
        texts: list[str] = []
        style: Style | None = None
        for text, name in row:
            if not text:
                continue
            if style is None or not (self.blanks_follow and text.isspace()):
                found = known.get(name)
                if found is None:
                    found = known[name] = base + theme.style(variables, name)
                if style is not None and found is not style and found != style:
                    segments.append(Segment("".join(texts), style))
                    texts = []
                style = found
            texts.append(text)
        if style is not None:
            segments.append(Segment("".join(texts), style))
        return Strip(segments).adjust_cell_length(width, base)

    def _base(self) -> Style:
        """Return the widget's own style, cached: computing it for every line costs a tenth of a tick."""
        if self._own is None or self._own[0] != self.app.theme:
            self._own = (self.app.theme, self.rich_style)
            self._meant = ({}, {})
        return self._own[1]

    def notify_style_update(self) -> None:
        self._own = None
        super().notify_style_update()

    @property
    def plain(self) -> str:
        """The painted rows as text."""
        return "\n".join("".join(text for text, _ in row).rstrip() for row in self._painted)


def _difference(old: Row, new: Row, width: int) -> tuple[int, int]:
    """Return the first column that differs and the one after the last; never half of a wide character."""
    # The whole row changes its ground.
    if (CURSOR in old) != (CURSOR in new):
        return 0, width
    same = 0
    while same < len(old) and same < len(new) and old[same] == new[same]:
        same += 1
    while same and any(columns(row[same][0])[0] for row in (old, new) if same < len(row)):
        same -= 1  # a mark that joins the text before it
    lead = sum(cell_len(text) for text, _ in new[:same])
    rest = max(0, width - lead)
    a, b = _cells(old[same:], rest), _cells(new[same:], rest)
    start = next((x for x in range(rest) if a[x] != b[x]), rest)
    end = next((x + 1 for x in range(rest - 1, start - 1, -1) if a[x] != b[x]), start)
    while 0 < start < end and not (a[start][0] and b[start][0]):
        start -= 1
    while start < end < rest and not (a[end][0] and b[end][0]):
        end += 1
    return lead + start, lead + end


def _cells(row: Row, width: int) -> list[tuple[str, str]]:
    cells: list[tuple[str, str]] = []
    for text, name in row:
        marks, found = columns(text)
        join(cells, marks)
        cells += [(column, name) for column in found]
    return (cells + [(" ", "")] * (width - len(cells)))[:width]
