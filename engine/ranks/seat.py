"""Rendezvous client of one rank over a stream, and the ways to take a seat, each with a scheme of its own."""

from __future__ import annotations

import argparse
import os
import select
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import orjson

from kvdeck.engine.children.child import die_with_parent
from kvdeck.engine.io import stdio
from kvdeck.engine.lines import LineBuffer
from kvdeck.engine.ranks.board import LONGEST_LINE, late, plain_key
from kvdeck.engine.ranks.rendezvous import RankRendezvous
from kvdeck.engine.ranks.signed_lines import SignedLines
from kvdeck.sessions.errors import KvdeckError, RunFailedError
from kvdeck.sessions.host.documents import load_record


class Seat:
    """Rendezvous client over two descriptors, which may be one socket's. One thread asks; any may put and lose."""

    def __init__(self, reading: int, writing: int, who: str, close: Callable[[], object] = lambda: None,
                 signing: SignedLines | None = None) -> None:  # fmt: skip
        """Take the seat `who`.

        Args:
            close: Called by `leave`; closes what the descriptors belong to.
            signing: Signs and checks the lines, where others could write into the connection.
        """
        self._reading, self._writing, self._close = reading, writing, close
        self._lines, self._came = LineBuffer(LONGEST_LINE), deque[dict[str, Any]]()
        self._poll = select.poll()
        self._poll.register(reading, select.POLLIN | select.POLLHUP)
        self._sending, self._signing = threading.Lock(), signing
        self._key = ""
        self._lost: str | None = None
        self._send({"who": who})

    @property
    def lost(self) -> str | None:
        return self._lost

    def put(self, key: str, value: Any) -> None:
        self._send({"put": key, "value": value})

    def get(self, key: str, timeout: float) -> Any:
        self.ask(key)
        return self.answer(timeout)

    def lose(self, who: str) -> None:
        self._send({"lose": who})

    def ask(self, key: str) -> None:
        self._key = key
        self._send({"get": key})

    def answered(self) -> bool:
        while not self._came and self._poll.poll(0):
            self._read()
        return bool(self._came)

    def answer(self, timeout: float | None = None) -> Any:
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            while not self._came:
                left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
                if not self._poll.poll(left):
                    raise late(self._key, timeout or 0.0)
                self._read()
            message = self._came.popleft()
            if "gone" in message:
                self._came.append(message)
                raise KvdeckError("the connection to rank 0 is lost", "see the session's engine.log")
            if "lost" in message:
                self._lost = self._lost or message["lost"]
                raise RunFailedError(f"{self._lost} during the wait for {plain_key(self._key)}")
            if message["key"] == self._key:  # another answers a question that was given up
                return message["value"]

    def leave(self) -> None:
        self._send({"bye": True})
        self._close()

    def _read(self) -> None:
        try:
            data = os.read(self._reading, 1 << 18)
        except OSError:
            data = b""
        try:
            messages = [load_record(self._unsigned(line)) for line in self._lines.take(data)]
        except ValueError as error:
            messages = [{"lost": f"the connection to rank 0 can't be trusted ({error})"}]
        messages += [] if data else [{"gone": True}]
        self._came += [message for message in messages if "beat" not in message]

    def _unsigned(self, line: bytes) -> bytes:
        return line if self._signing is None else self._signing.unseal(line)

    def _send(self, message: dict[str, Any]) -> None:
        line = orjson.dumps(message, option=orjson.OPT_APPEND_NEWLINE)
        with self._sending:
            if self._signing is not None:
                line = self._signing.seal(line)
            while line:
                line = line[os.write(self._writing, line) :]


def _over_unix(address: str, who: str) -> Seat:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(f"\0{address}")
    return Seat(connection.fileno(), connection.fileno(), who, connection.close)


def _over_stdio(_: str, who: str) -> Seat:
    return Seat(0, stdio.claim_stdout(), who)


SCHEMES: dict[str, Callable[[str, str], RankRendezvous]] = {"unix": _over_unix, "stdio": _over_stdio}
"""How to reach rank 0, by an address's scheme: a function of the rest of the address and the rank's name."""


def open_seat(address: str, who: str) -> RankRendezvous:
    """Connect to rank 0 at `SCHEME:REST`, under the rank's name `who`.

    Raises:
        KvdeckError: The scheme is unknown.
        OSError: There is no server at the address.
    """
    scheme, _, rest = address.partition(":")
    if scheme not in SCHEMES:
        raise KvdeckError(f"no rendezvous is called {scheme!r}", f"use {', '.join(SCHEMES)}")
    return SCHEMES[scheme](rest, who)


def take_seat() -> tuple[RankRendezvous, str]:
    """Connect a child process of a rank, by the options that `RankProcess` gives it; it ends with its parent.

    Returns:
        The client and the rank's name.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--seat", required=True)
    parser.add_argument("--rank", required=True)
    parser.add_argument("--parent", type=int, required=True)
    options = parser.parse_args()
    follow_parent(options.parent)
    return open_seat(options.seat, options.rank), options.rank


def follow_parent(parent: int) -> None:
    """Kill this process when its parent ends for any reason, and ignore SIGINT, which the parent handles.

    Raises:
        SystemExit: The parent has already ended.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent(parent)
