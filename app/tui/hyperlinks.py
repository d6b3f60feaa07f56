"""Links to a session's folder, as terminals take them (OSC 8); a key copies the path where they take none."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from kvdeck.app.config import Config

OLDEST_VTE = 5002
"""Version 0.50.2 as `VTE_VERSION` has it: older ones print the sequence, or fall over it."""


def wanted(config: Config, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether a terminal may be sent links: neither plain nor known to print what it doesn't know."""
    if config.links is not None:
        return config.links
    name, vte = environ.get("TERM", ""), environ.get("VTE_VERSION", "")
    plain = name in ("", "dumb") or name.startswith(("linux", "vt"))
    old = vte.isdigit() and int(vte) < OLDEST_VTE
    return not (plain or old or config.ascii or environ.get("NO_COLOR"))


def uri(path: Path) -> str:
    """`file://host/path`; with the host, or a terminal at the other end of SSH would open a file of its own."""
    return f"file://{quote(platform.node())}{quote(str(path.absolute()))}"


def linked(text: str, target: str) -> str:
    """A text that is a link, for a terminal's stream."""
    return f"\x1b]8;;{target}\x1b\\{text}\x1b]8;;\x1b\\"
