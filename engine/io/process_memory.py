"""Copies between the memory of this process and of another: process_vm_readv and process_vm_writev."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kvdeck.sessions.units import count_text, size_text

_MOST_PIECES = 1024  # IOV_MAX
_MOST_BYTES = 1 << 30  # a call moves less than 2 GiB
_libc = ctypes.CDLL(None, use_errno=True)

Rows = npt.NDArray[np.uint64]
"""Descriptors (address, bytes, device), shape (N, 3)."""


@dataclass(frozen=True, slots=True)
class CopyCall:
    """One call, and the arrays that its arguments point into."""

    kept: tuple[npt.NDArray[np.uint64], ...]
    function: Any
    arguments: tuple[Any, ...]
    size: int
    """Bytes that it copies."""


def plan_copies(pid: int, here: Rows, there: Rows, group: int, *, write: bool) -> list[CopyCall]:
    """Return the calls that copy pieces, at most `group` pieces each; `there` has the same sizes as `here`.

    Args:
        pid: The other process.
        here: Pieces of this process's memory.
        there: Pieces of the other's.
        group: Pieces that are copied by one call, if the kernel takes as many.
        write: True to copy from this process to the other.
    """
    function = _libc.process_vm_writev if write else _libc.process_vm_readv
    function.restype = ctypes.c_ssize_t
    size = int(here[0, 1])
    step = max(1, min(group, _MOST_PIECES, _MOST_BYTES // size))
    pieces = tuple(np.ascontiguousarray(rows[:, :2]) for rows in (here, there))  # each row is a struct iovec
    starts, width = [rows.ctypes.data for rows in pieces], pieces[0].strides[0]
    calls: list[CopyCall] = []
    for at in range(0, len(here), group):
        end = min(at + group, len(here))
        for first in range(at, end, step):
            count = min(step, end - first)
            own, other = (ctypes.c_void_p(start + first * width) for start in starts)
            number = ctypes.c_ulong(count)
            arguments = (ctypes.c_int(pid), own, number, other, number, ctypes.c_ulong(0))
            calls.append(CopyCall(pieces, function, arguments, count * size))
    return calls


def run_copies(calls: Sequence[CopyCall]) -> None:
    """Make each call.

    Raises:
        OSError: The kernel refuses (ptrace isn't allowed), or the other process ended or has no such memory.
    """
    for call in calls:
        moved = call.function(*call.arguments)
        if moved != call.size:
            error = ctypes.get_errno() if moved < 0 else 0
            raise OSError(
                error, os.strerror(error) if error else f"{count_text(moved)} of {size_text(call.size)} were copied"
            )
