"""One log of a run: whoever folds its lines has the same state, and whichever source is read, every line comes once."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from kvdeck.app.cli.progress import Progress
from kvdeck.engine import protocol
from kvdeck.engine.client.client import Client, EngineGone
from kvdeck.engine.client.run_log import Cursor, JoinedLog, SocketLog, entry_of, follow
from kvdeck.engine.daemon import runtime
from kvdeck.engine.daemon.stream import RunStream, to_line
from kvdeck.engine.protocol import EventMessage, FromEngine, SampleMessage
from kvdeck.engine.telemetry.sources.sessions import OwnRuns
from kvdeck.sessions.model.encoding import encode_line
from kvdeck.sessions.model.events import COUNTER_INDEX, ReferenceRound, Round, RunStarted, StateChanged, decode_event
from kvdeck.sessions.model.run_state import CUT_SHORT, LogEntry, RunState, advance, advance_all
from kvdeck.sessions.store.event_log import FileLog
from kvdeck.sessions.store.store import Store
from tests.engine.conftest import DEADLINE, kill_engine, submit

LOGS = sorted((Path(__file__).parents[2] / "sessions" / "logs").glob("*.jsonl"))
"""Recorded runs: done (with a path that isn't available), tuned, crashed."""
NAME = "run"

pytestmark = pytest.mark.usefixtures("folders")


def cuts(path: Path) -> Iterator[list[bytes]]:
    """The recorded run's lines up to each of them."""
    lines = path.read_bytes().splitlines()
    return (lines[:end] for end in range(len(lines) + 1))


def over_the_socket(lines: list[bytes]) -> list[FromEngine]:
    """What the engine sends of these lines."""
    decoded = (protocol.decode(to_line(NAME, seq, raw).encode(0)) for seq, raw in enumerate(lines))
    return [message for message in decoded if isinstance(message, (EventMessage, SampleMessage))]


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.stem)
def test_the_same_lines_give_the_same_state_to_all(path: Path, tmp_path: Path):
    store = Store(tmp_path)
    store.create(NAME, {}, "")
    for lines in cuts(path):
        store.samples_path(NAME).write_bytes(b"".join(line + b"\n" for line in lines))
        state = advance_all(RunState(NAME), FileLog(store.samples_path(NAME)).follow())

        cursor, deck = Cursor(NAME), RunState(NAME)
        for message in over_the_socket(lines):
            entry = cursor.take(message)
            assert entry is not None
            deck = advance(deck, entry)
        assert deck == state

        progress = Progress(NAME)
        with contextlib.redirect_stderr(io.StringIO()):
            for entry in FileLog(store.samples_path(NAME)).follow():
                progress.take(entry)
        assert progress.run == state

        feed = RunStream(NAME, store.samples_path(NAME))
        feed.push(lines)
        queue = feed.run
        for name in ("state", "fraction", "eta_s", "paths", "results", "comparisons", "newest", "reason", "ended"):
            assert getattr(queue, name) == getattr(state, name), name

        session = store.rebuild(NAME)
        for name in ("state", "reason", "started", "ended", "host", "nixl", "spec", "comparisons", "tuned"):
            assert getattr(session, name) == getattr(state, name), name
        statuses = {result.step: result.status for result in session.results}
        over = {step.plan.step: step.state for step in state.steps if step.result or state.state in CUT_SHORT}
        assert statuses == over
        assert store.load(NAME) == session

        sums: dict[tuple[str, str], float] = {}
        for step in state.steps:
            if step.values:
                key = step.plan.path, step.plan.layout
                sums[key] = sums.get(key, 0.0) + (step.counter("bytes") or 0.0)
        seen = OwnRuns(tmp_path).look().values
        shown = {(dict(s.labels)["path"], dict(s.labels)["layout"]): v for s, v in seen.items() if "bytes" in s.name}
        assert shown == sums


def test_a_dead_owner_makes_the_same_of_a_begun_step_as_the_state(tmp_path: Path):
    store = Store(tmp_path)
    store.create(NAME, {}, "")
    (store.folder(NAME) / "owner.json").unlink()
    for lines in cuts(LOGS[0]):
        if lines and b'"kind":"state"' in lines[-1]:
            break
        store.samples_path(NAME).write_bytes(b"".join(line + b"\n" for line in lines))
        entries = list(FileLog(store.samples_path(NAME)).follow())
        cut = LogEntry(len(entries), StateChanged(0, 1.0, "interrupted", "x"))
        state = advance_all(RunState(NAME), [*entries, cut])
        loaded = {result.step: result.status for result in store.load(NAME).results}
        assert loaded == {step.plan.step: step.state for step in state.steps}


def test_a_sample_after_a_comparison_keeps_it():
    lines = LOGS[1].read_bytes().splitlines()
    entries = [entry for message in over_the_socket(lines) if isinstance(message, (EventMessage, SampleMessage))
               and (entry := entry_of(message))]  # fmt: skip
    state = advance_all(RunState(NAME), entries)
    compared = next(step for step in state.steps if step.compared is not None)
    late = Round(1, compared.plan.step, 1, (), (), 1, compared.values)
    after = advance(state, LogEntry(len(entries), late)).step(compared.plan.step)
    assert after is not None
    assert after.compared == compared.compared


# --- sources ---


class Sent:
    """The engine's part from a line on, up to where its connection is lost."""

    def __init__(self, lines: list[bytes], until: int | None = None, overlap: int = 0) -> None:
        self._messages, self._until, self._overlap = over_the_socket(lines), until, overlap

    def follow(self, from_seq: int = 0) -> Iterator[LogEntry]:
        for message in self._messages[: self._until]:
            assert isinstance(message, (EventMessage, SampleMessage))
            if message.seq >= from_seq - self._overlap:
                yield entry_of(message)


LINES = LOGS[1].read_bytes().splitlines()


@settings(max_examples=60, deadline=None)
@given(
    start=st.integers(0, len(LINES)),
    written=st.integers(0, len(LINES)),
    lost=st.integers(0, len(LINES)),
    overlap=st.integers(0, 5),
)
def test_a_file_and_then_a_socket_give_every_line_once(tmp_path_factory, start, written, lost, overlap):
    path = tmp_path_factory.getbasetemp() / "cut.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in LINES[:written]) + b'{"torn')
    first, second = Sent(LINES, lost, overlap), Sent(LINES, None, overlap)
    got = list(JoinedLog(FileLog(path), first, second).follow(start))
    assert [entry.seq for entry in got] == list(range(start, len(LINES)))

    async def messages(from_seq: int) -> AsyncIterator[FromEngine]:
        async def all_of() -> AsyncIterator[FromEngine]:
            for message in over_the_socket(LINES):
                if isinstance(message, (EventMessage, SampleMessage)) and message.seq >= from_seq - overlap:
                    yield message

        return all_of()

    async def numbers() -> list[int]:
        return [entry.seq async for entry in follow(path, NAME, messages, start)]

    assert asyncio.run(numbers()) == list(range(start, len(LINES)))


def test_every_line_once_when_the_engine_is_killed_and_started_again(client: Client):
    session = submit(client, rounds=400, every=0.01)
    path = client.store.samples_path(session)
    got: list[LogEntry] = []

    def up_to_the_kill() -> None:
        for entry in JoinedLog(FileLog(path), SocketLog(client, session, hz=0)).follow():
            got.append(entry)
            if entry.seq == 40:
                kill_engine(client)

    with pytest.raises(EngineGone):
        up_to_the_kill()
    assert not got[-1].ends
    with Client.connect() as again:
        rest = JoinedLog(FileLog(path), SocketLog(again, session, hz=0)).follow(got[-1].seq + 1)
        got += list(rest)
        kept = list(FileLog(path).follow())
    assert [entry.seq for entry in got] == [entry.seq for entry in kept]
    assert isinstance(got[-1].event, StateChanged)
    assert got[-1].event.state == "interrupted"
    assert advance_all(RunState(session), got) == advance_all(RunState(session), kept)


async def test_an_event_loop_follows_a_run_from_the_file_into_the_engine(client: Client):
    session = submit(client, rounds=200, every=0.005)
    path = client.store.samples_path(session)
    while path.stat().st_size < 2000:  # so that there is history
        client.receive(0.01)
    reader, writer = await asyncio.open_unix_connection(runtime.socket_path(runtime.runtime_folder()))

    async def subscribe(from_seq: int) -> AsyncIterator[FromEngine]:
        writer.write(protocol.encode(protocol.Subscribe(1, session, from_seq, hz=0)))

        async def messages() -> AsyncIterator[FromEngine]:
            while line := await asyncio.wait_for(reader.readline(), DEADLINE):
                message = protocol.decode(line)
                assert isinstance(message, FromEngine)
                yield message

        return messages()

    got = [entry async for entry in follow(path, session, subscribe)]
    writer.close()
    assert [entry.seq for entry in got] == list(range(len(got)))
    assert got[-1].ends
    kept = advance_all(RunState(session), FileLog(path).follow())
    assert advance_all(RunState(session), got) == kept


def test_thinned_lines_end_in_the_same_figures(client: Client):
    session = submit(client, rounds=300, every=0.002)
    thin = advance_all(RunState(session), SocketLog(client, session, hz=4).follow())
    kept = advance_all(RunState(session), FileLog(client.store.samples_path(session)).follow())
    assert thin.missed > 0
    assert (thin.state, thin.newest, thin.fraction) == (kept.state, kept.newest, kept.fraction)


def test_a_sample_that_names_no_step_is_no_round():
    values = [None] * len(COUNTER_INDEX)
    assert entry_of(SampleMessage(NAME, 3, 1, tuple(values), 2)) == LogEntry(3, None, 2)


def test_steps_are_summed_per_path_and_layout(tmp_path: Path):
    """A sweep of hundreds of steps is as many series as it has paths and layouts."""
    store = Store(tmp_path)
    store.create(NAME, {}, "")
    begun = decode_event(LOGS[1].read_bytes().splitlines()[0])
    assert isinstance(begun, RunStarted)
    begun = replace(begun, steps=tuple(replace(begun.steps[0], step=n) for n in range(50)))
    values = [0.0] * len(COUNTER_INDEX)
    rounds = []
    for number in range(50):
        values[COUNTER_INDEX["bytes"]] = 10.0
        rounds.append(Round(number, number, 0, (), (), 1, tuple(values)))
    events = (begun, *rounds, ReferenceRound(99, 0, 0, "memcpy", 1, 1))
    store.samples_path(NAME).write_bytes(b"".join(map(encode_line, events)))
    reading = OwnRuns(tmp_path).look()
    found = {series: value for series, value in reading.values.items() if series.name == "session_bytes"}
    assert list(found.values()) == [500.0]
