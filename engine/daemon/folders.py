"""Where the home is; in a module of its own, because the screens ask before anything else is loaded."""

from __future__ import annotations

import os
from pathlib import Path

from kvdeck.sessions.host.user_home import expanded


def home_folder() -> Path:
    """`$KVDECK_HOME`, or the user's data folder; it need not be there yet."""
    chosen = os.environ.get("KVDECK_HOME")
    if chosen:
        return expanded(chosen).absolute()
    import platformdirs

    return Path(platformdirs.user_data_dir("kvdeck", appauthor=False))
