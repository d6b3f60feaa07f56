"""Spellings of path and layout names for themes and the screen."""

from __future__ import annotations

import re

from kvdeck.sessions.units import short_layout_name

_SLUGS = {"fc": "fully-contiguous", "ls": "layer-separate", "ls-outer": "layer-separate-outer"}


def path_slug(path: str) -> str:
    """Return a path's name in kebab case: `HostToDisk` as `host-to-disk`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", path).lower()


def layout_slug(layout: str) -> str:
    """Return the name of a layout's colour in a theme; `mixed` for a pair or an unknown layout."""
    return _SLUGS.get(short_layout_name(layout), "mixed")
