"""The bytes that transfers carry: a pattern of position and seed that a wrong, late or missing byte can't match."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint64]

POISON = 0xA5
_STRIDE = 0x9E3779B97F4A7C15  # odd, so every word of a buffer differs from every other
_CHUNK = 1 << 17  # words a step: the work stays in the cache
_RAMP: Words = np.arange(_CHUNK, dtype=np.uint64) * np.uint64(_STRIDE)
_MASK = (1 << 64) - 1


def _words(first: int, count: int, seed: int) -> Words:
    """Pattern words `first … first + count - 1`; `count` is at most a chunk."""
    start = np.uint64((first + seed * 0xD1B54A32D192ED03) * _STRIDE & _MASK)
    return _RAMP[:count] + start


def fill(buffer: Bytes, seed: int, first_byte: int = 0) -> None:
    """Write the pattern over `buffer`, as if it began `first_byte` bytes (a multiple of 8) into its region."""
    whole = buffer.size // 8
    words = buffer[: whole * 8].view(np.uint64)
    for at in range(0, whole, _CHUNK):
        count = min(_CHUNK, whole - at)
        words[at : at + count] = _words(first_byte // 8 + at, count, seed)
    if rest := buffer.size % 8:
        buffer[whole * 8 :] = _words(first_byte // 8 + whole, 1, seed).view(np.uint8)[:rest]


def expected(first_byte: int, size: int, seed: int) -> Bytes:
    """The pattern's bytes `first_byte … first_byte + size - 1`."""
    lead = first_byte % 8
    out = np.empty(-(-(lead + size) // 8) * 8, np.uint8)
    fill(out, seed, first_byte - lead)
    return out[lead : lead + size]


def first_difference(
    destination: Bytes,
    destination_offsets: npt.NDArray[np.uint64],
    source_offsets: npt.NDArray[np.uint64],
    size: int,
    seed: int,
) -> int | None:
    """Index of the first region whose bytes are not the source's, or None when all are.

    Args:
        destination: The bytes that arrived.
        destination_offsets: Where each region of `size` bytes should lie, shape (regions,).
        source_offsets: Where it lay in the source when `fill` wrote it with `seed`, shape (regions,).
    """
    for index, (to, origin) in enumerate(zip(destination_offsets.tolist(), source_offsets.tolist(), strict=True)):
        if not np.array_equal(destination[to : to + size], expected(origin, size, seed)):
            return index
    return None
