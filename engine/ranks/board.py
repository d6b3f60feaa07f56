"""Rendezvous server in rank 0's process: the keys, the ranks connected to it, and those that are lost.

Ranks of this host connect over an abstract Unix socket. A rank that is reached otherwise (ssh, TCP) has its stream
attached. On a stream, each message is a JSON object in a line:

- from a rank: `{"who": NAME}` first; `{"put": KEY, "value": VALUE}`; `{"get": KEY}`; `{"lose": WHO}`; `{"bye": true}`.
- to a rank: `{"key": KEY, "value": VALUE}` for each key that it asked for, once it is there; `{"lost": WHO}`, after
  which no key arrives any more; `{"beat": true}` every few seconds on an attached stream.
"""

from __future__ import annotations

import contextlib
import functools
import os
import queue
import secrets
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

import orjson

from kvdeck.engine.lines import LineBuffer
from kvdeck.engine.ranks.signed_lines import SignedLines
from kvdeck.engine.threads import start_thread
from kvdeck.sessions.errors import KvdeckError, RunFailedError
from kvdeck.sessions.host.documents import load_record
from kvdeck.sessions.units import count_text, number_text

BEAT_SECONDS = 5.0
"""Time between two messages that only say that rank 0 is there."""
FLUSH_SECONDS = 2.0
"""Time for the last messages to a rank to be written; one that reads nothing any more is not waited for longer."""
LONGEST_LINE = 64 << 20
_END_SEEN_S = 0.3
"""Wait after a lost connection, so that the rank's parent can report first how the process ended."""


class RankStream:
    """A rank's connection: what it asked for, and a thread that writes, since a cut link must not block rank 0."""

    def __init__(
        self, reading: int, writing: int, who: str, *, attached: bool, signing: SignedLines | None = None
    ) -> None:
        """`attached`: rank 0 knows who is at the other end, and tells it every few seconds that it is there."""
        self.who, self._reading, self._writing, self.attached = who, reading, writing, attached
        self._signing = signing
        self.asked: set[str] = set()
        self._greeted = False
        self.parted = False
        """True once the rank said that it leaves."""
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._written = threading.Event()
        self._written.set()

    def send(self, message: dict[str, Any]) -> None:
        """Queue a message; it is dropped if the rank is gone."""
        self._lines.put(orjson.dumps(message, option=orjson.OPT_APPEND_NEWLINE))

    def end(self) -> None:
        """End the writing thread."""
        self._lines.put(None)

    def write(self) -> None:
        """Write the queued messages until `end`."""
        self._written.clear()
        try:
            with contextlib.suppress(OSError):  # the reading thread reports that the rank is gone
                while (line := self._next()) is not None:
                    if self._signing is not None:
                        line = self._signing.seal(line)
                    while line:
                        line = line[os.write(self._writing, line) :]
        finally:
            self._written.set()

    def flush(self, seconds: float) -> None:
        """Wait until what was queued before `end` is written, at most `seconds`."""
        self._written.wait(seconds)

    def _next(self) -> bytes | None:
        try:
            return self._lines.get(timeout=BEAT_SECONDS if self.attached else None)
        except queue.Empty:
            return b'{"beat":true}\n'

    def read(self, take: Callable[[dict[str, Any]], None]) -> None:
        """Pass each of the rank's messages to `take` until its end of file.

        What comes before the first message is skipped: a login shell's own words.

        Raises:
            ValueError: A line is too long, not signed where it should be, or no message.
        """
        lines = LineBuffer(LONGEST_LINE)
        with contextlib.suppress(OSError):
            while data := os.read(self._reading, 1 << 18):
                for line in lines.take(data):
                    if self._signing is not None:
                        line = self._signing.unseal(line)
                    self._greeted = self._greeted or line.startswith(b'{"who":')
                    if self._greeted:
                        take(load_record(line))
                if lines.dropped:
                    raise ValueError(f"{self.who} sent a line of more than {count_text(LONGEST_LINE)} bytes")


class Board:
    """Rendezvous server; rejects local connections from other users."""

    def __init__(self) -> None:
        self.address = f"unix:kvdeck-{os.getpid()}-{secrets.token_hex(8)}"
        """Where a rank of this host takes its seat."""
        self._values: dict[str, Any] = {}
        self._lost: list[str] = []
        self._streams: list[RankStream] = []
        self._on_loss: list[Callable[[str], None]] = []
        self._changed = threading.Condition()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(f"\0{self.address.removeprefix('unix:')}")
        self._socket.listen()
        self._accepting = start_thread("rendezvous", self._accept, self._broken)

    def put(self, key: str, value: Any) -> None:
        with self._changed:
            self._values[key] = value
            for stream in self._streams:
                if key in stream.asked:
                    stream.asked.remove(key)
                    stream.send({"key": key, "value": value})
            self._changed.notify_all()

    def get(self, key: str, timeout: float) -> Any:
        deadline = time.monotonic() + timeout
        with self._changed:
            while key not in self._values:
                if self._lost:
                    raise RunFailedError(
                        f"{self._lost[0]} while rank 0 waited for {plain_key(key)}", "see the session's engine.log"
                    )
                if not self._changed.wait(deadline - time.monotonic()):
                    raise late(key, timeout)
            return self._values[key]

    def take(self, key: str, timeout: float) -> Any:
        with self._changed:
            value = self.get(key, timeout)
            del self._values[key]
            return value

    @property
    def lost(self) -> str | None:
        return self._lost[0] if self._lost else None

    def lose(self, who: str) -> None:
        with self._changed:
            self._lost.append(who)
            for stream in self._streams:
                stream.send({"lost": who})
            self._changed.notify_all()
        for told in self._on_loss:
            told(who)

    def on_loss(self, told: Callable[[str], None]) -> None:
        """Have every later loss reported to `told`, which gets the same words as `lose`."""
        self._on_loss.append(told)

    def attach(self, reading: int, writing: int, who: str, cut: Callable[[], object], close: Callable[[], object],
               signing: SignedLines | None = None) -> None:  # fmt: skip
        """Serve a rank over two descriptors, which may be one socket's, in threads of their own.

        Args:
            who: The rank, as its loss is reported.
            cut: Called once the rank's end of file was read; makes a write that blocks fail (a socket's shutdown).
            close: Called when the descriptors aren't used any more.
            signing: Signs and checks the lines, where others could write into the connection.
        """
        stream = RankStream(reading, writing, who, attached=True, signing=signing)
        start_thread("rendezvous-rank", functools.partial(self._serve, stream, cut, close), self._broken)

    def leave(self) -> None:
        """Accept no more connections, and end the thread that does."""
        _shut(self._socket)  # closing alone would not wake the thread
        self._accepting.join()
        self._socket.close()
        with self._changed:
            for stream in self._streams:
                stream.end()
        # The process may end right after this, and the last message to a rank is the request to end well.
        for stream in self._streams:
            stream.flush(FLUSH_SECONDS)

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
            stream = RankStream(connection.fileno(), connection.fileno(), "a rank", attached=False)
            cut = functools.partial(_shut, connection)
            start_thread("rendezvous-rank", functools.partial(self._serve, stream, cut, connection.close), self._broken)

    def _serve(self, stream: RankStream, cut: Callable[[], object], close: Callable[[], object]) -> None:
        with self._changed:
            self._streams.append(stream)
        writing = start_thread("rendezvous-writer", stream.write, self._broken)
        try:
            stream.read(lambda message: self._take(stream, message))
        finally:
            with self._changed:
                self._streams.remove(stream)
                self._changed.notify_all()
            stream.end()
            cut()
            writing.join()
            close()
        if not stream.parted:
            time.sleep(_END_SEEN_S)  # the process that started the rank reports its exit status
            if self.lost is None:
                self.lose(f"{stream.who} closed its connection")

    def _take(self, stream: RankStream, message: dict[str, Any]) -> None:
        if not stream.attached:
            stream.who = message.get("who", stream.who)
        stream.parted = "bye" in message
        if "put" in message:
            self.put(message["put"], message["value"])
        elif "lose" in message:
            self.lose(message["lose"])
        elif "get" in message:
            self._answer(stream, message["get"])

    def _answer(self, stream: RankStream, key: str) -> None:
        with self._changed:
            if key in self._values:
                stream.send({"key": key, "value": self._values[key]})
            elif self._lost:
                stream.send({"lost": self._lost[0]})
            else:
                stream.asked.add(key)


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


class LateError(KvdeckError):
    """A key did not arrive in time."""


def late(key: str, timeout: float) -> LateError:
    """Return the error of a key that did not arrive within `timeout` seconds."""
    return LateError(f"{plain_key(key)} did not arrive within {number_text(timeout)} s", "see engine.log")


def plain_key(key: str) -> str:
    """Return a readable form of a key: `answer/RANK/3` becomes `the answer of RANK`."""
    kind, _, rest = key.partition("/")
    return f"the {kind} of {rest.rpartition('/')[0]}" if kind in ("answer", "call") else key


class JoinedBoard(Board):
    """Rendezvous server that ranks on other hosts join."""

    def __init__(self) -> None:
        super().__init__()
        self.present: dict[int, dict[str, Any]] = {}
        """What each other rank said of itself: `host`, `pid`, `at` and more."""

    def wait_for(self, world: int, timeout: float) -> bool:
        """Wait until all other ranks of `world` are there; False after `timeout` seconds.

        Raises:
            RunFailedError: One is lost already.
        """
        with self._changed:
            self._changed.wait_for(lambda: len(self.present) >= world - 1 or self.lost, timeout)
            if self.lost is not None:
                raise RunFailedError(self.lost)
            return len(self.present) >= world - 1
