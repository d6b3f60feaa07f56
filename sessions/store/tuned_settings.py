"""Settings that `kvdeck run --tune` found fastest, kept in the home by host and path, with their provenance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from kvdeck.sessions.errors import KvdeckError
from kvdeck.sessions.host.files import read_regular, replace_file
from kvdeck.sessions.model.encoding import RecordError, decode, encode_document
from kvdeck.sessions.model.records import Interval
from kvdeck.sessions.store.locks import alone_in

FILE = "tuned.json"


class TunedSettings(Struct, frozen=True):
    """The fastest settings of one path on one host."""

    host: str
    """Host name; a home may be shared by several hosts."""
    path: str
    settings: dict[str, Any]
    """Fields of a run that differ from its defaults; empty if nothing was faster."""
    session: str
    """Session of the run that found them."""
    wall: float
    """When they were found, as Unix time in seconds."""
    nixl: str | None = None
    block_bytes: int | None = None
    batch: int | None = None
    """Block size and batch that were raced."""
    ratio: Interval | None = None
    """Time of all settings together over that of the defaults, in heats of their own; null if nothing was faster."""
    peer: str = ""
    """The peer that the path goes to; empty within the host."""


class TunedFile(Struct, frozen=True):
    """`tuned.json`."""

    tuned: tuple[TunedSettings, ...] = ()
    v: int = 1


def load_tuned(home: Path) -> tuple[TunedSettings, ...]:
    """Return what is kept, by host and path; nothing without the file.

    Raises:
        KvdeckError: The file can't be read.
    """
    path = home / FILE
    try:
        return decode(TunedFile, read_regular(path)).tuned
    except FileNotFoundError:
        return ()
    except (OSError, RecordError) as error:
        raise KvdeckError(
            f"can't read the kept settings in {path}: {error}", "remove the file and tune again"
        ) from error


def tuned_for(home: Path, host: str, peer: str = "") -> dict[str, TunedSettings]:
    """Return what is kept for a host and its peer, by path.

    Raises:
        KvdeckError: The file can't be read.
    """
    return {kept.path: kept for kept in load_tuned(home) if (kept.host, kept.peer) == (host, peer)}


def keep_tuned(home: Path, found: Sequence[TunedSettings]) -> None:
    """Keep settings in place of earlier ones of the same host, path and peer.

    Raises:
        KvdeckError: The file can't be read.
        OSError: It can't be written.
    """
    with alone_in(home):
        fresh = {(kept.host, kept.path, kept.peer): kept for kept in (*load_tuned(home), *found)}
        replace_file(home / FILE, encode_document(TunedFile(tuple(fresh[key] for key in sorted(fresh)))))


def forget_tuned(home: Path, host: str, paths: Sequence[str] = ()) -> tuple[TunedSettings, ...]:
    """Remove what is kept for a host, of the given paths or all; return what was removed.

    Raises:
        KvdeckError: The file can't be read.
        OSError: It can't be written.
    """
    with alone_in(home):
        kept = load_tuned(home)
        gone = tuple(item for item in kept if item.host == host and (not paths or item.path in paths))
        if gone:
            replace_file(home / FILE, encode_document(TunedFile(tuple(item for item in kept if item not in gone))))
    return gone
