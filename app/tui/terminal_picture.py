"""The picture at the terminal, and the sequences that change it into the next one: only cells that differ are sent.

Textual paints a whole screen when one is opened, closed or covered. Most of it stands at the terminal already.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

from rich.color import ColorSystem
from rich.segment import ControlType
from rich.style import Style
from textual._compositor import CompositorUpdate

from kvdeck.app.tui.columns import columns, join

if TYPE_CHECKING:
    from rich.console import Console
    from rich.segment import Segment

Cell: TypeAlias = "tuple[str, Style]"
"""A character and its style; the right half of a wide character is an empty text."""
PLAIN = Style()
SHORTEST_GAP = 6
"""Cells that don't differ between two that do are sent too if they are fewer: moving the cursor costs as much."""
_ATTRIBUTES = ("1", "2", "3", "4", "5", "6", "7", "8", "9", "21", "51", "52", "53")
_ON_BLANKS = sum(1 << _ATTRIBUTES.index(code) for code in ("4", "7", "9", "21", "53"))
"""Attributes that show on a blank: underline, reverse, strike, double underline, overline."""


class TerminalPicture:
    """The cells that a terminal shows, by row; a row that isn't known is empty."""

    def __init__(self) -> None:
        self._rows: dict[int, list[Cell]] = {}

    def forget(self) -> None:
        """Take nothing for granted: the next update is sent as a whole."""
        self._rows.clear()

    def sequence(self, segments: Iterable[Segment], colors: ColorSystem) -> str:
        """Record the segments as painted; return what to write so that the terminal shows them.

        Args:
            segments: Text, and movements of the cursor, as Textual's updates yield them.
            colors: What the terminal can draw.
        """
        pen = _Pen(colors)
        x = y = 0
        run: list[Cell] = []
        for segment in segments:
            if segment.control is not None:
                pen.write(self._changes(x, y, run))
                run = []
                for code in segment.control:
                    if code[0] == ControlType.CURSOR_MOVE_TO:
                        x, y = int(code[1]), int(code[2])  # type: ignore[misc]
            elif segment.text != "\n":
                marks, cells = _cells(segment.text, segment.style or PLAIN)
                join(run, marks)
                run += cells
        pen.write(self._changes(x, y, run))
        return pen.text

    def _changes(self, x: int, y: int, run: list[Cell]) -> list[tuple[int, int, list[Cell]]]:
        """Record a run of cells; return (x, y, cells) of each stretch that differs from what was there."""
        if not run:
            return []
        row = self._rows.setdefault(y, [])
        before = row[x : x + len(run)]
        if before == run:
            return []
        if len(row) < x:
            row += [("\0", PLAIN)] * (x - len(row))
        row[x : x + len(run)] = run
        before += [("\0", PLAIN)] * (len(run) - len(before))
        found: list[tuple[int, int, list[Cell]]] = []
        start = end = -1
        for place, (old, new) in enumerate(zip(before, run, strict=True)):
            if old == new or _same_blank(old, new):
                continue
            if start >= 0 and place - end > SHORTEST_GAP:
                found.append(self._stretch(x, y, run, start, end))
                start = -1
            start, end = place if start < 0 else start, place + 1
        if start >= 0:
            found.append(self._stretch(x, y, run, start, end))
        return found

    @staticmethod
    def _stretch(x: int, y: int, run: list[Cell], start: int, end: int) -> tuple[int, int, list[Cell]]:
        """Return the stretch with the whole of the wide characters at its ends."""
        while start > 0 and not run[start][0]:
            start -= 1
        while end < len(run) and not run[end][0]:
            end += 1
        return x + start, y, run[start:end]


class _Pen:
    """Sequences that write cells; a style sends only what differs from the one before it."""

    def __init__(self, colors: ColorSystem) -> None:
        self._colors = colors
        self._parts: list[str] = []
        self._look: tuple[str, str, str] = ("", "", "")
        self._link = ""
        self._shows_on_blanks = 0

    def write(self, stretches: Iterable[tuple[int, int, list[Cell]]]) -> None:
        for x, y, cells in stretches:
            self._parts.append(f"\x1b[{y + 1};{x + 1}H")
            for text, style in cells:
                if text:
                    self._use(style, text == " ")
                    self._parts.append(text)

    def _use(self, style: Style, blank: bool) -> None:
        attributes, ink, ground = _look(style, self._colors)
        if blank and not style._attributes & style._set_attributes & _ON_BLANKS and not self._shows_on_blanks:
            attributes, ink = self._look[:2]  # neither shows on a blank
        if (link := style.link or "") != self._link:
            self._parts.append(f"\x1b]8;id={style.link_id};{link}\x1b\\" if link else "\x1b]8;;\x1b\\")
            self._link = link
        now = attributes, ink, ground
        if now == self._look:
            return
        before, self._look = self._look, now
        if attributes != before[0]:
            self._shows_on_blanks = style._attributes & style._set_attributes & _ON_BLANKS
        codes = []
        if before[0] != attributes:
            if before[0]:
                codes, before = ["0"], ("", "", "")
            codes += [attributes] if attributes else []
        codes += [ink or "39"] if ink != before[1] else []
        codes += [ground or "49"] if ground != before[2] else []
        self._parts.append(f"\x1b[{';'.join(codes)}m")

    @property
    def text(self) -> str:
        if self._link:
            self._parts.append("\x1b]8;;\x1b\\")
        return "".join([*self._parts, "\x1b[0m"]) if self._parts else ""


class PictureUpdate(CompositorUpdate):
    """An update of Textual's, sent as what it changes in a picture."""

    def __init__(self, picture: TerminalPicture, update: CompositorUpdate) -> None:
        self._picture, self._update = picture, update

    def render_segments(self, console: Console) -> str:
        colors = console._color_system or ColorSystem.TRUECOLOR
        return self._picture.sequence(self._update.__rich_console__(console, console.options), colors)  # type: ignore[attr-defined]


def _same_blank(old: Cell, new: Cell) -> bool:
    """True if both are blanks of one ground: their ink doesn't show."""
    if old[0] != " " or new[0] != " ":
        return False
    shows = (old[1]._attributes & old[1]._set_attributes) | (new[1]._attributes & new[1]._set_attributes)
    return not shows & _ON_BLANKS and old[1].bgcolor == new[1].bgcolor and old[1].link == new[1].link


@lru_cache(maxsize=4096)
def _cells(text: str, style: Style) -> tuple[str, tuple[Cell, ...]]:
    """Return the marks that join the cell before the text, and its cells."""
    marks, found = columns(text)
    return marks, tuple((column, style) for column in found)


@lru_cache(maxsize=2048)
def _look(style: Style, colors: ColorSystem) -> tuple[str, str, str]:
    """Return the codes of a style's attributes, ink and ground."""
    bits = style._attributes & style._set_attributes
    attributes = ";".join(code for place, code in enumerate(_ATTRIBUTES) if bits & (1 << place))
    ink = "" if style.color is None else ";".join(style.color.downgrade(colors).get_ansi_codes())
    ground = "" if style.bgcolor is None else ";".join(style.bgcolor.downgrade(colors).get_ansi_codes(False))
    return attributes, "" if ink == "39" else ink, "" if ground == "49" else ground
