"""Reference between hosts: the same bytes, from and to the same memory here, as a plain TCP stream.

The initiator's host listens, on the interface that UCX takes, until the processes on the peers have connected and shown
the token that they were given over the run's own rendezvous. A group of blocks is one message of that size; it ends
when the other end has all of it.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hmac
import secrets
import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from kvdeck.engine.ranks.sockets import notice_a_dead_host
from kvdeck.sessions.errors import KvdeckError, UnavailableError
from kvdeck.sessions.model.references import TCP_STREAM

CONNECT_SECONDS = 5.0
"""Time for a peer to connect, and for what connects to show the token."""
TOKEN_BYTES = 32
HEADER = struct.Struct("<Q")
"""Length in bytes of the message that follows it, or that it asks for."""
ACKNOWLEDGED = b"\x06"
_PIECE = 256 << 10
"""Bytes that go to or come from one of several peers at a time, so that all are kept busy."""
_SIOCGIFADDR = 0x8915

Rows = npt.NDArray[np.uint64]


class StreamListener:
    """Listening sockets of one initiator: one for each of its targets, each for one connection."""

    def __init__(self, transports: Sequence[str]) -> None:
        """`transports`: what UCX takes for each target, such as `tcp/eth1`.

        Raises:
            UnavailableError: UCX does not take TCP, or an interface has no IPv4 address.
        """
        self._token = secrets.token_hex(TOKEN_BYTES // 2)
        self._sockets: list[socket.socket] = []
        try:
            for transport in transports:
                listening = socket.create_server((address_of(_device(transport)), 0), backlog=8)
                self._sockets.append(listening)
        except BaseException:
            self.close()
            raise

    def places(self) -> list[dict[str, Any]]:
        """Return the arguments of `StreamEnd.connect` for each target."""
        return [
            {"address": address, "port": port, "token": self._token}
            for address, port in (listening.getsockname() for listening in self._sockets)
        ]

    def accept(self) -> list[socket.socket]:
        """Return the connection of each target, and stop listening; others that connect are dropped.

        Raises:
            UnavailableError: A target didn't connect in time.
        """
        taken: list[socket.socket] = []
        try:
            for listening in self._sockets:
                taken.append(_accepted(listening, self._token.encode()))
        except BaseException:
            for connection in taken:
                connection.close()
            raise
        finally:
            self.close()
        return taken

    def close(self) -> None:
        for listening in self._sockets:
            listening.close()
        self._sockets.clear()


def _accepted(listening: socket.socket, token: bytes) -> socket.socket:
    deadline = time.monotonic() + CONNECT_SECONDS
    while (left := deadline - time.monotonic()) > 0:
        listening.settimeout(left)
        try:
            connection, _ = listening.accept()
        except TimeoutError:
            break
        connection.settimeout(min(left, 1.0))
        shown = b""
        with contextlib.suppress(OSError):
            shown = connection.recv(TOKEN_BYTES, socket.MSG_WAITALL)
        if hmac.compare_digest(shown, token):
            return connection
        connection.close()
    raise UnavailableError("the peer did not connect", "open its way to this host's ports, or --no-reference")


def _device(transport: str) -> str:
    """Return the network device of a transport by TCP.

    Raises:
        UnavailableError: The bytes don't go by TCP to another host.
    """
    first = transport.split()[0] if transport else ""
    if not first.startswith("tcp/") or "within" in transport:
        raise UnavailableError(
            f"the bytes go over {transport or 'an unknown transport'}, for which there is no plain means",
            "compare with the link's bound",
        )
    return first.removeprefix("tcp/")


def address_of(device: str) -> str:
    """Return the IPv4 address of a network device of this host.

    Raises:
        UnavailableError: It has none.
    """
    request = struct.pack("256s", device.encode()[:15])
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
            answer = fcntl.ioctl(asked.fileno(), _SIOCGIFADDR, request)
    except OSError as error:
        raise UnavailableError(f"{device} has no IPv4 address", "give it one, or --no-reference") from error
    return socket.inet_ntoa(answer[20:24])


class TcpStream:
    """The initiator's end: each group of blocks goes to, or comes from, its targets in equal parts."""

    name = TCP_STREAM
    target_core = False

    def __init__(self, connections: Sequence[socket.socket], rows: Rows, patience_s: float, *, write: bool) -> None:
        """`rows`: address and size of each block here; `patience_s`: time for one piece to be taken or to come."""
        self._connections, self._rows, self._write = list(connections), rows, write
        for connection in self._connections:
            notice_a_dead_host(connection, max(1, int(patience_s)))
            connection.settimeout(patience_s)

    def plan(self, blocks: Sequence[int], group: int) -> Callable[[], None]:
        """Return a function that moves blocks, `group` of them in one message to each target.

        It raises KvdeckError if the connection ends, or brings nothing in time.
        """
        messages = [self._parts(blocks[at : at + group]) for at in range(0, len(blocks), group)]
        move = self._send if self._write else self._receive

        def run() -> None:
            try:
                for parts in messages:
                    move(parts)
            except OSError as error:
                raise KvdeckError(f"the TCP stream failed: {error}", "check the link and the peer") from error

        return run

    def _parts(self, blocks: Sequence[int]) -> list[list[memoryview]]:
        """Return the memory of each target's part of a message, in pieces."""
        count = len(self._connections)
        each = -(-len(blocks) // count)
        return [
            [piece for span in _merged(self._rows[list(blocks[at : at + each])]) for piece in _pieces(span, count)]
            for at in range(0, each * count, each)
        ]

    def _send(self, parts: list[list[memoryview]]) -> None:
        for connection, pieces in zip(self._connections, parts, strict=True):
            connection.sendall(HEADER.pack(sum(map(len, pieces))))
        for turn in range(max(map(len, parts))):
            for connection, pieces in zip(self._connections, parts, strict=True):
                if turn < len(pieces):
                    connection.sendall(pieces[turn])
        for connection in self._connections:
            if connection.recv(1) != ACKNOWLEDGED:
                raise ConnectionResetError("the peer ended it")

    def _receive(self, parts: list[list[memoryview]]) -> None:
        for connection, pieces in zip(self._connections, parts, strict=True):
            connection.sendall(HEADER.pack(sum(map(len, pieces))))
        for turn in range(max(map(len, parts))):
            for connection, pieces in zip(self._connections, parts, strict=True):
                if turn < len(pieces):
                    receive_all(connection, pieces[turn])

    def close(self) -> None:
        for connection in self._connections:
            connection.close()


def receive_all(connection: socket.socket, into: memoryview) -> None:
    """Fill memory from a connection.

    Raises:
        ConnectionResetError: It ended before.
    """
    at = 0
    while at < len(into):
        count = connection.recv_into(into[at:])
        if not count:
            raise ConnectionResetError("the peer ended it")
        at += count


def _merged(rows: Rows) -> list[tuple[int, int]]:
    """Return address and size of each stretch of memory that rows of blocks make together."""
    spans: list[tuple[int, int]] = []
    for address, size in rows[:, :2].tolist():
        if spans and sum(spans[-1]) == address:
            spans[-1] = (spans[-1][0], spans[-1][1] + size)
        else:
            spans.append((address, size))
    return spans


def _pieces(span: tuple[int, int], targets: int) -> list[memoryview]:
    """Return the memory of a stretch: whole for one target, else in pieces."""
    address, size = span
    whole = memoryview((ctypes.c_char * size).from_address(address)).cast("B")
    step = size if targets == 1 else _PIECE
    return [whole[at : at + step] for at in range(0, size, step)]
