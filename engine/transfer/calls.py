"""Calls between rank 0 and a run's other ranks, over the rendezvous: a method's name, its arguments, its result."""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import subprocess
import sys
from typing import Any, Protocol

from kvdeck.engine.transfer.rendezvous import Board, Seat
from kvdeck.sessions.errors import KvdeckError

ANSWER_SECONDS = 120.0
_FOREVER = 10 * 365 * 86400.0
_PR_SET_PDEATHSIG = 1


class Served(Protocol):
    """An object whose public methods another rank calls with JSON values."""

    busy: bool
    """Whether `poll` wants to be called while no call is waiting."""

    def poll(self) -> None:
        """A short piece of background work."""


class Remote:
    """Rank 0's handle on a child process that serves an object."""

    def __init__(self, board: Board, module: str, rank: str) -> None:
        self._board, self._rank, self._calls = board, rank, 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, "--board", board.address, "--rank", rank, "--parent", str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )

    def start(self, method: str, **arguments: Any) -> int:
        """Begin a call; `result` of the number returned waits for it."""
        number = self._calls
        self._calls += 1
        self._board.put(f"call/{self._rank}/{number}", {"method": method, "arguments": arguments})
        return number

    def result(self, number: int) -> Any:
        """The call's result.

        Raises:
            KvdeckError: The method raised, or the rank is gone.
        """
        answer = self._board.get(f"answer/{self._rank}/{number}", ANSWER_SECONDS)
        if "error" in answer:
            raise KvdeckError(answer["error"])
        return answer["result"]

    def call(self, method: str, **arguments: Any) -> Any:
        return self.result(self.start(method, **arguments))

    def close(self) -> None:
        """Ask the process to end, and end it if it doesn't."""
        if self._process.poll() is None:
            self._board.put(f"call/{self._rank}/{self._calls}", {"method": "", "arguments": {}})
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def serve(seat: Seat, rank: str, served: Served) -> None:
    """Answer calls until one asks to end, or rank 0 is gone."""
    number = 0
    while True:
        seat.ask(f"call/{rank}/{number}", _FOREVER)
        while served.busy and not seat.answered():
            served.poll()
        call = seat.answer()
        if not call["method"]:
            return
        seat.put(f"answer/{rank}/{number}", _answer(served, call))
        number += 1


def _answer(served: Served, call: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"result": getattr(served, call["method"])(**call["arguments"])}
    except Exception as error:  # the other rank must hear of it, whatever it is
        return {"error": str(error) or type(error).__name__}


def take_seat() -> tuple[Seat, str]:
    """In a rank's process: read the options `Remote` gave it, and sit down at the board."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--board", required=True)
    parser.add_argument("--rank", required=True)
    parser.add_argument("--parent", type=int, required=True)
    options = parser.parse_args()
    follow_parent(options.parent)
    return Seat(options.board, options.rank), options.rank


def follow_parent(parent: int) -> None:
    """End with the process that started this one, however it ends, and leave Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit("the parent has ended")
