"""Two processes with the same options meet over TCP: the owner of the address, or the first one there, is rank 0."""

from __future__ import annotations

import threading

import pytest

from kvdeck.engine.launchers import SECRET_VARIABLE
from kvdeck.engine.meeting import Meeting
from kvdeck.engine.ranks.join import OtherRank, RankZero, join
from kvdeck.sessions.errors import KvdeckError
from tests.engine.conftest import DEADLINE
from tests.support.programs.etcd import free_port


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SECRET_VARIABLE, "x" * 32)


@pytest.mark.parametrize("roles", [(None, None), ("target", "initiator"), ("initiator", "target")])
def test_two_with_the_same_options_meet(roles: tuple[str | None, str | None]):
    address = ("127.0.0.1", free_port())
    found: dict[int, RankZero | OtherRank] = {}

    def come(number: int) -> None:
        meeting = Meeting(2, role=roles[number], address=address, timeout=DEADLINE)
        found[number] = join(meeting, lambda _: None)

    threads = [threading.Thread(target=come, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    (zero,) = [one for one in found.values() if isinstance(one, RankZero)]
    (other,) = [one for one in found.values() if isinstance(one, OtherRank)]
    assert (other.rank, len(zero.hosts)) == (1, 1)
    if roles[0] == "target":
        assert found[0] is other
    other.seat.leave()
    assert zero.board.wait_left(1, DEADLINE)
    zero.board.leave()


def test_who_does_not_come_is_named():
    meeting = Meeting(3, rank=0, address=("127.0.0.1", free_port()), timeout=0.1)
    with pytest.raises(KvdeckError, match=r"ranks 1, 2 of 3 did not come within 0\.1 s"):
        join(meeting, lambda _: None)
