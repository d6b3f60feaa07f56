"""The deck's connection to the engine: it reconnects, follows one run, and posts the engine's state and samples."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import zlib
from base64 import b64decode
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import orjson
from textual.message import Message

from kvdeck.app.tui.errors import error_text
from kvdeck.app.tui.messages import EngineChanged, PastSampled, RecordingsSeen, TelemetrySampled
from kvdeck.app.tui.state import EngineState
from kvdeck.app.tui.threads import in_thread
from kvdeck.engine.client.async_client import AsyncClient
from kvdeck.engine.client.client import Client, EngineGone
from kvdeck.engine.client.run_log import entry_of
from kvdeck.engine.protocol import (
    EventMessage,
    FromEngine,
    RecordingsChanged,
    RecordingState,
    RunInfo,
    RunsChanged,
    SampleMessage,
    Subscribe,
    WatchPast,
    WatchSample,
    WatchTelemetry,
)
from kvdeck.engine.telemetry.sample import Snapshot as Sample
from kvdeck.engine.telemetry.sample import from_mapping
from kvdeck.sessions.errors import EngineError, KvdeckError
from kvdeck.sessions.host.documents import load_record
from kvdeck.sessions.model.records import FINAL_STATES
from kvdeck.sessions.model.run_state import RunState, advance

STEP_S = 1.0
"""Seconds of which the Monitor's history keeps one sample."""
Post = Callable[[Message], object]

TICK_S = 0.5
"""Minimum time between two states of the engine, in s."""
SAMPLES_HZ = 5.0
"""Samples per second and step. Counters are cumulative, so dropping samples keeps rates exact."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.25, 2.0
"""Time between two attempts to connect, in s: doubled after each that fails."""


def followed(runs: tuple[RunInfo, ...], run: RunState | None, wanted: str | None) -> str | None:
    """Return the session to follow: the requested one, else the running one, else the current run, else the first
    queued one.

    None if there is no run.
    """
    if wanted is not None:
        return wanted
    known = {info.session for info in runs}
    if run is not None and run.state == "running" and run.session in known:
        return run.session
    running = next((info.session for info in runs if info.state == "running"), None)
    if running is not None:
        return running
    if run is not None:
        return run.session
    return next((info.session for info in runs if info.state == "queued"), None)


@dataclass(frozen=True, slots=True)
class TelemetryRequest:
    """A telemetry subscription; `sources` in the format of `kvdeck monitor --source`."""

    sources: tuple[str, ...]
    hz: float = 1.0
    block_bytes: float | None = None
    pins: tuple[str, ...] = ()
    stuck_s: float | None = None
    limits: tuple[tuple[str, float], ...] = ()
    """Limits of the checks that differ from the default, by name."""
    quiet: bool = False
    """True to let the engine sample without sending samples."""

    def command(self, after_ns: int | None = None, number: int = 0) -> WatchTelemetry:
        """Return the command; `after_ns` is the monotonic time after which past samples are sent too."""
        watched = self.hz, self.sources, self.block_bytes, self.pins, self.stuck_s
        limits = dict(self.limits) or None
        return WatchTelemetry(0, *watched, None if self.quiet else after_ns, self.quiet, number, limits)


@dataclass(slots=True)
class Telemetry:
    """A subscription, and where its samples are posted."""

    request: TelemetryRequest
    post: Post


def _past(message: WatchPast, pins: tuple[str, ...]) -> PastSampled:
    """Return a past sample with what the history needs of it, flows and pins, or whole if it is the newest.

    Raises:
        EngineError: It can't be read.
    """
    try:
        packed = b64decode(message.packed, validate=True)
        data = load_record(zlib.decompress(packed))
    except (ValueError, zlib.error) as error:
        what = f"a past sample can't be read: {error}"
        raise EngineError(what, "restart the engine: `kvdeck engine stop`") from error
    if message.left:
        pinned = [row for row in (*data["counters"], *data["gauges"]) if row["name"] in pins] if pins else []
        data = {**data, "counters": pinned, "gauges": []}
    return PastSampled(from_mapping(data), packed, message.left)


class EngineConnection:
    """One connection to the engine, kept up by `run`. All methods belong to one event loop.

    Args:
        readonly: Never start an engine.
        tick_s: Minimum time between two EngineChanged, in s.
    """

    def __init__(self, *, readonly: bool = False, tick_s: float = TICK_S) -> None:
        self._readonly, self._tick_s = readonly, tick_s
        self._post: Post | None = None
        self.state = EngineState()
        self._client: AsyncClient | None = None
        self._starts = not readonly
        """Whether the next attempt starts an engine. Only the first does, one that a command needs, and one after a
        crash that ended telemetry: an engine that was stopped stays stopped."""
        self._stopped = False
        """Whether the last engine announced that it was stopping."""
        self._waiting: list[asyncio.Future[AsyncClient]] = []
        self._retry, self._runs_changed = asyncio.Event(), asyncio.Event()
        self._wanted: str | None = None
        self._session: str | None = None
        self._last_pid: int | None = None
        self._telemetry: Telemetry | None = None
        self._browsed: dict[int, Telemetry] = {}
        """Further subscriptions, by their numbers."""
        self._numbers = itertools.count(1)
        """Never used twice, since the end of one may reach the engine after the begin of the next."""
        self._sampled_ns = 0
        """Monotonic time of the newest telemetry sample received."""
        self._packed_t = 0.0
        self._recordings: tuple[RecordingState, ...] = ()
        self._published, self._due = EngineState(), 0.0
        self._timer: asyncio.TimerHandle | None = None

    async def run(self, post: Post) -> None:
        """Connect, read, and connect again with back-off, until cancelled. `post` receives EngineChanged."""
        self._post = post
        wait = FIRST_WAIT_S
        while True:
            start, self._starts = self._starts, False
            self._retry.clear()
            waiting, self._waiting = self._waiting, []
            client: AsyncClient | None = None
            try:
                # In a thread: to start an engine takes a second, and a home on a dead disk may block for good.
                client = AsyncClient(await in_thread(partial(Client.connect, start=start), "kvdeck-connect"))
                waiting, self._waiting = [*waiting, *self._waiting], []
                wait = FIRST_WAIT_S
                await self._stream(client, waiting)
            except Exception as error:  # whatever it is, the deck tries again
                self._lost(error, waiting, client)
            finally:
                self._client = None
                if client is not None:
                    client.close()
            if not self._retry.is_set():
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._retry.wait(), wait)
                wait = min(LONGEST_WAIT_S, 2 * wait)

    def _lost(self, error: Exception, waiting: list[asyncio.Future[AsyncClient]], client: AsyncClient | None) -> None:
        text = error_text(error)
        for future in waiting:
            if not future.done():
                future.set_exception(error if isinstance(error, KvdeckError) else KvdeckError(text))
        if client is not None:
            # An engine that crashes sends no goodbye.
            self._stopped = bool(client.farewell)
            self._starts = not (self._readonly or self._stopped or self._telemetry is None)
        if self._telemetry is not None:
            self._telemetry.post(TelemetrySampled(Sample(0.0), text))
        self.state = replace(self.state, connection="lost", detail=text, engine_pid=None)
        self._publish()

    async def connected(self, start: bool = False) -> AsyncClient:
        """Return the client, after the next attempt to connect if there is none.

        Args:
            start: Start an engine if none runs, unless read-only.

        Raises:
            KvdeckError: The attempt fails.
        """
        if self._client is not None:
            return self._client
        self._starts = (self._starts or start) and not self._readonly
        future: asyncio.Future[AsyncClient] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self._retry.set()
        return await future

    # --- what is subscribed to ---

    async def follow(self, session: str) -> None:
        """Follow this run from now on.

        Raises:
            KvdeckError: There is no engine, or it has no such run.
        """
        self._wanted = session
        await self._subscribe(await self.connected())

    async def watch(self, request: TelemetryRequest | None, post: Post) -> None:
        """Post TelemetrySampled and RecordingsSeen to `post` from now on; with None, end the samples."""
        self._telemetry = None if request is None else Telemetry(request, post)
        if self._client is None:
            if request is not None and not self._stopped:
                self._starts = not self._readonly
                self._retry.set()
            return
        try:
            after_ns = self._sampled_ns
            await self._client.request(WatchTelemetry(0, 0.0) if request is None else request.command(after_ns))
        except KvdeckError as error:
            post(TelemetrySampled(Sample(0.0), error_text(error)))
        if request is not None:
            post(RecordingsSeen(self._recordings))

    async def browse(self, request: TelemetryRequest, post: Post) -> None:
        """Post TelemetrySampled to `post` until cancelled, beside what `watch` posts, also after a reconnection."""
        number = next(self._numbers)
        self._browsed[number] = Telemetry(request, post)
        try:
            if self._client is not None:
                with contextlib.suppress(EngineGone):  # sent again by the next connection
                    await self._client.request(request.command(number=number))
            await asyncio.Event().wait()
        finally:
            del self._browsed[number]
            if self._client is not None:
                with contextlib.suppress(KvdeckError):  # a connection that is lost needs no end of it
                    await self._client.request(WatchTelemetry(0, 0.0, request=number))

    async def _subscribe(self, client: AsyncClient) -> None:
        run = self.state.run
        session = followed(self.state.runs, run, self._wanted)
        self._session = session
        from_seq = run.next_seq if run is not None and run.session == session else 0
        try:
            await client.request(Subscribe(0, session, from_seq, SAMPLES_HZ, self._readonly))
        except KvdeckError:
            self._wanted = None  # the requested session may be the one that can't be followed
            raise

    # --- what arrives ---

    async def _stream(self, client: AsyncClient, waiting: list[asyncio.Future[AsyncClient]]) -> None:
        """Subscribe, and fold messages into the state until the connection ends."""
        self._client = client
        pid = client.hello.engine_pid
        again = self._last_pid is not None and self._last_pid != pid
        self._last_pid, self._stopped = pid, False
        restarts = self.state.restarts + again
        self.state = replace(
            self.state, connection="connected", detail="", engine_pid=pid, restarts=restarts, runs=client.hello.runs
        )
        tasks = [asyncio.ensure_future(self._read(client)), asyncio.ensure_future(self._attend(client, waiting))]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def _attend(self, client: AsyncClient, waiting: list[asyncio.Future[AsyncClient]]) -> None:
        """Subscribe, and again whenever another run is to be followed."""
        await self._subscribe(client)
        for future in waiting:
            if not future.done():
                future.set_result(client)
        self._publish()
        if self._telemetry is not None:
            await self.watch(self._telemetry.request, self._telemetry.post)
        for number, browsed in list(self._browsed.items()):
            await client.request(browsed.request.command(number=number))
        while True:
            await self._runs_changed.wait()
            self._runs_changed.clear()
            if followed(self.state.runs, self.state.run, self._wanted) != self._session:
                await self._subscribe(client)

    async def _read(self, client: AsyncClient) -> None:
        async for message in client.messages():
            if self._take(message):
                self._publish_in_time()

    def _take(self, message: FromEngine) -> bool:
        """Fold a message into the state, or post it; return whether the state changed."""
        if isinstance(message, RunsChanged):
            self.state = replace(self.state, runs=message.runs)
            self._runs_changed.set()
            return True
        if isinstance(message, WatchSample) and message.request:
            if (browsed := self._browsed.get(message.request)) is not None:
                browsed.post(TelemetrySampled(from_mapping(message.snapshot)))
            return False
        if isinstance(message, WatchSample):
            if self._telemetry is not None:
                # The screen draws the rows that were made of the histograms, which are most of a sample.
                shown = {**message.snapshot, "histograms": ()}
                sample = from_mapping(shown)
                # For the history, of which each second keeps one: as objects they take many times the memory.
                first = sample.t // STEP_S > self._packed_t // STEP_S or sample.t < self._packed_t
                packed = zlib.compress(orjson.dumps(shown), 1) if first else b""
                self._packed_t = sample.t
                self._sampled_ns = max(self._sampled_ns, sample.at_ns)
                self._telemetry.post(TelemetrySampled(sample, packed=packed))
            return False
        if isinstance(message, WatchPast):
            if self._telemetry is not None:
                self._sampled_ns = max(self._sampled_ns, message.at_ns)
                self._telemetry.post(_past(message, self._telemetry.request.pins))
            return False
        if isinstance(message, RecordingsChanged):
            self._recordings = message.recordings
            if self._telemetry is not None:
                self._telemetry.post(RecordingsSeen(message.recordings))
            return False
        if not isinstance(message, (EventMessage, SampleMessage)) or message.session != self._session:
            return False
        run = self.state.run
        if run is None or run.session != message.session:
            run = RunState(message.session)
        run = advance(run, entry_of(message))
        self.state = replace(self.state, run=run)
        if self._wanted == message.session and run.state in FINAL_STATES:
            self._wanted = None
        return True

    def _publish_in_time(self) -> None:
        """Publish now, or when the tick is over."""
        loop = asyncio.get_running_loop()
        if self._timer is None:
            self._timer = loop.call_at(max(loop.time(), self._due), self._publish)

    def _publish(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._due = asyncio.get_running_loop().time() + self._tick_s
        if self._post is not None and self.state != self._published:
            self._published = self.state
            self._post(EngineChanged(self.state))
