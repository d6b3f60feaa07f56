"""Where the ranks of a run meet: a board of keys that is written once each and waited for.

The board lives in rank 0's process and is reached over an abstract Unix socket, one JSON object a line.
The interface is what etcd offers too (put, and wait for a key), so ranks on several hosts can share it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import socket
import struct
import threading
import time
from collections.abc import Sequence
from typing import Any, Protocol

import orjson

from kvdeck.sessions.errors import KvdeckError


class Rendezvous(Protocol):
    """What ranks need of each other: values under keys."""

    def put(self, key: str, value: Any) -> None:
        """Write a JSON value under a key."""

    def get(self, key: str, timeout: float) -> Any:
        """Wait for a key's value.

        Raises:
            KvdeckError: It did not come within `timeout` seconds, or the other side is gone.
        """


def gather(board: Rendezvous, name: str, rank: int, ranks: Sequence[int], value: Any, timeout: float) -> list[Any]:
    """Give a value under a name used once and get every rank's, in the order of `ranks`: a barrier with data."""
    board.put(f"{name}/{rank}", value)
    return [board.get(f"{name}/{other}", timeout) for other in ranks]


class Board:
    """The board itself, in rank 0's process."""

    def __init__(self) -> None:
        self.address = f"kvdeck-{os.getpid()}-{secrets.token_hex(8)}"
        self._values: dict[str, Any] = {}
        self._lost: list[str] = []
        self._changed = threading.Condition()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(f"\0{self.address}")
        self._socket.listen()
        threading.Thread(target=self._accept, name="rendezvous", daemon=True).start()

    def put(self, key: str, value: Any) -> None:
        with self._changed:
            self._values[key] = value
            self._changed.notify_all()

    def get(self, key: str, timeout: float) -> Any:
        deadline = time.monotonic() + timeout
        with self._changed:
            while key not in self._values:
                if self._lost:
                    raise KvdeckError(
                        f"{self._lost[0]} ended while {key} was waited for", "see the session's engine.log"
                    )
                if not self._changed.wait(deadline - time.monotonic()):
                    raise KvdeckError(f"{key} did not come within {timeout:.0f} s", "see the session's engine.log")
            return self._values[key]

    def lose(self, who: str) -> None:
        """Wake every waiter: a rank is gone and its keys won't come."""
        with self._changed:
            self._lost.append(who)
            self._changed.notify_all()

    def close(self) -> None:
        self._socket.close()

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
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        who, clean = "a rank", False
        with connection, connection.makefile("rb") as lines, contextlib.suppress(ConnectionError):
            for line in lines:
                message = orjson.loads(line)
                who = message.get("who", who)
                clean = "bye" in message
                self._answer(connection, message)
        if not clean:
            self.lose(who)

    def _answer(self, connection: socket.socket, message: dict[str, Any]) -> None:
        if "put" in message:
            self.put(message["put"], message["value"])
        elif "get" in message:
            try:
                answer = {"value": self.get(message["get"], message["timeout"])}
            except KvdeckError as error:
                answer = {"error": str(error)}
            connection.sendall(orjson.dumps(answer, option=orjson.OPT_APPEND_NEWLINE))


class Seat:
    """A rank's connection to the board; for one thread."""

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
        """Ask for a key without waiting; `answered` tells when `answer` won't block."""
        self._send({"get": key, "timeout": timeout})

    def answered(self) -> bool:
        return bool(self._poll.poll(0))

    def answer(self) -> Any:
        line = self._lines.readline()
        if not line:
            raise KvdeckError("rank 0 is gone", "see the session's engine.log")
        message = orjson.loads(line)
        if "error" in message:
            raise KvdeckError(message["error"])
        return message["value"]

    def close(self) -> None:
        self._send({"bye": True})
        self._socket.close()

    def _send(self, message: dict[str, Any]) -> None:
        self._socket.sendall(orjson.dumps(message, option=orjson.OPT_APPEND_NEWLINE))
