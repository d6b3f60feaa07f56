"""The user's home folder, on hosts that know none: a uid without passwd entry, HOME unset or empty."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from kvdeck.sessions.errors import UsageError


def ensure_home() -> str:
    """Set HOME for this process and its children where there is no home, to a private folder of the temp folder.

    Returns:
        What was done, in a sentence; empty where there is a home, or where KVDECK_HOME says where to keep things.
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
        status = place.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != uid or status.st_mode & 0o077:
            place = Path(tempfile.mkdtemp(prefix=f"kvdeck-home-{uid}-"))
    except OSError:
        place = Path("/")
    os.environ["HOME"] = str(place)
    if os.environ.get("KVDECK_HOME"):
        return ""
    return f"user {uid} has no home folder (no HOME, no passwd entry): {place} is used · fix: set HOME or KVDECK_HOME"


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path with `~` and `~user` replaced.

    Raises:
        UsageError: It begins with a user who is not known here, or holds what no path can.
    """
    text = os.fspath(path)
    try:
        broken = b"\0" in os.fsencode(text)
    except UnicodeEncodeError:
        broken = True
    if broken:
        raise UsageError(f"{text!r} holds a character that no path can", "write the path without it")
    try:
        return Path(text).expanduser()
    except (RuntimeError, ValueError) as error:
        user = text.split("/")[0]
        raise UsageError(f"{text!r}: no home folder is known for {user}", "write the path in full") from error


def _from_passwd() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        return ""
