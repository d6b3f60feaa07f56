"""Path of kvdeck's home; a separate module because the user interface needs it before it loads anything else."""

from __future__ import annotations

import os
from pathlib import Path

from kvdeck.sessions.host.user_home import expanded


def home_folder() -> Path:
    """Return `$KVDECK_HOME`, or the user's data folder; it may not exist yet."""
    chosen = os.environ.get("KVDECK_HOME")
    if chosen:
        return expanded(chosen).absolute()
    import platformdirs

    return Path(platformdirs.user_data_dir("kvdeck", appauthor=False))
