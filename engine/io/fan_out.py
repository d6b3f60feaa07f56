"""One iteration as several requests, where its devices stand in several agents: posted in turn, done when all are."""

from __future__ import annotations

from typing import Any


class Volley:
    """Requests that go out together; its `value` is how many are still under way, as a status's is 0 when done."""

    __slots__ = ("handles", "pending")

    def __init__(self, handles: tuple[Any, ...]) -> None:
        self.handles = handles
        """NIXL's own handles."""
        self.pending: list[Any] = []

    @property
    def _handle(self) -> Volley:
        """What the measuring loop posts, in the place of a request's handle."""
        return self

    @property
    def value(self) -> int:
        return len(self.pending)


class VolleyBinding:
    """Takes the place of NIXL's binding in the measuring loop."""

    def __init__(self, bound: Any) -> None:
        self._post, self._status = bound.postXferReq, bound.getXferStatus

    def postXferReq(self, volley: Volley) -> Volley:
        """Post every request.

        Raises:
            Exception: NIXL's own, where one is refused.
        """
        volley.pending = [handle for handle in volley.handles if self._post(handle._handle).value]
        return volley

    def getXferStatus(self, volley: Volley) -> Volley:
        """Look at those that are not done; raises NIXL's own exceptions where one has failed."""
        volley.pending = [handle for handle in volley.pending if self._status(handle._handle).value]
        return volley
