"""Host memory for transfers: page-aligned, touched before use, on huge pages when asked."""

from __future__ import annotations

import ctypes
import mmap
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

HUGE_PAGE = 2 << 20


@dataclass(frozen=True, slots=True)
class HostBuffer:
    """Anonymous memory that stays where it is until the process ends or `close` is called."""

    mapping: mmap.mmap
    address: int
    size: int
    huge_pages: bool
    """Whether huge pages were asked for and the kernel took the advice."""

    @property
    def array(self) -> npt.NDArray[np.uint8]:
        """The bytes as a writable array that shares the memory."""
        return np.frombuffer(self.mapping, np.uint8, self.size, self.address - _address(self.mapping))

    def close(self) -> None:
        """Give the memory back; no array over it may be left.

        Raises:
            BufferError: An array over it is still alive.
        """
        self.mapping.close()


def allocate(size: int, *, huge_pages: bool = False) -> HostBuffer:
    """Allocate `size` bytes aligned to 2 MiB, every page touched so that no round pays for a page fault.

    2 MiB alignment makes the memory fit for huge pages and, being a multiple of every block device's sector,
    for O_DIRECT.
    """
    mapping = mmap.mmap(-1, size + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    advice = mmap.MADV_HUGEPAGE if huge_pages else mmap.MADV_NOHUGEPAGE
    taken = huge_pages
    try:
        mapping.madvise(advice)
    except OSError:  # a kernel without transparent huge pages refuses either advice
        taken = False
    start = _address(mapping)
    address = -(-start // HUGE_PAGE) * HUGE_PAGE
    ctypes.memset(address, 0, size)
    return HostBuffer(mapping, address, size, taken)


def _address(mapping: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(mapping))
