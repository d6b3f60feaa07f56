"""Output of nccl-tests (`all_reduce_perf` and the like), by its heading: older versions have fewer columns.

GB is 1e9 bytes. `busbw` is what the bandwidth of a link bounds (nccl-tests' doc/PERFORMANCE.md).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_HEAD = re.compile(r"^#\s+size\s+count\s+type\b")


@dataclass(frozen=True, slots=True)
class NcclRow:
    """One message size, out of place."""

    message_bytes: int
    time_us: float
    bus_bytes_per_s: float
    wrong: int | None
    """Elements that differ from what they should be; None where they were not checked."""


def seems_nccl(text: str) -> bool:
    """Whether a text looks like output of nccl-tests."""
    return any(_HEAD.match(line) for line in text.splitlines())


def read_nccl(text: str) -> tuple[NcclRow, ...]:
    """Return the rows of an output; rows without the heading's number of columns are left out."""
    columns: list[str] = []
    rows: list[NcclRow] = []
    for line in text.splitlines():
        if _HEAD.match(line):
            columns = line.lstrip("# ").split()
        elif columns and not line.startswith("#") and (row := _row(line.split(), columns)):
            rows.append(row)
    return tuple(rows)


def _row(cells: list[str], columns: list[str]) -> NcclRow | None:
    # A heading names the columns of both halves; the first of each name is out of place.
    if len(cells) != len(columns) or "busbw" not in columns:
        return None
    wrong = next((cells[columns.index(name)] for name in ("#wrong", "error") if name in columns), "N/A")
    try:
        size, time, bus = (float(cells[columns.index(name)]) for name in ("size", "time", "busbw"))
        return NcclRow(int(size), time, bus * 1e9, None if wrong == "N/A" else int(float(wrong)))
    except ValueError:
        return None
