"""Reader of NIXL's telemetry rings, one file per agent in `NIXL_TELEMETRY_DIR`; doesn't drain them."""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path
from typing import NamedTuple

from kvdeck.engine.telemetry.source import Reading, Series, SourceGone
from kvdeck.engine.telemetry.sources.local_source import LocalSource, now_ns

_HEADER = struct.Struct("<QQiiQQ")
_EVENT = struct.Struct("<I4xQ")
VERSION = 4
"""Supported version of the ring format."""
MAX_CAPACITY = 1 << 22
"""Maximum plausible capacity in events; a file with more isn't a ring."""

_COUNTED = {
    0: "ring_tx_bytes",
    1: "ring_rx_bytes",
    2: "ring_tx_requests",
    3: "ring_rx_requests",
    4: "ring_memory_registered",
    5: "ring_memory_deregistered",
    6: "ring_xfer_time",
    7: "ring_xfer_post_time",
    20: "ring_events_dropped",
}
"""Event kind → counter."""
_ERRORS = (
    "not_posted",
    "invalid_param",
    "backend",
    "not_found",
    "mismatch",
    "not_allowed",
    "repost_active",
    "unknown",
    "not_supported",
    "remote_disconnect",
    "canceled",
    "no_telemetry",
)
"""Status names of the error events, whose kinds start at 8."""


class _Header(NamedTuple):
    write: int
    read: int
    version: int
    expected: int
    capacity: int
    mask: int


class Ring:
    """Sums of the events in one agent's ring.

    The first reading counts the events already in the ring; without another reader that is all since the agent's
    start. Later readings count the events between the old and the new write position; if another reader drains the
    ring and it wraps around completely in between, one lap of events is lost.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._labels = (("agent_name", path.name),)
        self._position: int | None = None
        self._inode = 0
        self._sums: dict[Series, float] = {}
        self._drained = False

    def look(self) -> Reading:
        """Add the events since the last reading; return the sums.

        Raises:
            OSError: The file can't be read.
            SourceGone: The file isn't a telemetry ring of the supported version.
        """
        descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO must not block
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise SourceGone(f"{self._path.name} is not a regular file")
            inode = status.st_ino
            if inode != self._inode:
                self._inode, self._position, self._sums = inode, None, {}
            header = self._header(os.pread(descriptor, _HEADER.size, 0))
            self._take(descriptor, header)
        finally:
            os.close(descriptor)
        return Reading(now_ns(), dict(self._sums), missing=self._missing(header))

    def _header(self, raw: bytes) -> _Header:
        if len(raw) < _HEADER.size:
            raise SourceGone(f"{self._path.name} is too short for a telemetry ring")
        header = _Header(*_HEADER.unpack(raw))
        if header.version != VERSION:
            raise SourceGone(
                f"{self._path.name} is not a telemetry ring of version {VERSION}: its version is {header.version}"
            )
        if not 0 < header.capacity <= MAX_CAPACITY or header.mask != header.capacity - 1:
            raise SourceGone(f"{self._path.name} has an impossible capacity of {header.capacity}")
        return header

    def _take(self, descriptor: int, header: _Header) -> None:
        write = header.write & header.mask
        start = header.read & header.mask if self._position is None else self._position
        if header.read & header.mask and self._position is not None:
            self._drained = True
        count = (write - start) & header.mask
        if self._position is None:
            self._drained = bool(header.read)
            if not self._drained:  # counted from the start, so absent events mean 0
                self._sums = {Series(_COUNTED[kind], self._labels): 0.0 for kind in (0, 1, 2, 3)}
        for position, length in ((start, min(count, header.capacity - start)), (0, count - (header.capacity - start))):
            if length > 0:
                raw = os.pread(descriptor, length * _EVENT.size, _HEADER.size + position * _EVENT.size)
                self._count(raw[: len(raw) // _EVENT.size * _EVENT.size])
        self._position = write

    def _count(self, raw: bytes) -> None:
        for kind, value in _EVENT.iter_unpack(raw):
            name = _COUNTED.get(kind)
            if name is not None:
                series = Series(name, self._labels)
                self._sums[series] = self._sums.get(series, 0.0) + value
            elif 8 <= kind < 8 + len(_ERRORS):
                series = Series("ring_errors", (*self._labels, ("status", _ERRORS[kind - 8])))
                self._sums[series] = self._sums.get(series, 0.0) + 1

    def _missing(self, header: _Header) -> str:
        if (header.write - header.read) & header.mask == header.mask:
            return "full: no longer live, NIXL drops every later event (no process drains this ring)"
        if self._drained:
            return "another process drains this ring: earlier events, or a whole lap between two reads, are not counted"
        return ""


def ring_source(path: Path) -> LocalSource:
    """Return a source for one agent's telemetry ring."""
    return LocalSource(f"ring {path}", "ring", Ring(path).look, least_period_s=0.1)


def is_ring(path: Path) -> bool:
    """True if a file starts with a plausible ring header of any version; False if it can't be read."""
    try:
        with path.open("rb") as file:
            raw = file.read(_HEADER.size)
    except OSError:
        return False
    if len(raw) < _HEADER.size:
        return False
    header = _Header(*_HEADER.unpack(raw))
    return 0 < header.version < 100 and 0 < header.capacity <= MAX_CAPACITY and header.mask == header.capacity - 1


def rings_in(folder: Path) -> list[Path]:
    """Return the telemetry rings in a folder, sorted; empty if it can't be read."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_file() and is_ring(path))
    except OSError:
        return []
