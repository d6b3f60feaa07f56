"""Pages of a piece of memory, as /proc/self/smaps tells them: what the kernel gave, not what was asked for."""

from __future__ import annotations

import re
import resource
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kvdeck.sessions.units import percent_text, size_text

RESERVED, TRANSPARENT = "reserved huge pages", "transparent huge pages"
_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) ")
_FIELDS = ("Rss", "AnonHugePages", "KernelPageSize")


@dataclass(frozen=True, slots=True)
class PageBytes:
    """Bytes of memory by the kind of their pages."""

    reserved: int = 0
    """On huge pages that the host keeps in reserve (hugetlb)."""
    transparent: int = 0
    """On huge pages that the kernel assembled."""
    plain: int = 0

    def __add__(self, other: PageBytes) -> PageBytes:
        return PageBytes(self.reserved + other.reserved, self.transparent + other.transparent, self.plain + other.plain)


def pages_of(address: int, size: int) -> PageBytes | None:
    """Return the pages of `size` touched bytes of this process from `address` on; None if the kernel doesn't tell.

    A mapping that the kernel joined with a neighbour is counted by the parts of the whole.
    """
    try:
        text = Path("/proc/self/smaps").read_text()
    except OSError:
        return None
    return counted(text, address, size)


def counted(smaps: str, address: int, size: int) -> PageBytes | None:
    """Return the pages of a piece of memory from the text of an smaps file; None if it isn't mapped as a whole."""
    found, seen = PageBytes(), 0
    for start, end, fields in _mappings(smaps):
        part = min(end, address + size) - max(start, address)
        if part <= 0:
            continue
        seen += part
        if fields.get("KernelPageSize", 0) > resource.getpagesize():
            found += PageBytes(reserved=part)
        elif touched := fields.get("Rss", 0):
            huge = round(part * min(1.0, fields.get("AnonHugePages", 0) / touched))
            found += PageBytes(transparent=huge, plain=part - huge)
        else:
            return None
    return found if seen == size else None


def _mappings(smaps: str) -> Iterable[tuple[int, int, dict[str, int]]]:
    """Yield start, end and the fields in bytes of each mapping."""
    place: tuple[int, int] | None = None
    fields: dict[str, int] = {}
    for line in smaps.splitlines():
        if head := _MAPPING.match(line):
            if place is not None:
                yield *place, fields
            place, fields = (int(head[1], 16), int(head[2], 16)), {}
            continue
        name, _, rest = line.partition(":")
        if name in _FIELDS:
            fields[name] = int(rest.split()[0]) * 1024
    if place is not None:
        yield *place, fields


def pages_text(pages: Sequence[PageBytes | None]) -> str | None:
    """Return the kinds of the pages of several pieces together; None without any, or if one isn't known.

    A kind with less than 0.5 % of the bytes isn't said.
    """
    known = [one for one in pages if one is not None]
    if not known or len(known) < len(pages):
        return None
    total = sum(known, PageBytes())
    size = total.reserved + total.transparent + total.plain
    kinds = (
        (total.reserved / size, RESERVED),
        (total.transparent / size, TRANSPARENT),
        (total.plain / size, f"{size_text(resource.getpagesize())} pages"),
    )
    parts = [(part, kind) for part, kind in kinds if part >= 0.005]
    if len(parts) == 1:
        return parts[0][1]
    return " and ".join(f"{percent_text(part)} {kind}" for part, kind in parts)


def all_huge(texts: Sequence[str]) -> bool:
    """True if each of some pieces' texts names huge pages only."""
    return all(text in (RESERVED, TRANSPARENT) for text in texts)
