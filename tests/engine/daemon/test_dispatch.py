"""A new message is its class and its owner's method or topic: two that only this file knows work over the socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from kvdeck.engine import protocol
from kvdeck.engine.client.client import Client
from kvdeck.engine.daemon import runtime
from kvdeck.engine.daemon.connection import Connection
from kvdeck.engine.daemon.dispatch import answers, handlers
from kvdeck.engine.daemon.server import Server, config_from_environment
from kvdeck.engine.protocol import Command, FromEngine, Reply
from kvdeck.sessions.errors import EngineError, UsageError
from kvdeck.sessions.store.store import Store
from tests.engine.conftest import DEADLINE


class Count(Command, frozen=True, tag="test_count"):
    """Add to the counter. Reply: `{before}`."""

    by: int
    words: tuple[str, ...] = ()


class Counted(FromEngine, frozen=True, tag="test_counted"):
    """The counter, after each change."""

    total: int


class CountingServer(Server):
    """An engine with one more command and one more pushed message."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.total = 0
        self.counted = self.topic(lambda: Counted(self.total))

    @answers(Count)
    async def count(self, _: Connection, command: Count) -> dict[str, Any]:
        if command.by < 0:
            raise UsageError("can't count down")
        before, self.total = self.total, self.total + command.by
        self.counted.changed()
        return {"before": before}


def connected() -> socket.socket:
    found = socket.socket(socket.AF_UNIX)
    found.connect(str(runtime.socket_path(runtime.runtime_folder())))
    return found


def totals(client: Client) -> Iterator[int]:
    return (message.total for message in client.messages(DEADLINE) if isinstance(message, Counted))


def talk() -> None:
    with Client(connected()) as first, Client(connected()) as second:
        first.subscribe()
        second.subscribe(readonly=True)
        seen = [totals(first), totals(second)]
        assert [next(each) for each in seen] == [0, 0]
        assert first.request(Count(0, 5, ("a",))).data == {"before": 0}
        assert first.request(Count(0, 2)).data == {"before": 5}
        for each in seen:
            assert next(total for total in each if total > 5) == 7
        with pytest.raises(UsageError, match="can't count down"):
            first.request(Count(0, -1))
        with pytest.raises(EngineError, match="a read-only client may not test_count"):
            second.request(Count(0, 1))


WRONG = {
    '"type":"test_count","by":"5"': "$.by: expected int, got str",
    '"type":"test_count","by":5,"words":["a",7]': "$.words[1]: expected str, got int",
    '"type":"test_count"': "$: object missing required field by",
    '"type":"subscribe","hz":"fast"': "$.hz: expected float, got str",
    '"type":"submit","spec":[]': "$.spec: expected object, got array",
    '"type":"watch","sources":[1]': "$.sources[0]: expected str, got int",
}


def send_wrong_types() -> None:
    with connected() as wire, wire.makefile("rb") as lines:
        assert isinstance(protocol.decode(lines.readline()), protocol.Hello)
        wire.sendall(b'{"v":1,"id":1,"type":"from the future"}\n{"v":1,"id":2,"type":3}\n')
        for number, (fields, what) in enumerate(WRONG.items(), 40):
            wire.sendall(b'{"v":1,"id":%d,%s}\n' % (number, fields.encode()))
            reply = Reply(number, False, error=f"not a command: {what}", exit_code=2)
            assert protocol.decode(lines.readline()) == reply
        wire.sendall(orjson.dumps({"v": 1, "id": 50, "type": "status", "of the future": 1}) + b"\n")
        reply = protocol.decode(lines.readline())
        assert isinstance(reply, Reply)
        assert (reply.id, reply.ok) == (50, True)


@pytest.mark.parametrize("client", [talk, send_wrong_types])
async def test_over_a_socket(client: Any, folders: Path):
    config = config_from_environment()
    runtime.prepare_runtime(config.runtime)
    server = CountingServer(config, Store(runtime.prepare_home(config.home)))
    serving = asyncio.ensure_future(server.run())
    try:
        while not runtime.socket_path(config.runtime).exists():
            await asyncio.sleep(0)
        await asyncio.to_thread(client)
        with connected() as wire:
            wire.sendall(protocol.encode(protocol.StopEngine(1)))
            await asyncio.wait_for(serving, DEADLINE)
    finally:
        serving.cancel()


def test_a_command_has_one_handler(folders: Path):
    class Another:
        @answers(Count)
        def count(self, _: Connection, __: Count) -> None: ...

    with pytest.raises(TypeError, match="Count has two handlers"):
        handlers(Another(), Another())


def test_every_command_is_answered():
    from kvdeck.engine.daemon.samplers import Samplers
    from kvdeck.engine.daemon.telemetry_sessions import TelemetrySessions

    owners = (object.__new__(CountingServer), object.__new__(TelemetrySessions), object.__new__(Samplers))
    ours = {command for command in Command.__subclasses__() if command.__module__ == protocol.__name__}
    assert set(handlers(*owners)) == {Count, *ours}
