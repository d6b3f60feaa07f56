"""The rendezvous over a Unix socket and over a pair of pipes, as ssh gives them."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from kvdeck.engine.ranks.board import Board
from kvdeck.engine.ranks.rendezvous import RankRendezvous, barrier, check_lost, gather
from kvdeck.engine.ranks.rpc import Remote, serve
from kvdeck.engine.ranks.seat import Seat, open_seat
from kvdeck.sessions.errors import KvdeckError, RunFailedError
from tests.engine.conftest import DEADLINE, eventually

FEW_S = 0.2


@dataclass
class Table:
    """A board and two ranks beside it: one over the Unix socket, one over pipes."""

    board: Board
    near: RankRendezvous
    far: RankRendezvous
    far_ends: tuple[int, int]


@pytest.fixture
def table() -> Iterator[Table]:
    board = Board()
    there_in, here_out = os.pipe()
    here_in, there_out = os.pipe()
    closed = threading.Event()
    board.attach(here_in, here_out, "far", cut=lambda: None, close=closed.set)
    yield Table(board, open_seat(board.address, "near"), Seat(there_in, there_out, "far"), (there_in, there_out))
    board.leave()


def test_every_rank_sees_what_another_puts(table: Table):
    ranks: list[Any] = [table.board, table.near, table.far]
    found: dict[int, list[Any]] = {}

    def meet(rank: int) -> None:
        found[rank] = gather(ranks[rank], "names", rank, range(3), {"rank": rank}, DEADLINE)
        barrier(ranks[rank], "ready", rank, range(3), DEADLINE)

    threads = [threading.Thread(target=meet, args=(rank,)) for rank in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert found == {rank: [{"rank": 0}, {"rank": 1}, {"rank": 2}] for rank in range(3)}


def test_a_key_that_is_taken_is_forgotten(table: Table):
    table.near.put("report/0", None)
    table.near.put("report/1", [1])
    assert (table.board.take("report/0", DEADLINE), table.board.take("report/1", DEADLINE)) == (None, [1])
    with pytest.raises(KvdeckError, match="report/0 did not arrive"):
        table.board.get("report/0", 0.0)


def test_a_key_that_comes_late_is_no_answer_to_the_next_question(table: Table):
    with pytest.raises(KvdeckError, match="first did not arrive"):
        table.far.get("first", FEW_S)
    table.far.ask("second")
    assert not table.far.answered()
    table.board.put("first", 1)
    table.board.put("second", 2)
    assert table.far.answer(DEADLINE) == 2


def test_a_loss_reaches_who_waits_and_who_asks_later(table: Table):
    told: list[str] = []
    table.board.on_loss(told.append)
    table.far.ask("never")
    table.near.lose("target3 (process 12 on hostB) died of SIGKILL")
    with pytest.raises(RunFailedError, match="target3"):
        table.far.answer(DEADLINE)
    with pytest.raises(RunFailedError, match="target3"):
        table.board.get("never", DEADLINE)
    with pytest.raises(RunFailedError, match="target3"):
        table.near.get("never", DEADLINE)
    with pytest.raises(RunFailedError, match="during the transfers"):
        check_lost(table.board)
    assert len(told) == 1


def test_a_rank_that_leaves_is_not_lost_and_one_that_is_cut_is(table: Table):
    table.near.leave()
    os.close(table.far_ends[1])
    eventually(lambda: table.board.lost is not None)
    assert table.board.lost == "far closed its connection"


def test_what_a_login_shell_prints_first_is_skipped():
    board = Board()
    here_in, there_out = os.pipe()
    board.attach(here_in, os.open(os.devnull, os.O_WRONLY), "far", cut=lambda: None, close=lambda: None)
    os.write(there_out, b'Welcome to hostB!\n{"motd": 1}\n{"who":"far"}\n{"put":"key","value":1}\n')
    assert board.get("key", DEADLINE) == 1
    board.leave()


def test_who_sends_no_message_is_lost(table: Table):
    os.write(table.far_ends[1], b"GET / HTTP/1.1\r\n")
    eventually(lambda: table.board.lost is not None)
    assert "rendezvous failed" in (table.board.lost or "")


def test_a_rank_without_rank_0_says_so(table: Table):
    there_in, here_out = os.pipe()
    seat = Seat(there_in, table.far_ends[1], "other")
    os.close(here_out)
    for _ in range(2):
        with pytest.raises(KvdeckError, match="connection to rank 0 is lost"):
            seat.get("anything", DEADLINE)


class Adder:
    busy = True
    polled = 0

    def poll(self) -> None:
        self.polled += 1

    def add(self, one: int, other: int) -> int:
        if one < 0:
            raise ValueError("no negative numbers")
        return one + other


def test_calls_reach_a_rank_that_somebody_else_started(table: Table):
    adder = Adder()
    rank = threading.Thread(target=serve, args=(table.far, "far", adder))
    rank.start()
    remote = Remote(table.board, "far")
    assert remote.call("add", one=1, other=2) == 3
    with pytest.raises(KvdeckError, match="no negative numbers"):
        remote.call("add", one=-1, other=2)
    remote.close()
    rank.join(DEADLINE)
    assert not rank.is_alive()


def test_an_unknown_scheme_is_refused():
    with pytest.raises(KvdeckError, match="carrier"):
        open_seat("carrier:pigeon", "rank")
