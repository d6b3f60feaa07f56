"""Where the ranks of a traffic test are played: processes here, on peers over ssh, or those that a launcher started."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack

from kvdeck.engine.ranks.board import Board
from kvdeck.engine.ranks.join import RankZero, rank_name
from kvdeck.engine.ranks.outpost import greeting
from kvdeck.engine.ranks.peer import check_protocol
from kvdeck.engine.ranks.rank_process import RankProcess
from kvdeck.engine.ranks.rpc import Remote
from kvdeck.engine.ranks.ssh import SshLink, open_part
from kvdeck.engine.traffic.placement import divide, process_name
from kvdeck.engine.traffic.rank_set import RANK_MODULE, Seated, local_members
from kvdeck.engine.traffic.spec import TrafficSpec
from kvdeck.sessions.errors import KvdeckError, RunFailedError


def seat_ranks(spec: TrafficSpec, board: Board, opened: ExitStack, joined: RankZero | None) -> list[Seated]:
    """Start the processes that play a test's ranks, in the order of ranks; `opened` ends what leads to other hosts.

    Ranks are divided evenly between hosts, and there between processes, of which each host has `spec.processes`, or as
    many as this one has cores. Under a launcher, each of its processes plays its part of the ranks.

    Raises:
        KvdeckError: A host can't be reached, or has no kvdeck of this version.
    """
    if joined is not None:
        return _launched(spec, board, joined)
    each = spec.processes or len(os.sched_getaffinity(0))
    hosts = divide(spec.ranks, 1 + len(spec.peer))
    seated = local_members(board, divide(len(hosts[0]), each))
    for number, (host, ranks) in enumerate(zip(spec.peer, hosts[1:], strict=False)):
        parts = [range(ranks[0] + part[0], ranks[0] + part[-1] + 1) for part in divide(len(ranks), each)]
        seated += _on_peer(spec, board, opened, host, f"peer{number}", parts)
    return seated


def _on_peer(
    spec: TrafficSpec, board: Board, opened: ExitStack, host: str, name: str, parts: Sequence[range]
) -> list[Seated]:
    found = []
    for ranks in parts:
        rank = f"{process_name(ranks)}-{name}"
        link = open_part(board, host, rank, spec.peer_command, spec.peer_timeout, "traffic")
        opened.callback(link.end)
        found.append(Seated(_greeted(Remote(board, rank), host, link), ranks, host))
    return found


def _greeted(member: Remote, host: str, link: SshLink | None) -> Remote:
    try:
        check_protocol(member.call("greet"), host)
    except RunFailedError as error:
        if link is None:
            raise
        link.settle()
        raise KvdeckError(*(link.failure or (error.what, error.fix))) from error
    return member


def _launched(spec: TrafficSpec, board: Board, joined: RankZero) -> list[Seated]:
    """Return the launcher's processes; rank 0's part is played by a process that it starts itself."""
    divided = divide(spec.ranks, 1 + len(joined.hosts))
    seated = [Seated(RankProcess(board, RANK_MODULE, process_name(divided[0])), divided[0])]
    here = greeting()["host"]["hostname"]
    for number, host in enumerate(joined.hosts, start=1):
        member = _greeted(Remote(board, rank_name(number)), host, None)
        if number < len(divided):
            seated.append(Seated(member, divided[number], "" if host == here else host))
        else:
            member.close()  # there are fewer ranks in the matrices than the launcher has started
    return seated
