"""Secrets from files that only their owner can read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.host.files import open_regular
from kvdeck.sessions.units import size_text

_MOST_BYTES = 64 << 10


def read_private(path: Path, variable: str) -> str:
    """Return the text of a private file without surrounding white space.

    Args:
        variable: Environment variable or option that named the file, for error messages.

    Raises:
        UsageError: It can't be read, belongs to another user, is readable by others, too long, or not ASCII text.
    """
    try:
        with open_regular(path) as file:
            status = os.fstat(file.fileno())
            if status.st_uid != os.getuid():
                raise UsageError(f"{path} belongs to another user", f"copy it, and let {variable} name the copy")
            if stat.S_IMODE(status.st_mode) & 0o077:
                raise UsageError(f"other users can read {path}", f"chmod 600 {path}")
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(
            f"{variable} names {path}: {error.strerror}", "create the file, or unset the variable"
        ) from error
    if len(data) > _MOST_BYTES:
        raise UsageError(f"{path} is longer than {size_text(_MOST_BYTES)}", "write only the secret in it")
    try:
        return data.decode("ascii").strip()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} has bytes that are not ASCII text", "write the secret as plain text") from error
