"""Rendezvous of a run's ranks: a key-value store with write-once keys that a reader can wait for.

The server (`Board`) runs in rank 0's process; clients (`Seat`) connect over an abstract Unix socket, one JSON object
per line. etcd offers the same operations (put, and wait for a key), so it could serve ranks on several hosts.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import orjson

from kvdeck.engine.io.loop import CancelledError
from kvdeck.engine.threads import start_thread
from kvdeck.sessions.errors import KvdeckError, RunFailedError
from kvdeck.sessions.host.documents import load_record
from kvdeck.sessions.units import number_text

_END_SEEN_S = 0.3
"""Wait after a lost connection, so that the rank's parent can report first how the process ended."""
_LOSS_SEEN_S = 0.5
"""Wait after an error for the report of a lost rank that may have caused it."""


class Rendezvous(Protocol):
    """Key-value interface between ranks, implemented by `Board` and `Seat`."""

    def put(self, key: str, value: Any) -> None:
        """Store a JSON value under a key."""

    def get(self, key: str, timeout: float) -> Any:
        """Wait for a key's value and return it.

        Raises:
            RunFailedError: A rank is gone.
            KvdeckError: The value didn't arrive within `timeout` seconds, or rank 0 is gone.
        """


def gather(board: Rendezvous, name: str, rank: int, ranks: Sequence[int], value: Any, timeout: float) -> list[Any]:
    """Publish this rank's value and return every rank's, in the order of `ranks`: a barrier with data.

    Use each `name` once. Waits up to `timeout` seconds per rank; errors are those of `Rendezvous.get`.
    """
    board.put(f"{name}/{rank}", value)
    return [board.get(f"{name}/{other}", timeout) for other in ranks]


class Board:
    """Rendezvous server in rank 0's process; rejects connections from other users."""

    def __init__(self) -> None:
        self.address = f"kvdeck-{os.getpid()}-{secrets.token_hex(8)}"
        self._values: dict[str, Any] = {}
        self._lost: list[str] = []
        self._changed = threading.Condition()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(f"\0{self.address}")
        self._socket.listen()
        self._accepting = start_thread("rendezvous", self._accept, self._broken)

    def put(self, key: str, value: Any) -> None:
        with self._changed:
            self._values[key] = value
            self._changed.notify_all()

    def get(self, key: str, timeout: float) -> Any:
        deadline = time.monotonic() + timeout
        with self._changed:
            while key not in self._values:
                if self._lost:
                    raise RunFailedError(
                        f"{self._lost[0]} while rank 0 waited for {_plain(key)}", "see the session's engine.log"
                    )
                if not self._changed.wait(deadline - time.monotonic()):
                    raise KvdeckError(
                        f"{key} did not arrive within {number_text(timeout)} s", "see the session's engine.log"
                    )
            return self._values[key]

    @property
    def lost(self) -> str | None:
        """The first lost rank and how it ended, as a message; None while all ranks are connected."""
        return self._lost[0] if self._lost else None

    def lose(self, who: str) -> None:
        """Record a lost rank (`who` describes it and its end), and wake every waiter: its keys will never arrive."""
        with self._changed:
            self._lost.append(who)
            self._changed.notify_all()

    def close(self) -> None:
        """Accept no more connections, and end the thread that does."""
        with contextlib.suppress(OSError):  # closing alone would not wake the thread
            self._socket.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._socket.close()

    def _broken(self, error: Exception) -> None:
        self.lose(f"the rendezvous failed ({type(error).__name__}: {error})")

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            uid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
            if uid != os.getuid():
                connection.close()
                continue
            start_thread("rendezvous-rank", functools.partial(self._serve, connection), self._broken)

    def _serve(self, connection: socket.socket) -> None:
        who, clean = "a rank", False
        with connection, connection.makefile("rb") as lines, contextlib.suppress(ConnectionError):
            for line in lines:
                message = load_record(line)
                who = message.get("who", who)
                clean = "bye" in message
                self._answer(connection, message)
        if not clean:
            time.sleep(_END_SEEN_S)  # the process that started the rank reports its exit status
            if self.lost is None:
                self.lose(f"{who} closed its connection")

    def _answer(self, connection: socket.socket, message: dict[str, Any]) -> None:
        if "put" in message:
            self.put(message["put"], message["value"])
        elif "get" in message:
            try:
                answer = {"value": self.get(message["get"], message["timeout"])}
            except KvdeckError as error:
                answer = {"error": str(error), "lost": isinstance(error, RunFailedError)}
            connection.sendall(orjson.dumps(answer, option=orjson.OPT_APPEND_NEWLINE))


def check_board(board: Board | None) -> bool:
    """Return False unless a rank is lost that a transfer may wait for.

    Raises:
        RunFailedError: A rank is lost; names it and how it ended.
    """
    if board is not None and board.lost is not None:
        raise RunFailedError(f"{board.lost} during the transfers", "see the session's engine.log")
    return False


@contextlib.contextmanager
def naming_losses(boards: Callable[[], Iterable[Board | None]]) -> Iterator[None]:
    """Replace an error in the body by the loss of a rank, if one is reported within 0.5 s.

    A backend notices a dead connection before the rank's parent reports which rank ended.

    Raises:
        RunFailedError: A rank is lost; names it and how it ended.
    """
    try:
        yield
    except (CancelledError, RunFailedError):
        raise
    except Exception:
        present = [board for board in boards() if board is not None]
        deadline = time.monotonic() + _LOSS_SEEN_S
        while present and time.monotonic() < deadline:
            for board in present:
                check_board(board)
            time.sleep(0.01)
        raise


def _plain(key: str) -> str:
    """Return a readable form of a key: `answer/RANK/3` becomes `the answer of RANK`."""
    kind, _, rest = key.partition("/")
    return f"the {kind} of {rest.rpartition('/')[0]}" if kind in ("answer", "call") else key


class Seat:
    """Rendezvous client of one rank; not thread-safe."""

    def __init__(self, address: str, who: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(f"\0{address}")
        self._lines = self._socket.makefile("rb")
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN | select.POLLHUP)
        self._send({"who": who})

    def put(self, key: str, value: Any) -> None:
        self._send({"put": key, "value": value})

    def get(self, key: str, timeout: float) -> Any:
        self.ask(key, timeout)
        return self.answer()

    def ask(self, key: str, timeout: float) -> None:
        """Request a key without waiting; read the value with `answer`."""
        self._send({"get": key, "timeout": timeout})

    def answered(self) -> bool:
        """True if `answer` won't block."""
        return bool(self._poll.poll(0))

    def answer(self) -> Any:
        """Wait for the value requested by `ask`; errors are those of `Rendezvous.get`."""
        line = self._lines.readline()
        if not line:
            raise KvdeckError("the connection to rank 0 is lost", "see the session's engine.log")
        message = load_record(line)
        if "error" in message:
            raise (RunFailedError if message.get("lost") else KvdeckError)(message["error"])
        return message["value"]

    def close(self) -> None:
        self._send({"bye": True})
        self._lines.close()  # it holds the socket open too
        self._socket.close()

    def _send(self, message: dict[str, Any]) -> None:
        self._socket.sendall(orjson.dumps(message, option=orjson.OPT_APPEND_NEWLINE))
