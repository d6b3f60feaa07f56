"""Bindings that the measuring loop posts and polls in place of NIXL's own.

Fan-out: one iteration is several NIXL requests, one per remote agent, done when all are done.
Staged: the fallback between device and disk if no plugin moves the bytes directly; a request is a device copy plus a
file request through host memory, and its time includes both.
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


class Volley:
    """Fan-out request; `value` is the number of its requests in progress, 0 when done, like a NIXL status."""

    __slots__ = ("handles", "pending")

    def __init__(self, handles: tuple[Any, ...]) -> None:
        self.handles = handles
        """NIXL's request handles."""
        self.pending: list[Any] = []

    @property
    def _handle(self) -> Volley:
        """The object that the measuring loop posts, in place of a NIXL request's handle."""
        return self

    @property
    def value(self) -> int:
        return len(self.pending)


class VolleyBinding:
    """Replaces NIXL's binding in the measuring loop."""

    def __init__(self, bound: Any) -> None:
        self._post, self._status = bound.postXferReq, bound.getXferStatus

    def postXferReq(self, volley: Volley) -> Volley:
        """Post every request, in order.

        Raises:
            Exception: NIXL's own, if it refuses a request.
        """
        volley.pending = [handle for handle in volley.handles if self._post(handle._handle).value]
        return volley

    def getXferStatus(self, volley: Volley) -> Volley:
        """Poll the requests in progress; NIXL's own exceptions are raised if one has failed."""
        volley.pending = [handle for handle in volley.pending if self._status(handle._handle).value]
        return volley
