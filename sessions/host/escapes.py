r"""Escaping of control and invisible characters in foreign text: shown as `\x1b`, `\u202e`.

Names, labels, notes, messages of other programs and file names may hold control characters (C0, C1, DEL), direction
marks, zero-width characters and halves of surrogate pairs. All printed text passes through here.
"""

from __future__ import annotations

import re
from typing import TypeVar

T = TypeVar("T")
_INVISIBLE = (
    "\x00-\x1f\x7f-\x9f"  # C0, DEL, C1: a terminal interprets them
    "\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # zero width, or change direction
    "\u2028\u2029"  # line and paragraph ends
    "\ud800-\udfff"  # bytes that were not UTF-8
    "\U000e0000-\U000e0fff"  # tags
)
_ANY = re.compile(f"[{_INVISIBLE}]")
_ANY_BUT_NEWLINE = re.compile(f"(?!\n)[{_INVISIBLE}]")
_SHORT = {"\n": r"\n", "\t": r"\t", "\r": r"\r"}
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def visible(text: str, *, lines: bool = False) -> str:
    r"""Return the text with each such character escaped.

    Args:
        text: Any text.
        lines: Leave newlines: the text is several lines of kvdeck's own.
    """
    if text.isprintable():  # fast path: no character above is printable
        return text
    return (_ANY_BUT_NEWLINE if lines else _ANY).sub(_written_out, text)


def without_controls(text: str) -> str:
    """Return the text without such characters."""
    return _ANY.sub("", text)


def _written_out(match: re.Match[str]) -> str:
    char = match[0]
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # surrogateescape: a byte that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return _SHORT.get(char) or (
        f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    )


def visible_json(text: str) -> str:
    r"""Return JSON text with such characters as `\uXXXX`; its values don't change."""
    if text.isprintable():
        return text

    def escaped(match: re.Match[str]) -> str:
        return "".join(f"\\u{unit:04x}" for unit in _utf16(match[0]))

    return _ANY_BUT_NEWLINE.sub(escaped, text)


def _utf16(char: str) -> list[int]:
    data = char.encode("utf-16-be", "surrogatepass")
    return [int.from_bytes(data[place : place + 2], "big") for place in range(0, len(data), 2)]


def csv_text(text: T) -> T | str:
    """Return a CSV cell value that no spreadsheet interprets as a formula; numbers are returned unchanged."""
    # Spreadsheets run what begins like this as a formula, and a session's name may come from anyone.
    if isinstance(text, str) and text.startswith(_FORMULA) and not _is_number(text):
        return f"'{text}"
    return text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
