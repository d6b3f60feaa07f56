"""Host memory for transfers: aligned to 2 MiB, touched before use, optionally on huge pages."""

from __future__ import annotations

import ctypes
import mmap
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

HUGE_PAGE = 2 << 20


@dataclass(frozen=True, slots=True)
class HostBuffer:
    """Anonymous memory at a fixed address, until `close` or the end of the process; address and size in bytes."""

    mapping: mmap.mmap
    address: int
    size: int
    huge_pages: bool
    """True if huge pages were requested and the kernel accepted the advice."""

    @property
    def array(self) -> npt.NDArray[np.uint8]:
        """The memory as a writable array, without a copy."""
        return np.frombuffer(self.mapping, np.uint8, self.size, self.address - _address(self.mapping))

    def close(self) -> None:
        """Free the memory.

        Raises:
            BufferError: An array that shares the memory still exists.
        """
        self.mapping.close()


def allocate(size: int, *, huge_pages: bool = False) -> HostBuffer:
    """Allocate `size` bytes aligned to 2 MiB, and touch every page so that no round includes page faults.

    The 2 MiB alignment suits huge pages, and O_DIRECT, since it is a multiple of every block device's sector.
    """
    mapping = mmap.mmap(-1, size + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    advice = mmap.MADV_HUGEPAGE if huge_pages else mmap.MADV_NOHUGEPAGE
    taken = huge_pages
    try:
        mapping.madvise(advice)
    except OSError:  # a kernel without transparent huge pages refuses both kinds of advice
        taken = False
    start = _address(mapping)
    address = -(-start // HUGE_PAGE) * HUGE_PAGE
    ctypes.memset(address, 0, size)
    return HostBuffer(mapping, address, size, taken)


def _address(mapping: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(mapping))
