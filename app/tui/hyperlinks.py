"""Terminal hyperlinks (OSC 8) to a session's folder; where unsupported, a key copies the path instead."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from kvdeck.app.config import Config

OLDEST_VTE = 5002
"""Version 0.50.2 in the format of `VTE_VERSION`: older versions print the sequence or crash on it."""


def wanted(config: Config, environ: Mapping[str, str] = os.environ) -> bool:
    """True if links may be sent: the config decides if set, otherwise the terminal must be able to ignore or show them.

    Plain terminals, old VTE, ASCII mode and NO_COLOR get none.
    """
    if config.links is not None:
        return config.links
    name, vte = environ.get("TERM", ""), environ.get("VTE_VERSION", "")
    # These print the sequence as text.
    plain = name in ("", "dumb") or name.startswith(("linux", "vt"))
    old = vte.isdigit() and int(vte) < OLDEST_VTE
    return not (plain or old or config.ascii or environ.get("NO_COLOR"))


def uri(path: Path) -> str:
    """Return `file://host/path`; without the host, a terminal at the other end of SSH would open a local file."""
    return f"file://{quote(platform.node())}{quote(str(path.absolute()))}"


def linked(text: str, target: str) -> str:
    """Return text wrapped in OSC 8 link sequences, for a terminal's stream."""
    return f"\x1b]8;;{target}\x1b\\{text}\x1b]8;;\x1b\\"
