"""Tokens for sources that want one: from the environment or a file that only its owner reads, sent to one host."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from urllib.parse import urlsplit

from kvdeck.sessions.errors import UsageError

VARIABLE = "KVDECK_MONITOR_TOKENS"
FILE_VARIABLE = "KVDECK_MONITOR_TOKENS_FILE"
"""Path of a file with mode 0600: one `http://host:port=TOKEN` a line."""


def token_for(url: str) -> str:
    """The token for an address, empty where there is none.

    Raises:
        UsageError: The file can be read by others.
    """
    parts = urlsplit(url)
    wanted = f"{parts.scheme}://{parts.netloc}"
    for entry in (*os.environ.get(VARIABLE, "").split(), *_from_file()):
        origin, _, token = entry.partition("=")
        if origin.rstrip("/") == wanted:
            return token
    return ""


def _from_file() -> list[str]:
    name = os.environ.get(FILE_VARIABLE)
    if not name:
        return []
    path = Path(name)
    try:
        mode = path.stat().st_mode
        if stat.S_IMODE(mode) & 0o077:
            raise UsageError(f"{path} can be read by others", f"chmod 600 {path}")
        return path.read_text().split()
    except OSError as error:
        raise UsageError(f"{FILE_VARIABLE} names {path}: {error.strerror}", "make it, or unset the variable") from error
