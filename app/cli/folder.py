"""The folder for test files, as `kvdeck run`, `profile` and `doctor` take it."""

from __future__ import annotations

import os

from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.host.files import is_folder
from kvdeck.sessions.host.user_home import expanded


def checked_folder(folder: str) -> str:
    """Return the folder for test files as an absolute path, since the engine has another working directory.

    Raises:
        UsageError: It is not a folder, or not writable.
    """
    path = expanded(folder).absolute()
    if not is_folder(path):
        raise UsageError(
            f"folder {path} {'is not a folder' if os.path.lexists(path) else 'does not exist'}",
            "create it, or give another --folder",
        )
    if not os.access(path, os.W_OK | os.X_OK):
        raise UsageError(f"can't write in folder {path}", "give a folder you may write to with --folder")
    return str(path)
