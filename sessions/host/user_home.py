"""The user's home folder, including on hosts without one: no passwd entry, HOME unset or empty."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from kvdeck.sessions.errors import UsageError


def ensure_home() -> str:
    """Set HOME for this process and its children; without a home, use a private folder in the temp folder.

    Returns:
        A message about the fallback; empty if there is a home or KVDECK_HOME is set.
    """
    if os.environ.get("HOME"):
        return ""
    home = _from_passwd()
    if home:
        os.environ["HOME"] = home
        return ""
    uid = os.geteuid()
    place = Path(tempfile.gettempdir()) / f"kvdeck-home-{uid}"
    try:
        place.mkdir(mode=0o700, exist_ok=True)
        # Anyone may have made a folder of that name in the temp folder before.
        status = place.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != uid or status.st_mode & 0o077:
            place = Path(tempfile.mkdtemp(prefix=f"kvdeck-home-{uid}-"))
    except OSError:
        place = Path("/")
    os.environ["HOME"] = str(place)
    if os.environ.get("KVDECK_HOME"):
        return ""
    return f"user {uid} has no home folder (no HOME, no passwd entry): using {place} · fix: set HOME or KVDECK_HOME"


def expanded(path: str | os.PathLike[str]) -> Path:
    """Return the path with `~` and `~user` expanded.

    Raises:
        UsageError: The user is unknown, or the path has an invalid character.
    """
    text = os.fspath(path)
    try:
        broken = b"\0" in os.fsencode(text)
    except UnicodeEncodeError:
        broken = True
    if broken:
        raise UsageError(f"{text!r} has a character that is not allowed in paths", "write the path without it")
    try:
        return Path(text).expanduser()
    except (RuntimeError, ValueError) as error:
        user = text.split("/")[0]
        raise UsageError(f"{text!r}: {user} has no home folder", "write the path in full") from error


def _from_passwd() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        return ""
