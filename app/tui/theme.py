"""Themes from `themes/*.json`, and the styles of line widgets.

`kvdeck-safe` has colours that stay apart for every common kind of colour vision: blue to orange, never red against
green.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from rich.style import Style
from textual.color import Color
from textual.theme import Theme

import kvdeck.themes
from kvdeck.app.text.names import layout_slug, path_slug
from kvdeck.sessions.host.documents import load_json

FOLDER = Path(kvdeck.themes.__path__[0])
STYLE_SHEET = FOLDER / "kvdeck.tcss"
DEFAULT = "kvdeck-dark"
ANSI = "kvdeck-ansi"
"""The terminal's own palette."""

_VARIABLES = {
    "": "foreground",
    "title": "primary",
    "key": "primary",
    "dim": "deck-dim",
    "rule": "deck-rule",
    "ok": "state-ok",
    "warn": "state-warn",
    "bad": "state-bad",
    "run": "state-run",
    "letter": "deck-letter",
}
_BOLD = ("title", "key", "bad")


def names() -> tuple[str, ...]:
    """Return the names of all themes, sorted."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.json")))


def named(wanted: str) -> str | None:
    """Return the theme of that name, with or without `kvdeck-`; None if there is none."""
    return next((name for name in names() if name in (wanted, f"kvdeck-{wanted}")), None)


def few_colours(environ: Mapping[str, str]) -> bool:
    """True if a terminal has only 16 colours, by the names that Rich recognises."""
    if environ.get("COLORTERM", "").strip().lower() in ("truecolor", "24bit"):
        return False
    return environ.get("TERM", "").rpartition("-")[2] not in ("256color", "kitty")


def chosen(environ: Mapping[str, str] = os.environ) -> str:
    """Return the theme to open with: `KVDECK_THEME`, else dark; NO_COLOR selects the one without own colours."""
    if environ.get("NO_COLOR"):
        return ANSI
    wanted = environ.get("KVDECK_THEME", "")
    return next((name for name in names() if name in (wanted, f"kvdeck-{wanted}")), DEFAULT)


def load(name: str) -> Theme:
    """Read one theme.

    Raises:
        FileNotFoundError: No theme has that name.
    """
    # JSON: the first screen draws without loading the YAML library.
    data: dict[str, Any] = load_json((FOLDER / f"{name}.json").read_bytes())
    return Theme(**data)


def variable(name: str) -> str:
    """Return the theme variable of a style name: `path:HostToDisk`, `layout:FullyContiguous`, `tier:G1` or a word.

    Raises:
        KeyError: The word is unknown.
    """
    kind, _, rest = name.partition(":")
    if kind == "path":
        return f"path-{path_slug(rest)}"
    if kind == "tier":
        return f"tier-{rest.lower()}"
    if kind == "layout":
        return f"layout-{layout_slug(rest)}"
    return _VARIABLES[name]


@lru_cache(maxsize=512)
def _style(colour: str, bold: bool, dim: bool, link: str) -> Style:
    return Style(color=Color.parse(colour).rich_color, bold=bold or None, dim=dim or None, link=link or None)


def style(variables: Mapping[str, str], name: str) -> Style:
    """Return the Rich style of a style name under a theme's variables.

    A leading `!` makes it bold, a trailing `@URI` a link.
    """
    name, _, link = name.partition("@")
    plain = name.removeprefix("!")
    colour = variables[variable(plain)]
    # Of the terminal's own colours none is a shade of its text: its dim attribute is.
    dim = plain in ("dim", "rule") and colour == "ansi_default"
    return _style(colour, plain in _BOLD or name != plain, dim, link)
