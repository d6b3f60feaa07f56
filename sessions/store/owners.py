"""Who works on a session that has not ended: `owner.json` in its folder, there from the session's first instant.

The owner is the process that made the session: the engine, or a `kvdeck` that records by itself. A session that is
`queued` or `running` and whose owner is gone has been interrupted, whatever its files say.
"""

from __future__ import annotations

from pathlib import Path

import orjson

from kvdeck.sessions.host.files import read_regular
from kvdeck.sessions.host.processes import ProcessIdentity, own_identity
from kvdeck.sessions.model.records import decode_json, to_json

OWNER_GONE = "the process that worked on it ended without a word: it was killed, or the host went down"
_FILE = "owner.json"
_MAX_BYTES = 64 * 1024


def encode_owner(owner: ProcessIdentity | None = None) -> bytes:
    """The bytes of `owner.json`; by default of this process."""
    return orjson.dumps(to_json(owner or own_identity()), option=orjson.OPT_APPEND_NEWLINE)


def owner_path(folder: Path) -> Path:
    return folder / _FILE


def read_owner(folder: Path) -> ProcessIdentity | None:
    """The process that made the session in that folder; null where none is noted, or it can't be read."""
    try:
        return decode_json(ProcessIdentity, read_regular(owner_path(folder), _MAX_BYTES))
    except (OSError, ValueError):
        return None


def is_abandoned(folder: Path) -> bool:
    """Whether nobody works on the session any longer: its owner is gone, or it never noted one."""
    owner = read_owner(folder)
    return owner is None or owner.gone
