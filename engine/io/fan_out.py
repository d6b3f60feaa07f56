"""Fan-out requests: one iteration as several NIXL requests, one per remote agent, done when all are done."""

from __future__ import annotations

from typing import Any


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
