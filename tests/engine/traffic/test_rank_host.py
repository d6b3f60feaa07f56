"""A process of ranks over real UCX: bytes that didn't move, or moved elsewhere, fail the verification."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Iterator
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


def test_a_message_is_compared_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    size = 8 << 20
    made = RankHost(None, "rank")  # type: ignore[arg-type]
    made.connect([made.open([(0, 2 * size, size)], None)])
    made.prepare(0, "WRITE", 1, [[0, 0, size, 0, size]])
    made.fill(0)
    received = made._memory[0].array[size:]
    received[:] = made._memory[0].array[:size]
    assert made.check(0) == []
    received[[3 << 20, (3 << 20) + 5, size - 1]] ^= 1
    monkeypatch.setattr(rank_host, "PIECE_BYTES", 1 << 18, raising=False)
    tracemalloc.start()
    (text,) = made.check(0)
    assert tracemalloc.get_traced_memory()[1] < size
    tracemalloc.stop()
    made.close()
    assert "3 of the 8.39M bytes from rank 0 to rank 0 differ, the first at byte 3145728: 0x" in text


class WatchedSeat:
    """A seat that notes when it is looked at, and in which event comes after which report."""

    lost = None

    def __init__(self, *events: tuple[str, Any]) -> None:
        """`events`: each with what must have been noted before it comes."""
        self.noted: list[str] = []
        self._events = list(events)

    def ask(self, key: str) -> None:
        self.noted.append("ask")

    def answered(self) -> bool:
        self.noted.append("look")
        return self._events[0][0] in self.noted

    def answer(self, timeout: float | None = None) -> Any:
        event = self._events.pop(0)[1]
        return event() if callable(event) else event

    def put(self, key: str, value: Any) -> None:
        self.noted.append("end" if value is None else f"{value[0]} {value[1]}")

    def get(self, key: str, timeout: float) -> Any:
        raise AssertionError

    def lose(self, who: str) -> None:
        raise AssertionError(who)

    def leave(self) -> None:
        raise AssertionError


def watched(monkeypatch: pytest.MonkeyPatch, *events: tuple[str, Any]) -> list[str]:
    """Run a series of a process of rank 0, whose pattern 0 is to itself and 1 is read by rank 1, elsewhere."""
    seat = WatchedSeat(*events)
    sleep = time.sleep

    def nap(seconds: float) -> None:
        seat.noted.append("nap")
        sleep(seconds)

    made = RankHost(seat, "rank0")
    made.connect([made.open([(0, 8192, 4096)], None)])
    made.prepare(0, "WRITE", 1, [[0, 0, 64, 0, 4096]])
    made.prepare(1, "READ", 1, [[0, 1, 64, 0, 4096]])
    monkeypatch.setattr("kvdeck.engine.traffic.rank_host.time.sleep", nap)
    made.run("series")
    monkeypatch.undo()
    made.close()
    assert seat.noted[-1] == "end"
    return seat.noted


def begin(pattern: int, visit: int, seconds: float) -> Callable[[], tuple[Any, ...]]:
    """Return what makes the event of a visit that starts in so many seconds."""
    return lambda: ("visit", pattern, visit, time.perf_counter_ns() + int(seconds * 1e9), 1)


def test_a_process_that_waits_for_a_start_looks_for_events_after_every_nap(monkeypatch: pytest.MonkeyPatch) -> None:
    noted = watched(monkeypatch, ("look", begin(0, 1, 0.2)), ("sent 1", None))
    naps = [at for at, what in enumerate(noted) if what == "nap"]
    assert naps
    assert all(noted[at + 1] == "look" for at in naps)


def test_a_process_that_is_read_from_doesn_t_nap_until_that_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    served = ("look", begin(1, 1, 0.0)), ("look", begin(0, 2, 0.05))
    assert "nap" not in watched(monkeypatch, *served, ("sent 2", None))
    over = ("sent 2", ("over", 1)), ("sent 2", begin(0, 3, 0.05)), ("sent 3", None)
    assert "nap" in watched(monkeypatch, *served, *over)


def test_a_long_test_of_small_messages_has_its_time() -> None:
    assert rank_host.patience_s(64, 1, 1_000_000) > 1000
    assert rank_host.patience_s(64, 10_000, 1000) > 1000
    assert rank_host.patience_s(64, 1, 1) < 100


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
