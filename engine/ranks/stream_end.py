"""Process at the far end of a TCP stream that transfers are compared with: it takes the bytes, or gives as many."""

from __future__ import annotations

import contextlib
import socket

from kvdeck.engine.io import memory
from kvdeck.engine.io.exit import run_and_exit
from kvdeck.engine.ranks.rpc import serve
from kvdeck.engine.ranks.seat import take_seat
from kvdeck.engine.ranks.sockets import notice_a_dead_host
from kvdeck.engine.ranks.tcp_stream import ACKNOWLEDGED, CONNECT_SECONDS, HEADER, receive_all
from kvdeck.engine.threads import start_thread
from kvdeck.sessions.errors import KvdeckError

_MOST_MEMORY = 256 << 20
"""Of the bytes of one connection, in turn: more than a last-level cache, so that no rate comes from it."""


class StreamEnd:
    """Served object: its connections, each moved by a thread of its own."""

    busy = False

    def __init__(self) -> None:
        self._connections: list[socket.socket] = []
        self._buffers: list[memory.HostBuffer] = []

    def connect(self, address: str, port: int, token: str, write: bool, size: int) -> None:
        """Connect with an initiator that listens for the token.

        Args:
            write: The initiator sends; otherwise it receives.
            size: Bytes of its working set.

        Raises:
            KvdeckError: It can't be reached.
        """
        try:
            connection = socket.create_connection((address, port), CONNECT_SECONDS)
            connection.sendall(token.encode())
            connection.settimeout(None)
            notice_a_dead_host(connection, 60)
        except OSError as error:
            raise KvdeckError(f"{address} can't be reached on port {port}: {error}") from error
        buffer = memory.allocate(min(size, _MOST_MEMORY))
        self._connections.append(connection)
        self._buffers.append(buffer)
        number = len(self._connections)
        start_thread(
            f"stream-{number}", lambda: move_messages(connection, buffer.array.data, write=write), lambda _: None
        )

    def poll(self) -> None:
        """Nothing to do between calls."""

    def close(self) -> None:
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)  # ends its thread, which close() alone would not
            connection.close()


def move_messages(connection: socket.socket, buffer: memoryview, *, write: bool) -> None:
    """Take messages and acknowledge them, or give those that are asked for, until the connection ends."""
    header = memoryview(bytearray(HEADER.size))
    place = 0
    try:
        while True:
            receive_all(connection, header)
            (left,) = HEADER.unpack(header)
            while left:
                piece = buffer[place : place + min(left, len(buffer) - place)]
                if write:
                    receive_all(connection, piece)
                else:
                    connection.sendall(piece)
                left -= len(piece)
                place = (place + len(piece)) % len(buffer)
            if write:
                connection.sendall(ACKNOWLEDGED)
    except OSError:
        return  # the initiator has ended it, or says itself what is wrong


def main() -> None:
    seat, rank = take_seat()
    served = StreamEnd()
    serve(seat, rank, served)
    seat.leave()


if __name__ == "__main__":
    run_and_exit(main)
