"""Bearer tokens of sources, from the environment or a private file; each is sent to one origin only."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from urllib.parse import urlsplit

from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.host.files import open_regular
from kvdeck.sessions.units import size_text

VARIABLE = "KVDECK_MONITOR_TOKENS"
_MOST_BYTES = 64 << 10
_FIX = "write one `http://host:port=TOKEN` per line"
FILE_VARIABLE = "KVDECK_MONITOR_TOKENS_FILE"
"""Variable with the path of a file of mode 0600; one `http://host:port=TOKEN` per line."""


def token_for(url: str) -> str:
    """Return the token for a URL's scheme, host and port; empty if there is none.

    Raises:
        UsageError: The file can't be read, is readable by others, is too long, or isn't printable ASCII text.
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
        with open_regular(path) as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise UsageError(f"other users can read {path}", f"chmod 600 {path}")
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise UsageError(f"{path} is longer than {size_text(_MOST_BYTES)}", _FIX)
        text = data.decode("ascii")
        if not text.replace("\n", "").isprintable():
            raise UsageError(f"{path} has characters that are not allowed in tokens", _FIX)
        return text.split()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} has bytes that are not allowed in tokens", _FIX) from error
    except OSError as error:
        raise UsageError(
            f"{FILE_VARIABLE} names {path}: {error.strerror}", "create the file, or unset the variable"
        ) from error
