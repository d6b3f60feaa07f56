"""Owner of a session that has not ended: `owner.json` in its folder, written before the session becomes visible.

The owner is the process that created the session: the engine, or a standalone recording `kvdeck`. A session that is
`queued` or `running` and whose owner is gone counts as interrupted, regardless of its files.
"""

from __future__ import annotations

from pathlib import Path

from kvdeck.sessions.host.files import read_regular
from kvdeck.sessions.host.processes import ProcessIdentity, own_identity
from kvdeck.sessions.model.encoding import decode, encode_line

ENGINE_ENDED = "the engine ended"
"""The reason a worker writes when it ends because its engine is gone; recovery replaces it."""
OWNER_GONE = "its process exited without reporting a result: it was killed, or the host went down"
_FILE = "owner.json"
_MAX_BYTES = 64 * 1024


def encode_owner(owner: ProcessIdentity | None = None) -> bytes:
    """Return the bytes of `owner.json`; by default for this process."""
    return encode_line(owner or own_identity())


def owner_path(folder: Path) -> Path:
    return folder / _FILE


def read_owner(folder: Path) -> ProcessIdentity | None:
    """Return the process that created the session in that folder; None if not recorded or unreadable."""
    try:
        return decode(ProcessIdentity, read_regular(owner_path(folder), _MAX_BYTES))
    except (OSError, ValueError):
        return None


def is_abandoned(folder: Path) -> bool:
    """True if the session's owner is gone, or no owner is recorded."""
    owner = read_owner(folder)
    return owner is None or owner.gone
