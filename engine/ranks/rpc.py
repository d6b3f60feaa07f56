"""Remote calls from rank 0 to a run's other ranks over the rendezvous: method name, arguments, result."""

from __future__ import annotations

from typing import Any, Protocol

from kvdeck.engine.ranks.rendezvous import RankRendezvous, Rendezvous
from kvdeck.sessions.errors import KvdeckError, RunFailedError

ANSWER_SECONDS = 120.0


class ServedObject(Protocol):
    """Object whose public methods rank 0 calls with JSON values."""

    busy: bool
    """True if `serve` should call `poll` repeatedly between calls."""

    def poll(self) -> None:
        """Do a short piece of background work."""


class Remote:
    """Rank 0's calls to a rank that serves an object; something else has started the rank."""

    def __init__(self, rendezvous: Rendezvous, rank: str) -> None:
        self._rendezvous, self.rank, self._calls = rendezvous, rank, 0

    def start(self, method: str, **arguments: Any) -> int:
        """Start a call and return its number; `result` waits for it."""
        number = self._calls
        self._calls += 1
        self._rendezvous.put(f"call/{self.rank}/{number}", {"method": method, "arguments": arguments})
        return number

    def result(self, number: int, timeout: float = ANSWER_SECONDS) -> Any:
        """Wait up to `timeout` seconds for a call's result and return it.

        Raises:
            RunFailedError: The rank, or one of its own targets, is gone.
            KvdeckError: The method raised, or no answer arrived in time.
        """
        answer = self._rendezvous.get(f"answer/{self.rank}/{number}", timeout)
        if "error" in answer:
            raise (RunFailedError if answer["lost"] else KvdeckError)(answer["error"])
        return answer["result"]

    def call(self, method: str, **arguments: Any) -> Any:
        return self.result(self.start(method, **arguments))

    def close(self) -> None:
        """Request the rank to end its serving; doesn't wait."""
        self._rendezvous.put(f"call/{self.rank}/{self._calls}", {"method": "", "arguments": {}})


def serve(seat: RankRendezvous, rank: str, served: ServedObject) -> None:
    """Answer calls until rank 0 requests the end; KvdeckError if rank 0 is gone."""
    number = 0
    while True:
        seat.ask(f"call/{rank}/{number}")
        while served.busy and not seat.answered():
            served.poll()
        call = seat.answer()
        if not call["method"]:
            return
        seat.put(f"answer/{rank}/{number}", _answer(served, call))
        number += 1


def _answer(served: ServedObject, call: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"result": getattr(served, call["method"])(**call["arguments"])}
    except Exception as error:  # rank 0 reports errors of any type
        return {"error": str(error) or type(error).__name__, "lost": isinstance(error, RunFailedError)}
