"""TCP streams between an initiator's end and the processes' ends, over the loopback."""

from __future__ import annotations

import socket

import numpy as np
import pytest

from kvdeck.engine.io import memory
from kvdeck.engine.ranks import tcp_stream
from kvdeck.engine.ranks.stream_end import StreamEnd
from kvdeck.engine.ranks.tcp_stream import StreamListener, TcpStream, address_of
from kvdeck.sessions.errors import KvdeckError, UnavailableError

BLOCK, BLOCKS = 300_000, 8
SIZE = BLOCK * BLOCKS


@pytest.fixture
def here() -> memory.HostBuffer:
    made = memory.allocate(SIZE)
    made.array[:] = np.arange(SIZE, dtype=np.uint64) * 7 % 251
    return made


def connected(here: memory.HostBuffer, ends: list[StreamEnd], *, write: bool) -> TcpStream:
    listener = StreamListener(["tcp/lo"] * len(ends))
    for end, place in zip(ends, listener.places(), strict=True):
        end.connect(**place, write=write, size=SIZE // len(ends))
    rows = np.array([[here.address + at * BLOCK, BLOCK, 0] for at in range(BLOCKS)], dtype=np.uint64)
    return TcpStream(listener.accept(), rows, 10.0, write=write)


@pytest.mark.parametrize("targets", [1, 2])
def test_what_is_sent_arrives(here: memory.HostBuffer, targets: int):
    ends = [StreamEnd() for _ in range(targets)]
    stream = connected(here, ends, write=True)
    stream.plan(range(BLOCKS), BLOCKS)()
    part = SIZE // targets
    for number, end in enumerate(ends):
        assert (end._buffers[0].array[:part] == here.array[number * part : (number + 1) * part]).all()
    stream.close()


@pytest.mark.parametrize("targets", [1, 2])
def test_what_is_asked_for_comes(here: memory.HostBuffer, targets: int):
    ends = [StreamEnd() for _ in range(targets)]
    stream = connected(here, ends, write=False)
    for end in ends:
        end._buffers[0].array[:] = 3
    stream.plan([4, 5, 0, 1], 2)()
    moved = here.array.reshape(BLOCKS, BLOCK)[[0, 1, 4, 5]]
    assert (moved == 3).all()
    assert not (here.array.reshape(BLOCKS, BLOCK)[2:4] == 3).all()
    stream.close()


def test_a_stranger_is_dropped_and_the_peer_is_taken():
    listener, end = StreamListener(["tcp/lo"]), StreamEnd()
    (place,) = listener.places()
    with socket.create_connection((place["address"], place["port"])) as stranger:
        stranger.sendall(b"0" * tcp_stream.TOKEN_BYTES)
        end.connect(**place, write=True, size=BLOCK)
        (taken,) = listener.accept()
        with taken:
            assert taken.getpeername() != stranger.getsockname()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((place["address"], place["port"]))
    end.close()


def test_a_peer_that_does_not_come_leaves_no_reference(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tcp_stream, "CONNECT_SECONDS", 0.05)
    with pytest.raises(UnavailableError, match="the peer did not connect"):
        StreamListener(["tcp/lo"]).accept()


@pytest.mark.parametrize(
    ("transport", "said"),
    [
        ("rc_mlx5/mlx5_0:1", "the bytes go over rc_mlx5/mlx5_0:1, for which there is no plain means"),
        ("", "the bytes go over an unknown transport"),
        ("tcp/lo within one host", "tcp/lo within one host"),
        ("tcp/nothing0", "nothing0 has no IPv4 address"),
    ],
)
def test_without_tcp_there_is_no_reference_and_it_is_said(transport: str, said: str):
    with pytest.raises(UnavailableError, match=said):
        StreamListener(["tcp/lo", transport])


def test_an_end_that_is_gone_is_said(here: memory.HostBuffer):
    end = StreamEnd()
    stream = connected(here, [end], write=True)
    end.close()
    with pytest.raises(KvdeckError, match="the TCP stream failed"):
        stream.plan([*range(BLOCKS)] * 50, BLOCKS)()
    stream.close()


def test_an_address_is_that_of_its_device():
    assert address_of("lo") == "127.0.0.1"
