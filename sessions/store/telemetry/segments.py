"""The files of a recording's moments: `moments/NUMBER-BEGIN-EVERY.jsonl`, or packed with `.gz` once it is full.

BEGIN is the first moment's Unix time in ms. EVERY says that one moment in so many is kept. A name tells all that
a reader needs to find its place. Each segment begins with a whole moment.
"""

from __future__ import annotations

import gzip
import os
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

from kvdeck.sessions.errors import SessionError
from kvdeck.sessions.host.files import open_regular

MOST_BYTES, MOST_LINES = 32 << 20, 4096
"""Of one segment, unpacked: ours have about one MiB and 256 lines; what is beyond is not ours, and not read."""
_NAME = re.compile(r"(\d{6,9})-(\d{10,16})-(\d{1,9})\.jsonl(\.gz)?")


@dataclass(frozen=True, slots=True)
class Segment:
    """One file of moments."""

    number: int
    begin: float
    """Unix time of its first moment, in whole milliseconds below."""
    every: int
    """One moment in so many was kept."""
    packed: bool
    path: Path
    size: int


def segment_name(number: int, begin: float, every: int, packed: bool) -> str:
    return f"{number:06d}-{int(begin * 1000):013d}-{every}.jsonl" + (".gz" if packed else "")


def segments(folder: Path) -> list[Segment]:
    """The segments there are, in order. Of one number the thinnest holds: it was made from the others.

    Raises:
        SessionError: The folder is there and can't be read.
    """
    best: dict[int, Segment] = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                match = _NAME.fullmatch(entry.name)
                if match is None:
                    continue
                try:
                    size = entry.stat().st_size
                except FileNotFoundError:  # packed or thinned just now
                    continue
                number, begin, every = (int(text) for text in match.groups()[:3])
                found = Segment(number, begin / 1000, every, match[4] is not None, Path(entry.path), size)
                known = best.get(number)
                if known is None or (found.every, found.packed) > (known.every, known.packed):
                    best[number] = found
    except FileNotFoundError:
        return []
    except OSError as error:
        raise SessionError(f"can't read {folder}: {error.strerror}", "check its owner and mode") from error
    return [best[number] for number in sorted(best)]


def lines_of(segment: Segment) -> list[bytes]:
    """Its whole lines; a torn last one is left out. What can't be unpacked ends where the damage is.

    Raises:
        FileNotFoundError: It was packed or thinned meanwhile: list the segments again.
        SessionError: It can't be read.
    """
    try:
        with open_regular(segment.path) as file:
            data = file.read(MOST_BYTES)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise SessionError(f"can't read {segment.path}: {error.strerror}", "check its owner and mode") from error
    if segment.packed:
        unpacker = zlib.decompressobj(wbits=31)
        try:
            data = unpacker.decompress(data, MOST_BYTES)
        except zlib.error:
            data = b""
    return data.split(b"\n", MOST_LINES)[:-1]


def replace_private(path: Path, data: bytes) -> None:
    """Replace a file whole, for its owner only; raises OSError where that can't be, and the old one stays."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(data)
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def pack(lines: list[bytes]) -> bytes:
    """Lines, without their newlines, as a packed segment."""
    return gzip.compress(b"".join(line + b"\n" for line in lines), compresslevel=3, mtime=0)
