"""Themes from `themes/*.yaml`, and the styles that line widgets draw with."""

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
from kvdeck.sessions.host.documents import load_yaml

FOLDER = Path(kvdeck.themes.__path__[0])
STYLE_SHEET = FOLDER / "kvdeck.tcss"
DEFAULT = "kvdeck-dark"
ANSI = "kvdeck-ansi"

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
    """Every theme there is, by name."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


def named(wanted: str) -> str | None:
    """The theme of that name, with or without `kvdeck-`; None where there is none."""
    return next((name for name in names() if name in (wanted, f"kvdeck-{wanted}")), None)


def few_colours(environ: Mapping[str, str]) -> bool:
    """Whether a terminal has no more than its own sixteen, by the names that Rich goes by."""
    if environ.get("COLORTERM", "").strip().lower() in ("truecolor", "24bit"):
        return False
    return environ.get("TERM", "").rpartition("-")[2] not in ("256color", "kitty")


def chosen(environ: Mapping[str, str] = os.environ) -> str:
    """The theme to open with: `KVDECK_THEME`, else dark; `NO_COLOR` wants the one without colours of its own."""
    if environ.get("NO_COLOR"):
        return ANSI
    wanted = environ.get("KVDECK_THEME", "")
    return next((name for name in names() if name in (wanted, f"kvdeck-{wanted}")), DEFAULT)


def load(name: str) -> Theme:
    """Read one theme.

    Raises:
        FileNotFoundError: No theme has that name.
    """
    data: dict[str, Any] = load_yaml((FOLDER / f"{name}.yaml").read_bytes())
    return Theme(**data)


def variable(name: str) -> str:
    """The theme variable behind a style's name: `path:HostToDisk`, `layout:FullyContiguous`, `tier:G1` or a word."""
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
    """The style a span's name means under a theme's variables; `!` in front makes it bold, `@URI` behind a link."""
    name, _, link = name.partition("@")
    plain = name.removeprefix("!")
    colour = variables[variable(plain)]
    dim = plain in ("dim", "rule") and colour == "ansi_default"
    return _style(colour, plain in _BOLD or name != plain, dim, link)
