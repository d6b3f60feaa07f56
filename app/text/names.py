"""How names are written on a screen and in a theme."""

from __future__ import annotations

import re

from kvdeck.sessions.units import short_layout_name

_SLUGS = {"fc": "fully-contiguous", "ls": "layer-separate", "ls-outer": "layer-separate-outer"}


def path_slug(path: str) -> str:
    """`HostToDisk` as `host-to-disk`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", path).lower()


def layout_slug(layout: str) -> str:
    """Name of the layout's colour in a theme."""
    return _SLUGS.get(short_layout_name(layout), "mixed")
