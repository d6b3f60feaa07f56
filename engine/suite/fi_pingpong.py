"""Output of libfabric's `fi_pingpong`: one row a message size.

Its MB is 1e6 bytes, and its MB/s counts both directions; `usec/xfer` is the time of one message in one direction.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_HEAD = re.compile(r"^bytes\s+#sent\s+#ack\s+total\s+time\s+MB/sec\s+usec/xfer\s+Mxfers/sec\s*$")
_ROW = re.compile(
    r"^(?P<size>[\d.]+[kmgKMG]?)\s+(?P<sent>[\d.]+[kmg]?)\s+=?(?P<ack>[\d.]+[kmg]?)\s+\S+\s+[\d.]+s\s+"
    r"[\d.]+\s+(?P<us>[\d.]+)\s+[\d.]+\s*$"
)
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


@dataclass(frozen=True, slots=True)
class PingpongRow:
    """One message size."""

    message_bytes: int
    messages: int
    """Messages sent in each direction."""
    one_way_us: float

    @property
    def bytes_per_s(self) -> float | None:
        """Bytes of one direction over the time of one message; None for messages without bytes."""
        return self.message_bytes / self.one_way_us * 1e6 if self.message_bytes and self.one_way_us else None


def seems_pingpong(text: str) -> bool:
    """Whether a text looks like output of fi_pingpong."""
    return any(_HEAD.match(line) for line in text.splitlines())


def read_pingpong(text: str) -> tuple[PingpongRow, ...]:
    """Return the rows of an output, in its order; a cut last row is left out."""
    return tuple(
        PingpongRow(_number(row["size"]), _number(row["sent"]), float(row["us"]))
        for row in map(_ROW.match, text.splitlines())
        if row is not None and row["sent"] == row["ack"]
    )


def _number(text: str) -> int:
    digits, unit = (text[:-1], text[-1].lower()) if text[-1].isalpha() else (text, "")
    return round(float(digits) * _UNITS[unit])
