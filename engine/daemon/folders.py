"""Path of kvdeck's home; a separate module because the user interface needs it before it loads anything else."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.host.user_home import expanded


def home_folder() -> Path:
    """Return `$KVDECK_HOME`, or the user's data folder; it may not exist yet.

    Raises:
        UsageError: There is something else in its place, such as a file.
    """
    chosen = os.environ.get("KVDECK_HOME")
    if chosen:
        home = expanded(chosen).absolute()
    else:
        import platformdirs

        home = Path(platformdirs.user_data_dir("kvdeck", appauthor=False))
    try:
        is_folder = stat.S_ISDIR(home.stat().st_mode)
    except NotADirectoryError:
        is_folder = False
    except OSError:  # missing or unreadable: its users report that
        return home
    if not is_folder:
        raise UsageError(f"{home} is not a folder", "set KVDECK_HOME to a folder you own")
    return home
