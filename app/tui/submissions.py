"""Runs submitted by this deck that its queue doesn't show yet."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kvdeck.app.tui.requests import Requests
    from kvdeck.app.tui.state import EngineState


class Submissions:
    """Submits runs, and cancels the last one even before its reply has come."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests
        self._pending: list[asyncio.Future[str]] = []
        self._last: asyncio.Future[str] | None = None
        self._unseen = ""
        """Session of the run queued last, until the engine's state contains it."""
        self._sessions: set[str] = set()

    @property
    def pending(self) -> bool:
        """True if a run was submitted and neither queued nor refused yet."""
        return bool(self._pending)

    @property
    def unseen(self) -> bool:
        """True if a submitted run has no reply yet, or is not in the engine's state yet."""
        return self.pending or bool(self._unseen)

    def submit(self, spec: Mapping[str, Any], kind: str | None = None) -> asyncio.Future[str]:
        """Queue a job of a kind, by default a transfer, which is pending from now on, and return its session's future.

        The future raises KvdeckError if the run is refused, or there is no engine.
        """
        reply = self._last = asyncio.ensure_future(self._requests.submit(spec, kind))
        self._pending.append(reply)
        reply.add_done_callback(self._replied)
        return reply

    def _replied(self, reply: asyncio.Future[str]) -> None:
        self._pending.remove(reply)
        if not reply.cancelled() and reply.exception() is None:
            session = reply.result()
            self._unseen = "" if session in self._sessions else session

    async def cancel_last(self) -> None:
        """Cancel the run submitted last, once it has been queued.

        Raises:
            KvdeckError: It was refused, or can't be cancelled.
        """
        if self._last is not None:
            await self._requests.cancel(await self._last)

    def see(self, state: EngineState) -> None:
        """Note the runs that the engine's state contains."""
        self._sessions = {run.session for run in (*state.runs, state.run) if run is not None}
        if self._unseen in self._sessions:
            self._unseen = ""
