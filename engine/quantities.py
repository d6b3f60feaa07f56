"""Sizes, counts and ranges of them as text, and the largest numbers that a run accepts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kvdeck.sessions.errors import UsageError

MOST = (1 << 63) - 1
"""Largest count or size: it must fit in JSON's, NIXL's and NumPy's 64-bit integers."""
MOST_SECONDS = 10_000_000
"""Longest time, 115 days; timers of the operating system overflow far above it."""


@dataclass(frozen=True, slots=True)
class Range:
    """A geometric sweep: `start`, `start × factor`, … up to and including `stop`."""

    start: int
    stop: int
    factor: int = 2

    def values(self) -> tuple[int, ...]:
        """Return all values of the sweep in ascending order."""
        out, value = [], self.start
        while value <= self.stop:
            out.append(value)
            value *= self.factor
        return tuple(out)


def parse_count(text: str) -> int:
    """Return a whole number from 1 to `MOST`; commas and underscores between digits are ignored.

    Raises:
        UsageError: The text is not such a number.
    """
    digits = text.strip().replace(",", "").replace("_", "")
    if not _is_whole(digits):
        raise UsageError(f"{text!r} is not a whole number above 0", "write it in digits")
    if (number := _whole(digits)) > MOST:
        raise UsageError(f"{text!r} does not fit in 64 bits", f"give at most {MOST}")
    return number


def _is_whole(digits: str) -> bool:
    return digits.isascii() and digits.isdigit() and bool(digits.strip("0"))


def _whole(digits: str) -> int:
    """Return the number, or one above `MOST` for more digits than that has: Python refuses to convert thousands."""
    return int(digits) if len(digits.lstrip("0")) <= len(str(MOST)) else MOST + 1


def parse_size(text: str) -> int:
    """Return the bytes of a size: `4096`, `64K`, `2M`, `1G`, with an optional `iB` or `B` (all 1024-based).

    Raises:
        UsageError: The text is not a size, not above 0, or above `MOST`.
    """
    squeezed = text.strip().lower().removesuffix("b").removesuffix("i")
    shift = {"k": 10, "m": 20, "g": 30}.get(squeezed[-1:], 0)
    digits = squeezed[:-1] if shift else squeezed
    if _is_whole(digits):
        size = _whole(digits) << shift
        if size <= MOST:
            return size
        raise UsageError(f"size {text!r} does not fit in 64 bits", "give at most 8589934591G")
    raise UsageError(f"size {text!r} is not a whole number above 0", "write bytes, or 64K, 2M, 1G")


def parse_range(text: str) -> Range:
    """Return the range of `FROM:TO`, `FROM:TO:FACTOR` or one value; numbers may end in K, M or G (1024-based).

    Raises:
        UsageError: The text is not such a range.
    """
    parts = text.split(":")
    if not 1 <= len(parts) <= 3:
        raise UsageError(f"range {text!r} has too many parts", "write FROM:TO or FROM:TO:FACTOR")
    numbers = dict(zip(("start", "stop", "factor"), map(parse_size, parts), strict=False))
    return checked_range("range", {"stop": numbers["start"], **numbers}, text)


def checked_range(name: str, value: Any, source: str) -> Range:
    """Return the range of a mapping `{start, stop, factor}` or a text for `parse_range`.

    Raises:
        UsageError: It is neither, or one of its numbers is out of range.
    """
    if isinstance(value, Range):
        return value
    if isinstance(value, str):
        return parse_range(value)
    if not isinstance(value, dict) or not {"start", "stop"} <= set(value) <= {"start", "stop", "factor"}:
        raise UsageError(f"{name} in {source} is {value!r}", "write {start: 4096, stop: 1048576, factor: 2}")
    numbers = {key: value.get(key, 2) for key in ("start", "stop", "factor")}
    for key, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < (2 if key == "factor" else 1):
            raise UsageError(
                f"{key} of {name} in {source} is {number!r}", "give a whole number above 0 (a factor above 1)"
            )
        if number > MOST:
            raise UsageError(f"{key} of {name} in {source} does not fit in 64 bits", f"give at most {MOST}")
    if numbers["stop"] < numbers["start"]:
        raise UsageError(f"{name} in {source} stops below its start", "give a stop that is at least the start")
    return Range(**numbers)
