"""The deck's requests and its connection, against a real engine that moves real bytes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from textual.message import Message

from kvdeck.app.tui.connection import TelemetryRequest, followed
from kvdeck.app.tui.messages import EngineChanged, PastSampled, TelemetrySampled
from kvdeck.app.tui.requests import Requests
from kvdeck.app.tui.state import EngineState
from kvdeck.engine.client.client import Client, engine_pid, stop_engine
from kvdeck.engine.protocol import RunInfo
from kvdeck.sessions.errors import KvdeckError
from kvdeck.sessions.model.run_state import RunState

PATIENCE_S = 40.0
SHORT = {"paths": ["HostToHost"], "layers": 2, "blocks": 8, "batch": 4, "seconds": 0.5, "reference": False}
LONG = {**SHORT, "seconds": 60.0}


class Watcher:
    """Requests whose connection is up, and the messages that it has posted."""

    def __init__(self, readonly: bool = False) -> None:
        self.messages: asyncio.Queue[Message] = asyncio.Queue()
        self.requests = Requests(readonly, tick_s=0.05)
        self._task = asyncio.create_task(self.requests.run(self.messages.put_nowait))

    async def until(self, true: Callable[[Message], bool]) -> Message:
        async def found() -> Message:
            while not true(message := await self.messages.get()):
                pass
            return message

        return await asyncio.wait_for(found(), PATIENCE_S)

    async def state(self, true: Callable[[EngineState], bool]) -> EngineState:
        found = await self.until(lambda m: isinstance(m, EngineChanged) and true(m.state))
        assert isinstance(found, EngineChanged)
        return found.state

    async def stop(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="kd-"))
    monkeypatch.setenv("KVDECK_HOME", str(folder / "home"))
    monkeypatch.setenv("KVDECK_RUNTIME", str(folder / "rt"))
    yield folder
    with contextlib.suppress(Exception), Client.connect(start=False, timeout=2) as client:
        client.stop(force=True, timeout=10)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def watch() -> AsyncIterator[Callable[..., Watcher]]:
    made: list[Watcher] = []

    def make(**options: bool) -> Watcher:
        made.append(Watcher(**options))
        return made[-1]

    yield make
    for watcher in made:
        await watcher.stop()


def connected(state: EngineState) -> bool:
    return state.connection == "connected"


def is_live(state: EngineState) -> bool:
    return state.run is not None and any(len(step.points) > 1 for step in state.run.steps)


async def test_a_run_is_launched_left_and_found_again(engine: Path, watch: Callable[..., Watcher]):
    first = watch()
    await first.state(connected)
    session = await first.requests.submit(LONG)
    live = (await first.state(is_live)).run
    assert live is not None
    assert (live.session, live.state) == (session, "running")
    await first.stop()

    second = watch()
    again = (await second.state(lambda s: is_live(s) and s.run is not None and s.run.next_seq > live.next_seq)).run
    assert again is not None
    assert again.session == session
    assert {point.t for point in live.steps[0].points} <= {point.t for point in again.steps[0].points}
    await second.requests.cancel(session)
    ended = (await second.state(lambda s: s.run is not None and s.run.state == "cancelled")).run
    assert ended is not None
    assert ended.steps[0].values


async def test_a_run_ends_with_results_that_are_kept(engine: Path, watch: Callable[..., Watcher]):
    watcher = watch()
    session = await watcher.requests.submit(SHORT)
    done = (await watcher.state(lambda s: s.run is not None and s.run.state == "done")).run
    assert done is not None
    assert [step.state for step in done.steps] == ["ok", "ok"]
    assert all(step.result is not None and step.result.verified for step in done.steps)
    assert done.comparisons
    assert session in [row.name for row in await watcher.requests.list_sessions()]
    assert len((await watcher.requests.load_session(session)).results) == 2
    assert (await watcher.requests.load_histograms(await watcher.requests.load_session(session))).keys()
    assert (await watcher.requests.load_bandwidth(os.uname().nodename)).points
    assert await watcher.requests.change_session("note", session, "fast") == f"{session}: note saved"


async def test_an_engine_that_dies_is_a_state_and_a_new_one_is_found(engine: Path, watch: Callable[..., Watcher]):
    watcher = watch()
    before = await watcher.state(connected)
    assert before.engine_pid is not None
    os.kill(before.engine_pid, signal.SIGKILL)
    lost = await watcher.state(lambda s: s.connection == "lost")
    assert lost.detail
    with await asyncio.to_thread(Client.connect):
        after = await watcher.state(connected)
    assert after.restarts == 1
    assert after.engine_pid != before.engine_pid


async def test_a_request_under_way_ends_when_the_engine_dies(engine: Path, watch: Callable[..., Watcher]):
    watcher = watch()
    state = await watcher.state(connected)
    assert state.engine_pid is not None
    os.kill(state.engine_pid, signal.SIGSTOP)
    asking = asyncio.create_task(watcher.requests.cancel("a-run"))
    await asyncio.sleep(0)
    os.kill(state.engine_pid, signal.SIGKILL)
    with pytest.raises(KvdeckError, match="the connection to the engine is lost"):
        await asyncio.wait_for(asking, PATIENCE_S)


async def test_an_engine_that_was_stopped_stays_so_until_a_run_is_submitted(
    engine: Path, watch: Callable[..., Watcher]
):
    watcher = watch()
    await watcher.state(connected)
    samples: list[Message] = []
    await watcher.requests.watch(TelemetryRequest(("host",), 10.0), samples.append)
    await asyncio.to_thread(stop_engine, True)
    lost = await watcher.state(lambda s: s.connection == "lost" and "no engine is running" in s.detail)
    assert lost.engine_pid is None
    await watcher.requests.watch(TelemetryRequest(("host",), 5.0), samples.append)
    with pytest.raises(KvdeckError, match="no engine is running"):
        await watcher.requests.cancel("a-run")
    assert engine_pid() is None
    assert await watcher.requests.submit(SHORT)
    assert engine_pid() is not None
    await watcher.state(lambda s: s.run is not None and s.run.state == "done")


async def test_telemetry_goes_on_in_the_engine_after_one_that_crashed(engine: Path, watch: Callable[..., Watcher]):
    watcher = watch()
    before = await watcher.state(connected)
    assert before.engine_pid is not None
    samples: asyncio.Queue[Message] = asyncio.Queue()
    await watcher.requests.watch(TelemetryRequest(("host",), 10.0), samples.put_nowait)

    async def next_sample(failed: bool) -> None:
        while not (isinstance(m := await samples.get(), TelemetrySampled) and bool(m.error) is failed):
            pass

    await asyncio.wait_for(next_sample(False), PATIENCE_S)
    os.kill(before.engine_pid, signal.SIGKILL)
    await asyncio.wait_for(next_sample(True), PATIENCE_S)
    await asyncio.wait_for(next_sample(False), PATIENCE_S)
    assert engine_pid() not in (None, before.engine_pid)


async def test_what_was_sampled_while_the_connection_was_lost_arrives_before_the_present(
    engine: Path, watch: Callable[..., Watcher]
):
    watcher = watch()
    await watcher.state(connected)
    samples: asyncio.Queue[Message] = asyncio.Queue()
    with Client.connect(start=False) as recorder:
        recorder.record("one", 10.0, ("disks",))
        await watcher.requests.watch(TelemetryRequest(("disks",), 10.0), samples.put_nowait)

        async def until_live() -> tuple[list[PastSampled], TelemetrySampled]:
            past: list[PastSampled] = []
            while True:
                message = await asyncio.wait_for(samples.get(), PATIENCE_S)
                if isinstance(message, PastSampled):
                    past.append(message)
                elif isinstance(message, TelemetrySampled) and not message.error:
                    return past, message

        _, last = await until_live()
        connection = watcher.requests._connection
        assert connection is not None
        assert connection._client is not None
        connection._client._socket.shutdown(socket.SHUT_RDWR)
        while not (
            isinstance(message := await asyncio.wait_for(samples.get(), PATIENCE_S), TelemetrySampled) and message.error
        ):
            last = message if isinstance(message, TelemetrySampled) else last
        past, live = await until_live()
        times = [last.sample.at_ns, *(one.sample.at_ns for one in past), live.sample.at_ns]
        assert len(times) > 2
        assert times == sorted(set(times)), "no moment twice, none out of order"
        assert [one.left for one in past] == list(range(len(past)))[::-1]
        assert [bool(one.sample.counters) for one in past] == [False] * (len(past) - 1) + [True], "whole if shown"
        recorder.stop_recording("one")


async def test_two_kinds_of_samples_arrive_side_by_side(engine: Path, watch: Callable[..., Watcher]):
    watcher = watch()
    await watcher.state(connected)
    watched: asyncio.Queue[Message] = asyncio.Queue()
    browsed: asyncio.Queue[Message] = asyncio.Queue()
    await watcher.requests.watch(TelemetryRequest(("host",), 10.0), watched.put_nowait)
    browsing = asyncio.create_task(watcher.requests.browse(TelemetryRequest(("host",), 5.0), browsed.put_nowait))
    for samples in (browsed, watched, browsed, watched):
        await asyncio.wait_for(samples.get(), PATIENCE_S)
    browsing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await browsing


async def test_what_the_engine_refuses_is_raised_to_who_asked(engine: Path, watch: Callable[..., Watcher]):
    watcher = watch()
    await watcher.state(connected)
    with pytest.raises(KvdeckError, match="NoSuchPath"):
        await watcher.requests.submit({"paths": ["NoSuchPath"]})
    with pytest.raises(KvdeckError):
        await watcher.requests.cancel("no-such-run")


async def test_a_read_only_deck_starts_no_engine(engine: Path, watch: Callable[..., Watcher]):
    watcher = watch(readonly=True)
    await watcher.state(lambda s: s.connection == "lost")
    await watcher.requests.watch(TelemetryRequest(("host",)), watcher.messages.put_nowait)
    with pytest.raises(KvdeckError, match="no engine is running"):
        await watcher.requests.submit(SHORT)
    assert engine_pid() is None


async def test_doctor_reports(engine: Path):
    report = await Requests().run_doctor()
    ready = report.best("HostToHost")
    assert ready is not None
    assert ready.state == "ready"
    assert report.host


def info(session: str, state: str) -> RunInfo:
    return RunInfo(session, state, 0.0)  # type: ignore[arg-type]


def test_who_is_followed():
    runs = (info("a", "running"), info("b", "queued"))
    assert followed((), None, None) is None
    assert followed(runs, None, None) == "a"
    assert followed(runs, None, "b") == "b"
    assert followed(runs[1:], None, None) == "b"
    assert followed(runs, RunState("old", "done"), None) == "a"
    assert followed(runs[1:], RunState("old", "done"), None) == "old"
    assert followed(runs, RunState("b", "running"), None) == "b"
