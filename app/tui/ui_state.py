"""UI state saved in `deck.json` beside the sessions: view, order, hidden panes."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from kvdeck.engine.daemon.folders import home_folder
from kvdeck.sessions.host.documents import load_json
from kvdeck.sessions.host.files import read_regular

FILE = "deck.json"


def recall() -> dict[str, Any]:
    """Return the saved state; {} if the file is missing or unreadable (best effort)."""
    try:
        found = load_json(read_regular(home_folder() / FILE))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def keep(facts: dict[str, Any]) -> None:
    """Replace the file atomically; write errors are ignored (best effort)."""
    from kvdeck.sessions.host.files import replace_file

    home = home_folder()
    with contextlib.suppress(OSError):
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(home / FILE, json.dumps(facts, indent=1).encode() + b"\n", durable=True)
