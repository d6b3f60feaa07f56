"""A process of ranks over real UCX: bytes that didn't move, or moved elsewhere, fail the verification."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from kvdeck.engine.ranks.board import Board
from kvdeck.engine.ranks.seat import open_seat
from kvdeck.engine.traffic import rank_host
from kvdeck.engine.traffic.config import TrafficPattern
from kvdeck.engine.traffic.matrix import Matrix
from kvdeck.engine.traffic.placement import memories, messages
from kvdeck.engine.traffic.rank_host import RankHost, seed_of
from kvdeck.sessions.errors import KvdeckError, RunFailedError

PATTERNS = [
    TrafficPattern(Matrix(((64, 5000), (3, 0)))),
    TrafficPattern(Matrix(((64, 5000), (3, 0))), "READ", shards=3),
]


@pytest.fixture
def host() -> Iterator[RankHost]:
    made = RankHost(None, "rank")  # type: ignore[arg-type]  # only `run` uses the rendezvous
    regions = memories(PATTERNS, 2)
    opened = made.open([(rank, region.size, region.receive_offset) for rank, region in enumerate(regions)], None)
    made.connect([opened])
    for number, pattern in enumerate(PATTERNS):
        rows = [[one.source, one.destination, one.size, one.source_offset, one.destination_offset]
                for one in messages(pattern, regions)]  # fmt: skip
        assert made.prepare(number, pattern.operation, pattern.shards, rows) == 3 * pattern.shards
    yield made
    made.close()


def move(host: RankHost, number: int) -> None:
    agent: Any = host._agent
    for handles in host._patterns[number].handles.values():
        for handle in handles:
            state, deadline = agent.transfer(handle, b"note"), time.monotonic() + 60
            while state == "PROC" and time.monotonic() < deadline:
                state = agent.check_xfer_state(handle)
            assert state == "DONE"


@pytest.mark.parametrize("number", [0, 1])
def test_moved_bytes_pass_and_a_flipped_one_is_named(host: RankHost, number: int) -> None:
    host.fill(number)
    host.poison()
    assert len(host.check(number)) == 3
    move(host, number)
    assert host.check(number) == []
    message = next(one for one in host._patterns[number].messages if one.size == 5000)
    host._memory[1].array[message.destination_offset + 4999] ^= 1
    (text,) = host.check(number)
    assert f"pattern {number}: 1 of the 5,000 bytes from rank 0 to rank 1 differ, the first at byte 4999" in text


def test_another_pattern_s_bytes_are_wrong(host: RankHost) -> None:
    host.fill(0)
    host.poison()
    move(host, 0)
    assert len(host.check(1)) == 3


def test_what_never_arrives_ends_the_wait_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_host, "_PATIENCE_S", 0.05)
    board = Board()
    seat = open_seat(board.address, "rank0")
    made = RankHost(seat, "rank0")
    opened = made.open([(0, 8192, 0)], None)
    made.connect([opened])
    made.prepare(7, "WRITE", 1, [[1, 0, 64, 0, 0]])  # rank 1 isn't here, and never sends
    board.put("series/rank0/0", ("visit", 7, 1, time.perf_counter_ns(), 1))
    with pytest.raises(KvdeckError, match="notifications of rank 1 are missing"):
        made.run("series")
    made.close()
    with pytest.raises(RunFailedError, match=r"rank0 failed \(a pattern is not done"):
        board.get("never", 60)
    seat.leave()
    board.leave()


def test_seeds_differ() -> None:
    found = {seed_of(number, one) for number in range(2) for one in messages(PATTERNS[0], memories(PATTERNS, 2))}
    assert len(found) == 6
    assert len({seed & 0xFFFF for seed in found}) == 6  # the low bytes too: they alone decide on short messages
