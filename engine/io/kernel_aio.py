"""Reads and writes that the kernel keeps in flight together: io_submit and io_getevents, without a library.

What a disk gives at a depth can't be measured by one `pread` at a time; this is as little as a program can do for it.
"""

from __future__ import annotations

import ctypes
import os
import platform
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kvdeck.sessions.units import count_text, size_text

_CALLS = {
    # io_setup, io_destroy, io_getevents, io_submit
    "x86_64": (206, 207, 208, 209),
    "aarch64": (0, 1, 4, 2),
}
_MOST_IN_FLIGHT = 1024
_READ, _WRITE = 0, 1  # IOCB_CMD_PREAD, IOCB_CMD_PWRITE
_IOCB = np.dtype(
    [
        ("data", "<u8"),
        ("key", "<u4"),
        ("rw_flags", "<u4"),
        ("opcode", "<u2"),
        ("priority", "<i2"),
        ("fd", "<u4"),
        ("address", "<u8"),
        ("size", "<u8"),
        ("offset", "<i8"),
        ("reserved", "<u8"),
        ("flags", "<u4"),
        ("event_fd", "<u4"),
    ]
)
"""`struct iocb` of linux/aio_abi.h, little-endian."""
_EVENT = np.dtype([("data", "<u8"), ("iocb", "<u8"), ("result", "<i8"), ("result2", "<i8")])
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

Rows = npt.NDArray[np.uint64]
"""Descriptors (address or offset, bytes, device or file descriptor), shape (N, 3)."""


@dataclass(frozen=True, slots=True)
class Flight:
    """Operations of one series, so many of them in flight at any time."""

    kept: tuple[npt.NDArray[Any], ...]
    """The arrays that `address` points into."""
    address: int
    """Of the pointers to the operations."""
    count: int
    size: int
    """Bytes of each."""
    window: int
    """Operations in flight: the next one starts as soon as one has ended."""


class KernelAio:
    """A queue for up to `depth` operations in flight, and at most 1,024.

    Raises:
        OSError: The kernel gives no queue: `fs.aio-max-nr` is used up, or the calls aren't allowed here.
    """

    def __init__(self, depth: int) -> None:
        calls = _CALLS.get(platform.machine())
        if calls is None:
            raise OSError(f"the numbers of io_submit aren't known for {platform.machine()}")
        self._setup, self._destroy, self._wait, self._submit = calls
        self.depth = max(1, min(depth, _MOST_IN_FLIGHT))
        context = ctypes.c_ulong(0)
        _call(self._setup, ctypes.c_long(self.depth), ctypes.byref(context))
        self._context = context
        self._events = np.zeros(self.depth, _EVENT)
        self._events_at, self._results = ctypes.c_void_p(self._events.ctypes.data), self._events["result"]

    def plan(self, memory: Rows, files: Rows, group: int, *, write: bool) -> Flight:
        """Return the operations for `run`, of which `group`, but at most `depth`, are in flight at any time.

        Args:
            memory: Where the bytes are or go to, one row per operation.
            files: The place in the file of each, as many rows; all of one size.
            group: Operations in flight. The queue isn't drained between groups: no program keeps a disk busier at
                that depth.
            write: True from memory to the files.
        """
        blocks = np.zeros(len(memory), _IOCB)
        blocks["opcode"] = _WRITE if write else _READ
        blocks["fd"], blocks["address"], blocks["size"] = files[:, 2], memory[:, 0], memory[:, 1]
        blocks["offset"] = files[:, 0]
        pointers = blocks.ctypes.data + np.arange(len(blocks), dtype=np.uint64) * np.uint64(_IOCB.itemsize)
        return Flight((blocks, pointers), pointers.ctypes.data, len(blocks), int(memory[0, 1]), min(group, self.depth))

    def run(self, flight: Flight) -> None:
        """Run the operations to the end of the last one.

        Raises:
            OSError: An operation failed, or moved fewer bytes than asked.
        """
        started = done = 0
        none, all_left = ctypes.c_long(0), ctypes.c_long(self.depth)
        while done < flight.count:
            room = min(flight.window - (started - done), flight.count - started)
            if room > 0:
                place = ctypes.c_void_p(flight.address + 8 * started)
                started += _call(self._submit, self._context, ctypes.c_long(room), place)
            # Polled as NIXL does: a process that sleeps until the last operation ends is woken tens of µs too late.
            got = _call(self._wait, self._context, none, all_left, self._events_at, ctypes.c_void_p(None))
            for result in self._results[:got].tolist():
                if result < 0:
                    raise OSError(-result, os.strerror(-result))
                if result != flight.size:
                    raise OSError(f"an operation moved {count_text(result)} of {size_text(flight.size)}")
            done += got

    def close(self) -> None:
        if self._context.value:
            _call(self._destroy, self._context)
            self._context.value = 0


def _call(number: int, *arguments: Any) -> int:
    result = int(_libc.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result
