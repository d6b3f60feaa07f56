"""A traffic matrix: the bytes that each rank sends to each other one, and its text form."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from kvdeck.engine.quantities import MOST
from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.host.files import read_text
from kvdeck.sessions.units import many

MOST_BYTES = 64 << 20
"""Largest matrix file that is read: 4,096 ranks with sixteen characters a cell are 268 MB, 1,024 are 17 MB."""
MOST_RANKS = 4096
_UNITS = {"": 1, "b": 1, **{unit: 1 << 10 * (power + 1) for power, unit in enumerate("kmgt")}}
_CELL = re.compile(
    r"(?P<number>\d[\d_]*\.?\d*(?:e[+-]?\d{1,3})?|\.\d+(?:e[+-]?\d{1,3})?)(?P<unit>[bkmgt]?)(?:i?b)?", re.I | re.ASCII
)
_SHOWN = 24
"""Characters of a wrong cell that a message quotes."""


@dataclass(frozen=True)
class Matrix:
    """Bytes from each rank (row) to each rank (column)."""

    rows: tuple[tuple[int, ...], ...]

    @property
    def ranks(self) -> int:
        return len(self.rows)

    @cached_property
    def sent(self) -> tuple[int, ...]:
        """Bytes that each rank sends."""
        return tuple(map(sum, self.rows))

    @cached_property
    def received(self) -> tuple[int, ...]:
        """Bytes that each rank receives."""
        return tuple(map(sum, zip(*self.rows, strict=True)))

    @property
    def total(self) -> int:
        return sum(self.sent)

    @property
    def senders(self) -> tuple[int, ...]:
        """Ranks that send something."""
        return tuple(rank for rank, size in enumerate(self.sent) if size)

    @property
    def receivers(self) -> tuple[int, ...]:
        """Ranks that receive something."""
        return tuple(rank for rank, size in enumerate(self.received) if size)

    def offset(self, source: int, destination: int) -> int:
        """Return where the bytes from `source` begin in what `destination` receives: in the order of the senders."""
        return sum(row[destination] for row in self.rows[:source])


def read_matrix(path: Path) -> Matrix:
    """Read a matrix file.

    Raises:
        UsageError: It can't be read, or isn't a matrix; the message names file, line and column.
    """
    try:
        text = read_text(path, MOST_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        words = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(f"can't read the matrix {path}: {words}", "give the path of a text file") from error
    return parse_matrix(text, str(path))


def parse_matrix(text: str, source: str) -> Matrix:
    """Return the matrix of a text: a row a line, cells in bytes or with B K M G T (1024-based) apart by whitespace.

    Text after `#` and blank lines are ignored.

    Args:
        text: The matrix.
        source: Its name in messages, followed by line and column.

    Raises:
        UsageError: A cell is no size, or the matrix isn't square.
    """
    rows: list[tuple[int, ...]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        cells = list(re.finditer(r"\S+", line.partition("#")[0]))
        if not cells:
            continue
        rows.append(tuple(_bytes(cell.group(), f"{source}:{number}:{cell.start() + 1}") for cell in cells))
        if len(cells) != len(rows[0]):
            raise UsageError(
                f"{source}:{number}:1: the row has {many(len(cells), 'cell')}, the first one {len(rows[0])}",
                "give each row a cell for every rank",
            )
    return square(tuple(rows), source)


def square(rows: tuple[tuple[int, ...], ...], source: str) -> Matrix:
    """Return the matrix of rows of equal length.

    Raises:
        UsageError: There are not as many rows as columns, none, or more than `MOST_RANKS`.
    """
    if not rows or len(rows) != len(rows[0]):
        columns = len(rows[0]) if rows else 0
        raise UsageError(
            f"{source}: {many(len(rows), 'row')} of {many(columns, 'cell')} are no square",
            "give one row and one column for every rank",
        )
    if len(rows) > MOST_RANKS:
        raise UsageError(f"{source}: {many(len(rows), 'rank')} are more than {MOST_RANKS}", "give a smaller matrix")
    if sum(map(sum, rows)) > MOST:
        raise UsageError(f"{source}: the bytes of all cells don't fit in 64 bits", "give smaller cells")
    return Matrix(rows)


def _bytes(cell: str, place: str) -> int:
    """Return the whole bytes of a cell; decimals are cut, as upstream cuts them."""
    found = _CELL.fullmatch(cell)
    if found is None:
        shown = cell if len(cell) <= _SHOWN else f"{cell[:_SHOWN]}…"
        raise UsageError(f"{place}: {shown!r} is no size", "write bytes, or 64K, 1.5M, 2G, 1T; 0 sends nothing")
    number = found["number"].replace("_", "")
    unit = _UNITS[found["unit"].lower()]
    size = int(number) * unit if number.isdigit() and len(number) <= 19 else int(min(float(number) * unit, 2.0**64))
    if size > MOST:
        raise UsageError(f"{place}: the size does not fit in 64 bits", f"give at most {MOST}")
    return size


def matrix_text(matrix: Matrix) -> str:
    """Return the matrix as a text of exact bytes, which `parse_matrix` reads back."""
    return "".join(" ".join(map(str, row)) + "\n" for row in matrix.rows)
