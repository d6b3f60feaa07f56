"""Joining a run as one of its ranks, over TCP or etcd, and leaving it."""

from __future__ import annotations

import functools
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kvdeck.engine.meeting import Meeting, ranks_text
from kvdeck.engine.ranks.etcd import EtcdBoard
from kvdeck.engine.ranks.etcd_gateway import etcd_access
from kvdeck.engine.ranks.etcd_place import EtcdMeeting, meet
from kvdeck.engine.ranks.peer import PeerHost
from kvdeck.engine.ranks.rendezvous import RankRendezvous
from kvdeck.engine.ranks.tcp import PortTakenError, TcpBoard, is_own, secret_of, tcp_seat
from kvdeck.sessions.errors import KvdeckError
from kvdeck.sessions.units import number_text

_LEAVE_SECONDS = 5.0
"""Time for another rank to end once it is asked to."""


@dataclass(frozen=True, slots=True)
class RankZero:
    """Rank 0's board, and what each other rank said of itself, in the order of ranks."""

    board: EtcdBoard | TcpBoard
    others: tuple[dict[str, Any], ...]

    @property
    def hosts(self) -> tuple[str, ...]:
        """Host name of each other rank."""
        return tuple(str(who.get("host", "?")) for who in self.others)

    def peer(self, number: int, label: str, timeout: float, cancelled: Callable[[], bool] = lambda: False) -> PeerHost:
        """Return the handle on the rank after `number` others; raises as `PeerHost` does."""
        rank = number + 1
        end = functools.partial(self.board.wait_left, rank, _LEAVE_SECONDS)
        return PeerHost(self.board, rank_name(rank), label, timeout, end, cancelled)


@dataclass(frozen=True, slots=True)
class OtherRank:
    """A rank other than 0, and its seat."""

    rank: int
    seat: RankRendezvous


def rank_name(rank: int) -> str:
    """Return the name under which a rank serves calls."""
    return f"rank{rank}"


def join(meeting: Meeting, say: Callable[[str], object]) -> RankZero | OtherRank:
    """Take this process's place among the ranks, and wait until all are there.

    Args:
        say: Called with what the operator should know.

    Raises:
        UsageError: The secret or etcd's access is missing or invalid, or the place is taken.
        KvdeckError: The other ranks did not come in time.
        RunFailedError: A rank or etcd is lost.
    """
    who = {"host": platform.node(), "pid": os.getpid(), "at": time.time()}
    return _over_etcd(meeting, who, say) if meeting.endpoints else _over_tcp(meeting, who, say)


def _over_etcd(meeting: Meeting, who: dict[str, Any], say: Callable[[str], object]) -> RankZero | OtherRank:
    access = etcd_access(meeting.endpoints, os.environ)
    ranks: tuple[int, ...] | None = None if meeting.rank is None else (meeting.rank,)
    if meeting.role is not None:
        ranks = (0,) if meeting.role == "initiator" else tuple(range(1, meeting.world))
    way = EtcdMeeting(meeting.namespace, meeting.group, meeting.world, meeting.token, ranks)
    say(f"meeting {meeting.world} ranks at etcd {access}, group {meeting.group}")
    place = meet(access, way, who, say, meeting.timeout)
    if isinstance(place.rendezvous, EtcdBoard):
        return _rank_zero(place.rendezvous)
    return OtherRank(place.rank, place.rendezvous)


def _over_tcp(meeting: Meeting, who: dict[str, Any], say: Callable[[str], object]) -> RankZero | OtherRank:
    assert meeting.address is not None
    secret = secret_of(os.environ)
    rank = meeting.rank
    if rank is None:
        first = is_own(meeting.address[0]) if meeting.role is None else meeting.role == "initiator"
        rank = 0 if first else 1
    if rank == 0:
        try:
            board = TcpBoard(meeting.address, secret, meeting.world, meeting.token or "")
        except PortTakenError:
            if meeting.rank is not None or meeting.role is not None:
                raise
            rank = 1  # the same command was started here before: that one is rank 0
        else:
            return _gathered(board, meeting, say)
    say(f"rank {rank} of {meeting.world}, looking for rank 0 at {meeting.address[0]}:{meeting.address[1]}")
    token, timeout = meeting.token or "", meeting.timeout
    return OtherRank(rank, tcp_seat(meeting.address, secret, rank, meeting.world, who, token, timeout))


def _gathered(board: TcpBoard, meeting: Meeting, say: Callable[[str], object]) -> RankZero:
    """Wait for the others at rank 0's board."""
    assert meeting.address is not None
    try:
        say(f"rank 0 of {meeting.world}, waiting for {meeting.world - 1} more at port {meeting.address[1]}")
        if not board.wait_for(meeting.world, meeting.timeout):
            missing = [rank for rank in range(1, meeting.world) if rank not in board.present]
            raise KvdeckError(
                f"{ranks_text(missing)} of {meeting.world} did not come within {number_text(meeting.timeout)} s",
                "check that each rank was started, and reaches rank 0's host and port",
            )
    except BaseException:
        board.leave()
        raise
    return _rank_zero(board)


def _rank_zero(board: EtcdBoard | TcpBoard) -> RankZero:
    return RankZero(board, tuple(board.present[rank] for rank in sorted(board.present)))
