"""Non-ASCII glyphs that screens draw, and their ASCII replacements."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from functools import lru_cache

from rich.cells import cell_len
from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

from kvdeck.sessions.host.escapes import without_controls

ASCII = {
    "✓": "v", "✗": "X", "×": "x", "–": "-", "—": "-", "−": "-", "·": "-", "…": "~", "•": "*",
    "▸": ">", "▹": ">", "▾": "v", "▴": "^", "◂": "<", "▶": ">", "◀": "<", "▲": "^", "▼": "v",
    "→": ">", "←": "<", "↑": "^", "↓": "v", "↳": ">", "⏎": "<", "↕": "|", "↔": "-", "⇄": "=", "↻": "@",
    "●": "*", "○": "o", "◌": "o", "◉": "@", "◆": "*", "◇": "o", "■": "#", "□": "o", "★": "*", "☐": "o", "☑": "x",
    "▌": "|", "▐": "|", "▏": "_", "▎": "|", "▍": "|", "▋": "|", "▊": "|", "▉": "|", "▔": "-", "▁": "_",
    "█": "#", "▓": "#", "▒": "=", "░": ".",
    "▚": "%", "▀": '"', "▄": "_", "▂": "_", "▃": "_", "▅": "=", "▆": "#", "▇": "#",
    "─": "-", "━": "=", "│": "|", "┃": "|", "┌": "+", "┐": "+", "└": "+", "┘": "+", "├": "+", "┤": "+",
    "┬": "+", "┴": "+", "┼": "+", "┿": "+", "┯": "+", "╭": "+", "╮": "+", "╰": "+", "╯": "+", "╱": "/", "╲": "\\",
    "╌": "-", "┄": "-",
    "═": "=", "║": "|", "╔": "+", "╗": "+", "╚": "+", "╝": "+", "╸": "-", "╺": "-", "╴": "-", "╶": "-",
    "∙": ".", "∷": ":", "⁘": "*", "╞": "[", "╡": "]", "╪": "|", "⅛": "e", "¼": "q",
    "µ": "u", "μ": "u", "≤": "<", "≥": ">", "≈": "~", "±": "+", "÷": "/", "°": "o", "∞": "-", "Σ": "S", "Δ": "d",
    "²": "2", "³": "3", "½": "h", "“": '"', "”": '"', "‘": "'", "’": "'", "‑": "-", "§": "S", "\u00a0": " ",
}  # fmt: skip
"""ASCII replacement of each glyph, one column for one column, so that nothing shifts."""

_BRAILLE = 0x2800
_UPPER, _LOWER = 0x01 | 0x08 | 0x02 | 0x10, 0x04 | 0x20 | 0x40 | 0x80


def wanted(environ: Mapping[str, str], encoding: str | None) -> bool:
    """True if a terminal can't draw more than ASCII: its encoding isn't UTF, or it is the Linux console or a VT."""
    coded = (encoding or "ascii").lower().replace("-", "").replace("_", "")
    return not coded.startswith("utf") or environ.get("TERM", "").startswith(("linux", "vt"))


@lru_cache(maxsize=4096)
def in_ascii(text: str) -> str:
    """Return text in ASCII, of the same width: by the table, else the letter without its accents, else `?`."""
    return text if text.isascii() else "".join(map(_one, text))


def _one(character: str) -> str:
    if character.isascii():
        return character
    if character in ASCII:
        return ASCII[character]
    dots = ord(character) - _BRAILLE
    if 0 <= dots < 0x100:
        return " " if not dots else ":" if dots & _UPPER and dots & _LOWER else "'" if dots & _UPPER else "."
    plain = unicodedata.normalize("NFKD", character)[0]
    width = cell_len(character)
    return plain if plain.isascii() and width == 1 else "?" * width


class Obeyed(LineFilter):
    """Drops characters that control the terminal or have no width; panes have made them visible before this filter.

    Such a character takes no column in a layout, so dropping it shifts nothing.
    """

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:  # noqa: ARG002
        """Return the segments without such characters."""
        if all(segment.text.isprintable() for segment in segments):
            return segments
        return [
            segment if segment.text.isprintable() else Segment(without_controls(segment.text), segment.style)
            for segment in segments
        ]


class Ascii(LineFilter):
    """Converts everything drawn to ASCII on its way to the terminal."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:  # noqa: ARG002
        return [
            segment if segment.text.isascii() else Segment(in_ascii(segment.text), segment.style, segment.control)
            for segment in segments
        ]
