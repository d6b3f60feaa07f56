"""Calls between rank 0 and a run's other ranks, over the rendezvous: a method's name, its arguments, its result."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from typing import Any, Protocol

from kvdeck.engine.ranks.rendezvous import Board, Seat
from kvdeck.sessions.errors import KvdeckError, RunFailedError
from kvdeck.sessions.host.processes import signal_name

ANSWER_SECONDS = 120.0
CLOSE_SECONDS = 5.0
_LAST_LINES_BYTES = 4096
_LAST_LINES_S = 0.3
"""How long to wait for the end of a dead rank's stderr: a child of its own may hold it open."""
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
            stderr=subprocess.PIPE,
        )
        self._closing = False
        self._ended = threading.Event()
        self._tail = b""
        self._stderr = threading.Thread(target=self._copy_stderr, name=f"stderr-{rank}", daemon=True)
        self._stderr.start()
        threading.Thread(target=self._watch, name=f"watch-{rank}", daemon=True).start()

    def _copy_stderr(self) -> None:
        """Copy the process's stderr to this one's, which is the session's engine.log, and keep its tail."""
        assert self._process.stderr is not None
        with self._process.stderr as stream:
            while data := os.read(stream.fileno(), 65536):
                self._tail = (self._tail + data)[-_LAST_LINES_BYTES:]
                with contextlib.suppress(OSError):  # a log on a full disk must not hold the rank up
                    os.write(2, data)

    def _watch(self) -> None:
        """Tell the board when the process ends without having been asked, also before it has connected."""
        status = self._process.wait()
        if not self._closing:
            how = f"died of {signal_name(-status)}" if status < 0 else f"ended with status {status}"
            self._stderr.join(_LAST_LINES_S)
            lines = [line.strip() for line in self._tail.decode(errors="replace").splitlines() if line.strip()]
            if lines:
                how += f" ({lines[-1][:300]})"
            self._board.lose(f"{self._rank} (process {self._process.pid}) {how}")
        self._ended.set()

    def start(self, method: str, **arguments: Any) -> int:
        """Begin a call; `result` of the number returned waits for it."""
        number = self._calls
        self._calls += 1
        self._board.put(f"call/{self._rank}/{number}", {"method": method, "arguments": arguments})
        return number

    def result(self, number: int) -> Any:
        """The call's result.

        Raises:
            RunFailedError: The rank, or a target of its own, is gone.
            KvdeckError: The method raised.
        """
        answer = self._board.get(f"answer/{self._rank}/{number}", ANSWER_SECONDS)
        if "error" in answer:
            raise (RunFailedError if answer["lost"] else KvdeckError)(answer["error"])
        return answer["result"]

    def call(self, method: str, **arguments: Any) -> Any:
        return self.result(self.start(method, **arguments))

    def close(self) -> None:
        """Ask the process to end, and end it if it doesn't."""
        self._closing = True
        self._board.put(f"call/{self._rank}/{self._calls}", {"method": "", "arguments": {}})
        if not self._ended.wait(CLOSE_SECONDS):
            self._process.kill()
            self._ended.wait()


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
        return {"error": str(error) or type(error).__name__, "lost": isinstance(error, RunFailedError)}


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
