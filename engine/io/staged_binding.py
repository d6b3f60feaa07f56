"""Transfers between device and disk that go through host memory: the fallback where no plugin moves them directly.

A staged request is the device copy and the file request together; both are inside its time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.uint64]
CopyPieces = Callable[[Rows, Rows], None]
"""Copies pieces, each row (address, bytes, device): destinations first, sources second; returns when all are there."""


class StagedBinding:
    """Takes the place of NIXL's binding in the measuring loop, with the device copy before or after each request."""

    def __init__(self, bound: Any, copy: CopyPieces, *, write: bool) -> None:
        self._bound, self._copy, self._write = bound, copy, write
        self._pieces: dict[int, tuple[Rows, Rows]] = {}

    def stage(self, handle: int, device: Rows, host: Rows) -> None:
        """Say which pieces a request carries, on the device and in the host memory it goes through."""
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
