"""Staged transfers between device and disk through host memory: the fallback if no plugin moves the bytes directly.

A staged request is a device copy plus a file request; its time includes both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.uint64]
CopyPieces = Callable[[Rows, Rows], None]
"""Function (destinations, sources) that copies pieces, each row (address, bytes, device), and waits for all of them."""


class StagedBinding:
    """Replaces NIXL's binding in the measuring loop; copies on the device before each write and after each read."""

    def __init__(self, bound: Any, copy: CopyPieces, *, write: bool) -> None:
        self._bound, self._copy, self._write = bound, copy, write
        self._pieces: dict[int, tuple[Rows, Rows]] = {}

    def stage(self, handle: int, device: Rows, host: Rows) -> None:
        """Set the pieces of a request, on the device and in the host memory used for staging; shape (N, 3) each."""
        self._pieces[handle] = (host, device) if self._write else (device, host)

    def postXferReq(self, handle: int, notification: bytes = b"") -> Any:
        if self._write:
            self._copy(*self._pieces[handle])
        return self._finished(handle, self._bound.postXferReq(handle, notification))

    def getXferStatus(self, handle: int) -> Any:
        return self._finished(handle, self._bound.getXferStatus(handle))

    def _finished(self, handle: int, state: Any) -> Any:
        if not self._write and state.value == 0:
            self._copy(*self._pieces[handle])
        return state
