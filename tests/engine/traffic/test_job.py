"""A traffic test whose bytes are wrong, as ranks in this process make them: told, and an exit status of 1."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kvdeck.app.cli.follow import exit_status
from kvdeck.engine.ranks.board import Board
from kvdeck.engine.ranks.rpc import Remote, serve
from kvdeck.engine.ranks.seat import open_seat
from kvdeck.engine.threads import start_thread
from kvdeck.engine.traffic.config import TrafficPattern
from kvdeck.engine.traffic.job import TrafficTest, plan_of
from kvdeck.engine.traffic.matrix import Matrix
from kvdeck.engine.traffic.placement import memories
from kvdeck.engine.traffic.rank_host import RankHost
from kvdeck.engine.traffic.rank_set import RankSet, Seated
from kvdeck.engine.traffic.spec import TrafficSpec
from kvdeck.sessions.model import events
from kvdeck.sessions.model.records import Session
from kvdeck.sessions.store.store import fold

SPEC = TrafficSpec((TrafficPattern(Matrix(((5000,),))),), "single")


class FlippingHost(RankHost):
    """A process of ranks in which a byte changes after it has arrived."""

    flips = True

    def check(self, number: int) -> list[str]:
        self._memory[0].array[self._receive_offset[0] + 7] ^= self.flips
        return super().check(number)


@pytest.mark.parametrize(
    ("options", "flips", "verified", "status"),
    [
        ({"verify": True}, True, False, 1),
        ({"print_received": True}, True, False, 1),
        ({"print_received": True}, False, True, 0),
    ],
)
def test_wrong_bytes_are_told_and_end_with_1(
    options: dict[str, bool], flips: bool, verified: bool, status: int
) -> None:
    spec = replace(SPEC, **options)  # type: ignore[arg-type]
    board = Board()
    seat = open_seat(board.address, "rank0")
    host = FlippingHost(seat, "rank0")
    host.flips = flips
    serving = start_thread("rank0", lambda: serve(seat, "rank0", host))
    ranks = RankSet(board, spec.patterns, memories(spec.patterns, 1), [Seated(Remote(board, "rank0"), range(1))])
    told: list[events.Event] = [
        events.TrafficPlanned(0, "single", (plan_of(0, spec.patterns[0]),), (), 1, 0, 0, spec.verify, 0)
    ]
    ranks.open()
    test = TrafficTest(spec, ranks, told.append, lambda: False)
    test.prepare()
    test.measure()
    test.verify()
    ranks.close()
    serving.join()
    host.close()
    seat.leave()
    board.leave()
    told.append(events.StateChanged(1, 1.0, "done"))
    session = fold(Session("x", "interrupted", 0.0, spec={}, kind="traffic"), told)
    assert session.traffic is not None
    assert (session.traffic.verified, exit_status(session)) == (verified, status)
    assert bool(session.traffic.patterns[0].wrong) is not verified
