"""One client's connection in the engine: its commands, and the messages it receives at its own pace.

The engine stores a cursor per client and sends from it when the socket accepts more. So the engine never waits for a
client, a slow client costs no memory, and no event is lost: lines that have left memory are read from the file.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from kvdeck.engine.daemon.stream import RunStream, StreamLine, to_line
from kvdeck.engine.daemon.watcher import Watcher
from kvdeck.engine.protocol import Command, FromEngine, Goodbye, MessageError, Reply, decode, encode
from kvdeck.engine.tasks import BaseExceptionGroup, TaskGroup, first_of
from kvdeck.sessions.errors import KvdeckError, UsageError
from kvdeck.sessions.store.event_log import LineReader

WRITE_AHEAD = 64 * 1024
"""Bytes buffered for a client's socket before the engine pauses sending to it."""
AT_ONCE = 256
"""Lines sent to a client without `hz` before the socket's buffer is checked again."""
WAITING_REPLIES = 64
HISTORY_BYTES = 64 * 1024
MOST_WATCHERS = 16
"""Telemetry requests of one client at a time."""

log = logging.getLogger("kvdeck.engine")


@dataclass(slots=True)
class Following:
    """A client's subscription to a run: cursor, rate and samples dropped."""

    feed: RunStream
    cursor: int
    """Seq of the next line to send."""
    live_from: int
    """Seq of the first live line; earlier lines are history, sent completely."""
    hz: float
    reader: LineReader
    next_sample: float = 0.0
    """Loop time in seconds before which no further sample is sent."""
    missed: int = 0
    """Samples dropped since the last one sent."""

    def take(self, samples: list[StreamLine], now: float) -> bytes:
        """Return the newest sample of each step as messages; count the others as missed."""
        newest = sorted({line.step: line for line in samples}.values())
        missed, self.missed = self.missed + len(samples) - len(newest), 0
        if self.hz > 0:
            # Aligned to a grid that all clients share, so that clients with the same rate share one wake-up.
            self.next_sample = (now * self.hz // 1 + 1) / self.hz
        return newest[0].encode(missed) + b"".join(line.encode(0) for line in newest[1:])


class Topic:
    """A state that each subscriber receives as one whole message, after `subscribe` and after each change.

    Args:
        message: Returns the state now.
        connections: All clients; the collection is read at each change.
    """

    def __init__(self, message: Callable[[], FromEngine], connections: Iterable[Connection]) -> None:
        self._message, self._connections = message, connections
        self._line: bytes | None = None

    def changed(self) -> None:
        """Send the new state to every subscriber, as soon as its socket accepts it."""
        self._line = None
        for connection in self._connections:
            connection.send_topic(self)

    def line(self) -> bytes:
        """Return the encoded message, cached until the next change."""
        if self._line is None:
            self._line = encode(self._message())
        return self._line


class Connection:
    """A connected client.

    Args:
        answer: Executes a command and returns its reply.
        topics: The states that the client receives once it subscribes, in the order in which they are sent.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        answer: Callable[[Connection, Command], Awaitable[Reply]],
        topics: Iterable[Topic],
    ) -> None:
        self._reader, self._writer, self._answer, self._topics = reader, writer, answer, topics
        self.readonly = False
        self._subscribed = False
        self._due: dict[Topic, None] = {}
        self._following: Following | None = None
        self._leaving = False
        self._watchers: dict[int, Watcher] = {}
        self._replies: deque[bytes] = deque()
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        writer.transport.set_write_buffer_limits(high=WRITE_AHEAD)

    async def serve(self, hello: FromEngine) -> None:
        """Send `hello`, then serve the client until it disconnects or `leave` is called."""
        self._writer.write(encode(hello))
        try:
            async with TaskGroup() as tasks:
                both = [tasks.create_task(self._write()), tasks.create_task(self._read())]
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                for task in both:
                    task.cancel()
        except BaseExceptionGroup as failures:
            error = first_of(failures)
            if not isinstance(error, OSError):
                log.error("a client's connection failed", exc_info=error)
        finally:
            self.unfollow()
            self._writer.close()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()

    def subscribe(self, following: Following | None, readonly: bool) -> None:
        """Send the topics from now on and, if given, a run's lines; replaces the previous subscription."""
        self.unfollow()
        self.readonly = self.readonly or readonly
        self._subscribed = True
        self._following = following
        if following is not None:
            following.feed.listeners.add(self._on_lines)
        for topic in self._topics:
            self.send_topic(topic)

    def unfollow(self) -> None:
        if self._following is not None:
            self._following.feed.listeners.discard(self._on_lines)
        self._following = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def send_topic(self, topic: Topic) -> None:
        """Send the topic's state, if subscribed, once the socket accepts it."""
        if self._subscribed:
            self._due[topic] = None
            self._wake.set()

    def watcher(self, request: int) -> Watcher:
        """Return the client's telemetry request of that number, a new one if there is none.

        Raises:
            UsageError: The client has `MOST_WATCHERS` others.
        """
        if request not in self._watchers:
            if len(self._watchers) >= MOST_WATCHERS:
                raise UsageError(f"a client can't have more than {MOST_WATCHERS} telemetry requests", "end one")
            self._watchers[request] = Watcher(request, self._wake.set)
        return self._watchers[request]

    def unwatch(self, request: int) -> None:
        """Forget a telemetry request, with what was not sent yet."""
        self._watchers.pop(request, None)

    @property
    def watchers(self) -> tuple[Watcher, ...]:
        """The client's telemetry requests."""
        return tuple(self._watchers.values())

    def leave(self, reason: str) -> None:
        """Close the connection after the due messages and a `goodbye` with the reason."""
        self._leaving = True
        self._replies.append(encode(Goodbye(reason)))
        self._wake.set()

    # --- commands from the client ---

    async def _read(self) -> None:
        while True:
            try:
                line = await self._reader.readline()
            except ValueError:
                self._writer.write(encode(Reply(0, False, error="a command's line is too long", exit_code=2)))
                return
            if not line.endswith(b"\n"):
                return
            await self._obey(line)

    async def _obey(self, line: bytes) -> None:
        reply = await self._reply(line)
        if reply is None:
            return
        self._replies.append(encode(reply))
        self._wake.set()
        # A client that sends commands and reads no replies isn't read any more: its replies would fill the memory.
        while len(self._replies) >= WAITING_REPLIES:
            self._room.clear()
            await self._room.wait()

    async def _reply(self, line: bytes) -> Reply | None:
        try:
            message = decode(line)
        except MessageError as error:
            return Reply(error.id, False, error=f"not a command: {error}", exit_code=2)
        if not isinstance(message, Command):
            return None
        try:
            return await self._answer(self, message)
        except KvdeckError as error:
            return _refusal(message.id, error)
        except Exception:
            # A command must not end the engine or other clients' runs.
            log.exception("%s failed", message.type)
            return _refusal(message.id, KvdeckError(f"{message.type} failed in the engine", "see `kvdeck engine log`"))

    # --- messages to the client ---

    async def _write(self) -> None:
        while not self._leaving:
            await self._wake.wait()
            self._wake.clear()
            more = True
            while more:
                more = await self._send()
                await self._writer.drain()

    async def _send(self) -> bool:
        """Write some of the due messages; return True if more are due."""
        while self._replies:
            self._writer.write(self._replies.popleft())
        self._room.set()
        due, self._due = self._due, {}
        for topic in due:
            self._writer.write(topic.line())
        lines = [line for watcher in self.watchers if (line := watcher.take()) is not None]
        if lines:
            self._writer.writelines(lines)
            return True
        following = self._following
        if following is None or following.cursor >= following.feed.next_seq:
            return False
        if following.cursor < max(following.live_from, following.feed.first_kept):
            await self._send_from_file(following)
            return True
        return self._send_live(following)

    async def _send_from_file(self, following: Following) -> None:
        """Send a batch of lines from the file: history completely, live lines that left memory without samples."""
        if following.reader.seq > following.cursor:
            following.reader = LineReader(following.feed.path)
        following.reader.skip_to(following.cursor)
        batch = await asyncio.to_thread(following.reader.read, HISTORY_BYTES)
        if following is not self._following:
            return
        whole = following.cursor < following.live_from
        end = following.live_from if whole else following.feed.next_seq
        lines = [to_line(following.feed.session, seq, raw) for seq, raw in batch if seq < end]
        if not lines:  # the file was truncated: its lines will not come back
            following.cursor = max(following.live_from, following.feed.first_kept)
            return
        following.cursor = lines[-1].seq + 1
        if not whole:
            following.missed += sum(line.is_sample for line in lines)
            lines = [line for line in lines if line.kind == "event"]
        self._writer.write(b"".join(line.encode(0) for line in lines))

    def _send_live(self, following: Following) -> bool:
        lines = following.feed.since(following.cursor)
        now = asyncio.get_running_loop().time()
        if following.hz <= 0:
            lines = lines[:AT_ONCE]
            out = [following.take([line], now) if line.is_sample else line.encode(0) for line in lines]
            following.cursor = lines[-1].seq + 1
        else:
            out = thin(following, lines, now)
            self._set_timer(following)
        self._writer.write(b"".join(out))
        return following.hz <= 0 and following.cursor < following.feed.next_seq

    def _set_timer(self, following: Following) -> None:
        """Wake up when the next pending sample is due."""
        if following.hz <= 0 or following.cursor >= following.feed.next_seq or self._timer is not None:
            return
        self._timer = asyncio.get_running_loop().call_at(following.next_sample, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        self._wake.set()

    def _on_lines(self, urgent: bool) -> None:
        following = self._following
        if following is None:
            return
        if urgent or asyncio.get_running_loop().time() >= following.next_sample:
            self._wake.set()
        else:
            self._set_timer(following)


def thin(following: Following, lines: list[StreamLine], now: float) -> list[bytes]:
    """Return messages for live lines: every event, and the newest samples before each event and, if due, at the end.

    "Newest" is per step, since interleaved steps alternate. Samples at the end that aren't due are left for the next
    call: the cursor stops before them. Reference rounds are dropped: the samples' `reference_gb_per_s` covers them.
    """
    out: list[bytes] = []
    samples: list[StreamLine] = []
    for line in lines:
        if line.kind == "sample":
            samples.append(line)
        elif line.kind == "event":
            if samples:
                out.append(following.take(samples, now))
                samples = []
            out.append(line.encode(0))
    following.cursor = lines[-1].seq + 1
    if samples and now >= following.next_sample:
        out.append(following.take(samples, now))
    elif samples:
        following.cursor = samples[0].seq
    return out


def _refusal(number: int, error: KvdeckError) -> Reply:
    return Reply(number, False, error=error.what, fix=error.fix, mend=error.fix, exit_code=error.exit_code)
