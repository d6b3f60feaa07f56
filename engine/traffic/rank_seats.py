"""Where the ranks of a traffic test are played: processes here, on peers over ssh, or those that a launcher started."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from kvdeck.engine.ranks.board import Board
from kvdeck.engine.ranks.join import RankZero, rank_name
from kvdeck.engine.ranks.outpost import greeting
from kvdeck.engine.ranks.peer import check_protocol
from kvdeck.engine.ranks.rank_process import RankProcess
from kvdeck.engine.ranks.rpc import Remote
from kvdeck.engine.ranks.ssh import SshLink, open_part
from kvdeck.engine.traffic.placement import RankMemory, check_memory, divide, memories, process_name
from kvdeck.engine.traffic.rank_set import RANK_MODULE, Seated, awaited, local_members
from kvdeck.engine.traffic.spec import TrafficSpec
from kvdeck.sessions.errors import KvdeckError, RunFailedError


def seat_ranks(
    spec: TrafficSpec,
    board: Board,
    opened: ExitStack,
    joined: RankZero | None,
    cancelled: Callable[[], bool] = lambda: False,
) -> list[Seated]:
    """Start the processes that play a test's ranks, in the order of ranks.

    Ranks are divided evenly between hosts, and there between processes, of which each host has `spec.processes`, or as
    many as it has cores. Under a launcher, each of its processes plays its part of the ranks.

    Args:
        opened: Ends what leads to other hosts, at once if an error leaves it.
        cancelled: True if the test is to end now.

    Raises:
        CancelledError: It was cancelled before all were there.
        UsageError: A host has too little memory for its ranks.
        KvdeckError: A host can't be reached, or has no kvdeck of this version.
    """
    machines = _Machines(memories(spec.patterns, spec.ranks))
    if joined is not None:
        found = _launched(spec, board, joined, machines, cancelled)
    else:
        hosts = divide(spec.ranks, 1 + len(spec.peer))
        divided = divide(len(hosts[0]), spec.processes or len(os.sched_getaffinity(0)))
        found = local_members(board, divided)
        if spec.peer:
            here = greeting()
            machines.add("this host", here, hosts[0])
            machines.pin(here, len(divided))
        for number, (host, ranks) in enumerate(zip(spec.peer, hosts[1:], strict=True)):
            found += _on_peer(spec, _Way(board, opened, host, f"peer{number}", cancelled), ranks, machines)
    machines.check()
    return found


@dataclass(slots=True)
class _Machines:
    """What the ranks take of each machine, where several hosts may be one."""

    regions: Sequence[RankMemory]
    _parts: dict[str, tuple[str, int, list[RankMemory]]] = field(default_factory=dict)
    """Label, available bytes and regions by host name."""
    _pinned: dict[str, set[int]] = field(default_factory=dict)
    """Cores that processes are pinned to, by the machine's boot."""

    def add(self, label: str, said: Mapping[str, Any], ranks: range) -> None:
        """Note that ranks are played on a host, which has greeted."""
        name = str(said["host"]["hostname"])
        known = self._parts.setdefault(name, (label, said["memory_available_bytes"], []))
        known[2].extend(self.regions[ranks.start : ranks.stop])

    def check(self) -> None:
        """Raise UsageError if a host has too little memory."""
        for label, available, regions in self._parts.values():
            check_memory(regions, available, label)

    def pin(self, said: Mapping[str, Any], processes: int) -> list[int | None]:
        """Return a core for each process of a host, of its own; None for each if there are not enough."""
        taken = self._pinned.setdefault(str(said["network"]).partition(" ")[0], set())
        free = [core for core in said["cores"] if core not in taken]
        if len(free) < processes:
            return [None] * processes
        taken.update(free[:processes])
        return list(free[:processes])


@dataclass(frozen=True, slots=True)
class _Way:
    """How a peer is reached."""

    board: Board
    opened: ExitStack
    host: str
    name: str
    cancelled: Callable[[], bool]


def _on_peer(spec: TrafficSpec, way: _Way, ranks: range, machines: _Machines) -> list[Seated]:
    first, said = _reached(spec, way, 0)
    machines.add(way.host, said, ranks)
    machines.check()
    divided = divide(len(ranks), spec.processes or len(said["cores"]))
    cores = machines.pin(said, len(divided))
    members = [first, *(_reached(spec, way, number)[0] for number in range(1, len(divided)))]
    return [
        Seated(member, range(ranks[0] + part[0], ranks[0] + part[-1] + 1), way.host, core)
        for member, part, core in zip(members, divided, cores, strict=True)
    ]


def _reached(spec: TrafficSpec, way: _Way, number: int) -> tuple[Remote, Mapping[str, Any]]:
    """Start a peer's process of that number; return the calls to it, and its greeting."""
    rank = f"{way.name}-process{number}"
    link = open_part(way.board, way.host, rank, spec.peer_command, spec.peer_timeout, "traffic")
    way.opened.push(functools.partial(_end, link))
    member = Remote(way.board, rank)
    return member, _greeted(member, way.host, link, way.cancelled)


def _end(link: SshLink, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
    """End a link: in order after a test, and at once after an error, since the other half was not asked to end."""
    if kind is None:
        link.end()
    else:
        link.kill()


def _greeted(member: Remote, host: str, link: SshLink | None, cancelled: Callable[[], bool]) -> Mapping[str, Any]:
    try:
        said: Mapping[str, Any] = awaited(member, member.start("greet"), cancelled)
        check_protocol(said, host)
    except RunFailedError as error:
        if link is None:
            raise
        link.settle()
        raise KvdeckError(*(link.failure or (error.what, error.fix))) from error
    return said


def _launched(
    spec: TrafficSpec, board: Board, joined: RankZero, machines: _Machines, cancelled: Callable[[], bool]
) -> list[Seated]:
    """Return the launcher's processes; rank 0's part is played by a process that it starts itself."""
    divided = divide(spec.ranks, 1 + len(joined.hosts))
    seated = [Seated(RankProcess(board, RANK_MODULE, process_name(divided[0])), divided[0])]
    here = greeting()
    machines.add("this host", here, divided[0])
    for number, host in enumerate(joined.hosts, start=1):
        member = Remote(board, rank_name(number))
        said = _greeted(member, host, None, cancelled)
        if number < len(divided):
            own = said["host"]["hostname"] == here["host"]["hostname"]
            machines.add(host, said, divided[number])
            seated.append(Seated(member, divided[number], "" if own else host))
        else:
            member.close()  # there are fewer ranks in the matrices than the launcher has started
    return seated
