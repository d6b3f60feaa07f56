"""Segment files of a telemetry session's samples: `moments/NUMBER-BEGIN-EVERY.jsonl`, with `.gz` once full and packed.

BEGIN is the first sample's Unix time in ms. EVERY is N if one in N samples remains. Names hold all that a reader needs
to seek. Each segment starts with a full sample.
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
"""Limits of one unpacked segment: kvdeck's have about one MiB and 256 lines; data beyond is foreign and not read."""
PIECE = 512
"""Bytes of a packed segment that are unpacked at a time."""
_NAME = re.compile(r"(\d{6,9})-(\d{10,16})-(\d{1,9})\.jsonl(\.gz)?")


@dataclass(frozen=True, slots=True)
class Segment:
    """One file of samples."""

    number: int
    begin: float
    """Unix time of its first sample in seconds, rounded down to ms."""
    every: int
    """One in this many samples remains."""
    packed: bool
    path: Path
    size: int


def segment_name(number: int, begin: float, every: int, packed: bool) -> str:
    return f"{number:06d}-{int(begin * 1000):013d}-{every}.jsonl" + (".gz" if packed else "")


def segments(folder: Path) -> list[Segment]:
    """Return the existing segments in order. Of several with one number, the most thinned is used: it replaces the
    others.

    Raises:
        SessionError: The folder exists but can't be read.
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
                # A writer that was killed leaves the file it was replacing beside the new one.
                if known is None or (found.every, found.packed) > (known.every, known.packed):
                    best[number] = found
    except FileNotFoundError:
        return []
    except OSError as error:
        raise SessionError(f"can't read {folder}: {error.strerror}", "check its owner and mode") from error
    return [best[number] for number in sorted(best)]


def lines_of(segment: Segment) -> list[bytes]:
    """Return a segment's complete lines, without a torn last one.

    A truncated or corrupt packed file gives the lines before the damage, and one last line that is no sample, so that
    the damage is counted.

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
        data = _unpacked(data)
    return data.split(b"\n", MOST_LINES)[:-1]


def _unpacked(packed: bytes) -> bytes:
    """Return the content of a packed segment, at most `MOST_BYTES`; what is damaged is replaced by an empty line."""
    unpacker, data = zlib.decompressobj(wbits=31), bytearray()
    try:
        # In pieces: an error gives nothing of the piece in which it occurs.
        for start in range(0, len(packed), PIECE):
            data += unpacker.decompress(packed[start : start + PIECE], MOST_BYTES - len(data))
            if unpacker.eof or len(data) >= MOST_BYTES:
                break
    except zlib.error:
        pass
    return bytes(data) if unpacker.eof else bytes(data[: data.rfind(b"\n") + 1]) + b"\n"


def pack(lines: list[bytes]) -> bytes:
    """Return lines (without newlines) as a packed segment."""
    # No time in the header: the same lines give the same bytes.
    return gzip.compress(b"".join(line + b"\n" for line in lines), compresslevel=3, mtime=0)
