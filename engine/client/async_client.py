"""The asyncio client that the deck uses: it awaits replies, and yields the other messages as they arrive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from kvdeck.engine import protocol
from kvdeck.engine.client.client import REPLY_SECONDS, Client, checked, encoded, gone
from kvdeck.engine.protocol import Command, FromEngine, Goodbye, Reply

READ_BYTES = 1 << 18
SLICE_S = 0.005
"""Longest time in s that messages are handled without giving other tasks a turn."""


class AsyncClient:
    """A connection to the engine, taken over from a connected `Client`. Replies arrive while `messages` is iterated."""

    def __init__(self, client: Client) -> None:
        self.hello, self.home = client.hello, client.home
        self.farewell = ""
        """Reason in the engine's `goodbye`; empty if it sent none."""
        self._socket, self._first, self._lines = client.hand_over()
        self._socket.setblocking(False)
        self._sending = asyncio.Lock()
        self._replies: dict[int, asyncio.Future[Reply]] = {}
        self._last_id = 0
        self._closed = False

    def close(self) -> None:
        """Close the connection; requests in flight raise EngineGone. The engine and its runs continue."""
        if not self._closed:
            self._closed = True
            self._socket.close()
        for future in self._replies.values():
            if not future.done():
                future.set_exception(gone(self.farewell))
                future.exception()  # asyncio would log an exception that no task awaits any more

    async def request(self, command: Command, timeout: float = REPLY_SECONDS) -> Reply:
        """Send a command with a new id and return its reply.

        Raises:
            EngineError: The engine refused the command, ended, or doesn't reply within `timeout` seconds.
            UsageError: The engine rejected the command as invalid.
        """
        if self._closed:
            raise gone(self.farewell)
        loop = asyncio.get_running_loop()
        self._last_id += 1
        number = self._last_id
        future = self._replies[number] = loop.create_future()
        try:
            # One line at a time: `sock_sendall` of two tasks may interleave on a full socket.
            async with self._sending:
                await loop.sock_sendall(self._socket, encoded(command, number))
            reply = await asyncio.wait_for(future, timeout)
        except asyncio.TimeoutError:
            return checked(None, command, self.home)
        except OSError as error:
            raise gone(self.farewell) from error
        finally:
            del self._replies[number]
        return checked(reply, command, self.home)

    async def messages(self) -> AsyncIterator[FromEngine]:
        """Yield each message other than a reply; gives other tasks a turn at least every `SLICE_S` seconds.

        Raises:
            EngineGone: The engine ended or closed the connection.
        """
        for message in self._first:
            yield message
        loop = asyncio.get_running_loop()
        while True:
            try:
                data = await loop.sock_recv(self._socket, READ_BYTES)
            except OSError:
                data = b""
            if not data:
                raise gone(self.farewell)
            began = loop.time()
            for line in self._lines.take(data):
                if (decoded := self._decoded(line)) is not None:
                    yield decoded
                # A long history arrives at once; keys and painting must not wait for its end.
                if loop.time() - began > SLICE_S:
                    await asyncio.sleep(0)
                    began = loop.time()

    def _decoded(self, line: bytes) -> FromEngine | None:
        """Return the line's message; None if it is unknown, or a reply, which goes to who sent the command."""
        try:
            message = protocol.decode(line)
        except ValueError:
            return None
        if isinstance(message, Goodbye):
            self.farewell = message.reason
        elif isinstance(message, Reply):
            future = self._replies.get(message.id)
            if future is not None and not future.done():
                future.set_result(message)
        elif isinstance(message, FromEngine):
            return message
        return None
