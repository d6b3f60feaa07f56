"""Test pattern of a transfer's bytes: depends on position and seed, so that a wrong, late or missing byte shows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint64]

POISON = 0xA5
_STRIDE = 0x9E3779B97F4A7C15  # odd, so every word of a buffer differs from every other
_CHUNK = 1 << 17  # words per step, so that the work fits into the cache
_RAMP: Words = np.arange(_CHUNK, dtype=np.uint64) * np.uint64(_STRIDE)
_MASK = (1 << 64) - 1


def _words(first: int, count: int, seed: int) -> Words:
    """Return pattern words `first … first + count - 1`; `count` is at most `_CHUNK`."""
    start = np.uint64((first + seed * 0xD1B54A32D192ED03) * _STRIDE & _MASK)
    return _RAMP[:count] + start


def fill(buffer: Bytes, seed: int, first_byte: int = 0) -> None:
    """Overwrite `buffer` with the pattern from byte `first_byte` (a multiple of 8) on."""
    whole = buffer.size // 8
    words = buffer[: whole * 8].view(np.uint64)
    for at in range(0, whole, _CHUNK):
        count = min(_CHUNK, whole - at)
        words[at : at + count] = _words(first_byte // 8 + at, count, seed)
    if rest := buffer.size % 8:
        buffer[whole * 8 :] = _words(first_byte // 8 + whole, 1, seed).view(np.uint8)[:rest]


def expected(first_byte: int, size: int, seed: int) -> Bytes:
    """Return the pattern's bytes `first_byte … first_byte + size - 1`."""
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
    """Return the index of the first region whose bytes differ from the source's; None if all are equal.

    Args:
        destination: The bytes that arrived.
        destination_offsets: Expected byte offset of each region of `size` bytes, shape (regions,).
        source_offsets: Byte offset of each region in the source that `fill` wrote with `seed`, shape (regions,).
    """
    for index, (to, origin) in enumerate(zip(destination_offsets.tolist(), source_offsets.tolist(), strict=True)):
        if not np.array_equal(destination[to : to + size], expected(origin, size, seed)):
            return index
    return None
