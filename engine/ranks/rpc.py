"""Remote calls from rank 0 to a run's other ranks over the rendezvous: method name, arguments, result."""

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
"""Time to wait for the end of a dead rank's stderr, since a child of that rank may hold it open."""
_FOREVER = 10 * 365 * 86400.0
_PR_SET_PDEATHSIG = 1


class Served(Protocol):
    """Object whose public methods rank 0 calls with JSON values."""

    busy: bool
    """True if `serve` should call `poll` repeatedly between calls."""

    def poll(self) -> None:
        """Do a short piece of background work."""


class Remote:
    """Rank 0's client of a child process that serves an object; starts the process."""

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
        """Copy the child's stderr to this process's, which is the session's engine.log, and store its tail."""
        assert self._process.stderr is not None
        with self._process.stderr as stream:
            while data := os.read(stream.fileno(), 65536):
                self._tail = (self._tail + data)[-_LAST_LINES_BYTES:]
                with contextlib.suppress(OSError):  # a log on a full disk must not block the rank
                    os.write(2, data)

    def _watch(self) -> None:
        """Report the rank as lost if its process ends before `close`, even if it never connected."""
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
        """Start a call and return its number; `result` waits for it."""
        number = self._calls
        self._calls += 1
        self._board.put(f"call/{self._rank}/{number}", {"method": method, "arguments": arguments})
        return number

    def result(self, number: int) -> Any:
        """Wait up to 120 s for a call's result and return it.

        Raises:
            RunFailedError: The rank, or one of its own targets, is gone.
            KvdeckError: The method raised, or no answer arrived in time.
        """
        answer = self._board.get(f"answer/{self._rank}/{number}", ANSWER_SECONDS)
        if "error" in answer:
            raise (RunFailedError if answer["lost"] else KvdeckError)(answer["error"])
        return answer["result"]

    def call(self, method: str, **arguments: Any) -> Any:
        return self.result(self.start(method, **arguments))

    def close(self) -> None:
        """Request the process to end; kill it after 5 s."""
        self._closing = True
        self._board.put(f"call/{self._rank}/{self._calls}", {"method": "", "arguments": {}})
        if not self._ended.wait(CLOSE_SECONDS):
            self._process.kill()
            self._ended.wait()


def serve(seat: Seat, rank: str, served: Served) -> None:
    """Answer calls until rank 0 requests the end; KvdeckError if rank 0 is gone."""
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
    except Exception as error:  # rank 0 reports errors of any type
        return {"error": str(error) or type(error).__name__, "lost": isinstance(error, RunFailedError)}


def take_seat() -> tuple[Seat, str]:
    """Parse the options from `Remote`, tie this process to its parent, and connect to the rendezvous server.

    Returns:
        The client and the rank's name.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--board", required=True)
    parser.add_argument("--rank", required=True)
    parser.add_argument("--parent", type=int, required=True)
    options = parser.parse_args()
    follow_parent(options.parent)
    return Seat(options.board, options.rank), options.rank


def follow_parent(parent: int) -> None:
    """Kill this process when its parent ends for any reason, and ignore SIGINT, which the parent handles.

    Raises:
        SystemExit: The parent has already ended.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit("the parent process exited")
