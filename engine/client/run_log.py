"""The log of a run as its engine sends it, and the file's lines before it: `LogSource` for threads and for asyncio.

FileLog(path)                        what the file holds (`sessions.store.event_log`)
SocketLog(client, session)           the engine's lines, from any line on, until the run ends
JoinedLog(FileLog(…), SocketLog(…))  file, then socket
follow(path, session, subscribe)     file, then socket, in an event loop
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from kvdeck.engine.protocol import EventMessage, FromEngine, SampleMessage
from kvdeck.sessions.model.events import COUNTER_INDEX, Event, Round, convert_event
from kvdeck.sessions.model.run_state import LogEntry
from kvdeck.sessions.store.event_log import LineReader, LogSource, entry_of_line

if TYPE_CHECKING:
    from kvdeck.engine.client.client import Client

LOOK_S = 0.2
"""Seconds between two calls of `going` while no message arrives."""


def entry_of(message: EventMessage | SampleMessage) -> LogEntry:
    """Return the line of a message. A sample is a round without the times of its requests."""
    if isinstance(message, SampleMessage):
        return LogEntry(message.seq, _round_of(message), message.missed)
    return LogEntry(message.seq, convert_event(message.event))


def _round_of(message: SampleMessage) -> Event | None:
    """Return a sample's round; None if its counters name no step."""
    step, number, busy = (_whole(message.values, name) for name in ("step", "round", "busy_ns"))
    return None if step is None else Round(message.t, step, number or 0, (), (), busy or 0, message.values)


def _whole(values: tuple[float | None, ...], counter: str) -> int | None:
    index = COUNTER_INDEX[counter]
    value = values[index] if len(values) > index else None
    return None if value is None else int(value)


class Cursor:
    """Picks one run's lines out of the engine's messages: each line once, in order. Does no I/O.

    Args:
        session: The run.
        from_seq: Number of the first line wanted.
    """

    def __init__(self, session: str, from_seq: int = 0) -> None:
        self.session = session
        self.next_seq = from_seq
        """Number of the next line: where to subscribe from after the connection was lost."""

    def take(self, message: FromEngine) -> LogEntry | None:
        """Return the line in a message; None if it holds none, one of another run, or one already returned."""
        if not isinstance(message, (EventMessage, SampleMessage)):
            return None
        if message.session != self.session or message.seq < self.next_seq:
            return None
        self.next_seq = message.seq + 1
        return entry_of(message)


class SocketLog:
    """The engine's lines of a run: those in the file, then live ones, until the run ends.

    Rounds hold counters, but no times of single requests.

    Args:
        client: The connection; `follow` replaces its subscription and takes all its messages.
        session: The run.
        hz: Live samples per second and step; 0 for all of them. Other lines are complete.
        going: Called at least every `LOOK_S` seconds; false ends the iteration.
        other: Called with each message that is not a line of the run.
    """

    def __init__(
        self,
        client: Client,
        session: str,
        hz: float = 10.0,
        *,
        going: Callable[[], bool] | None = None,
        other: Callable[[FromEngine], None] | None = None,
    ) -> None:
        self._client, self._session, self._hz = client, session, hz
        self._going, self._other = going, other

    def follow(self, from_seq: int = 0) -> Iterator[LogEntry]:
        """Yield the lines from `from_seq` on, until the run ends or the client is closed.

        Raises:
            EngineGone: The engine has gone; another source can continue after the last line.
        """
        cursor = Cursor(self._session, from_seq)
        self._client.subscribe(self._session, from_seq, self._hz)
        while self._going is None or self._going():
            message = self._client.receive(None if self._going is None else LOOK_S)
            if message is None:
                if self._client.closed:
                    return
                continue
            entry = cursor.take(message)
            if entry is not None:
                yield entry
                if entry.ends:
                    return
            elif self._other is not None:
                self._other(message)


class JoinedLog:
    """Several sources of one run's lines, one after the other, each from the line at which the one before ended."""

    def __init__(self, *sources: LogSource) -> None:
        self._sources = sources

    def follow(self, from_seq: int = 0) -> Iterator[LogEntry]:
        """Yield every line from `from_seq` on once, until the run ends; raises what a source raises."""
        for source in self._sources:
            for entry in source.follow(from_seq):
                if entry.seq < from_seq:
                    continue
                from_seq = entry.seq + 1
                yield entry
                if entry.ends:
                    return


async def follow(
    path: Path,
    session: str,
    subscribe: Callable[[int], Awaitable[AsyncIterable[FromEngine]]],
    from_seq: int = 0,
) -> AsyncIterator[LogEntry]:
    """Yield a run's lines as `JoinedLog` does, in an event loop: those in the file, then the engine's.

    Args:
        path: The run's `samples.jsonl`; read in another thread.
        session: The run.
        subscribe: Subscribes to the run from a line on, and returns the engine's messages. They may hold other
            messages, and repeat lines.
        from_seq: Number of the first line wanted.

    Raises:
        SessionError: The file exists but can't be read.
    """
    reader, cursor = LineReader(path, from_seq), Cursor(session, from_seq)
    while batch := await asyncio.to_thread(reader.read):
        for seq, raw in batch:
            entry = entry_of_line(seq, raw)
            cursor.next_seq = seq + 1
            yield entry
            if entry.ends:
                return
    async for message in await subscribe(cursor.next_seq):
        found = cursor.take(message)
        if found is not None:
            yield found
            if found.ends:
                return
