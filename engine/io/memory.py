"""Host memory for transfers: aligned to 2 MiB, touched before use, on huge pages where the host gives them."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kvdeck.engine.io.pages import PageBytes, pages_of

HUGE_PAGE = 2 << 20
_MAP_HUGETLB = 0x40000 | 21 << 26  # of 2 MiB; Python's mmap names neither
_MADV_POPULATE_WRITE = 23


@dataclass(frozen=True, slots=True)
class HostBuffer:
    """Anonymous memory at a fixed address, until `close` or the end of the process; address and size in bytes."""

    mapping: mmap.mmap
    address: int
    size: int

    @property
    def pages(self) -> PageBytes | None:
        """The pages that the kernel has given so far; None if it doesn't tell."""
        return pages_of(self.address, self.size)

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

    With `huge_pages` from the host's reserve (hugetlb) if it has enough, else as transparent huge pages if the kernel
    gives them, else as plain pages. The 2 MiB alignment suits O_DIRECT too, since it is a multiple of every block
    device's sector.
    """
    whole = -(-size // HUGE_PAGE) * HUGE_PAGE
    mapping = (_reserved(whole) if huge_pages else None) or _transparent(whole, huge_pages)
    address = -(-_address(mapping) // HUGE_PAGE) * HUGE_PAGE
    ctypes.memset(address, 0, size)
    return HostBuffer(mapping, address, size)


def _reserved(size: int) -> mmap.mmap | None:
    """Return memory from the reserved huge pages, a multiple of 2 MiB; None if there are too few, or none for us.

    A control group may refuse a page only when it is touched, by SIGBUS: MADV_POPULATE_WRITE (Linux 5.14) asks for all
    pages without that signal. Kernels without it give no reserved pages here.
    """
    try:
        mapping = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_HUGETLB)
    except OSError:
        return None
    try:
        mapping.madvise(_MADV_POPULATE_WRITE)
    except OSError:
        mapping.close()
        return None
    return mapping


def _transparent(size: int, huge_pages: bool) -> mmap.mmap:
    # Not a NumPy array, which isn't page-aligned: with O_DIRECT, NIXL 1.4's libaio moves nothing from it and reports
    # DONE.
    mapping = mmap.mmap(-1, size + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel without transparent huge pages refuses both kinds of advice
        # Plain pages are requested as well: a host set to `always` would give huge ones to a run without them.
        mapping.madvise(mmap.MADV_HUGEPAGE if huge_pages else mmap.MADV_NOHUGEPAGE)
    return mapping


def _address(mapping: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(mapping))
