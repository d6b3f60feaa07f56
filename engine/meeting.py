"""How the ranks of a run meet: over TCP at rank 0, or over etcd; made of options and of what a launcher sets."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kvdeck.engine.launchers import Placement, parse_address, placement_of
from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.units import number_text

JOIN_SECONDS = 120.0
"""Time in which all ranks must come."""
ROLES = ("initiator", "target")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")
_HOW = "--rendezvous HOST:PORT with rank 0's host, or --etcd-endpoints"


@dataclass(frozen=True, slots=True)
class Meeting:
    """Where and how one rank meets the others; holds no secret."""

    world: int
    """Number of ranks: rank 0 initiates, the others serve its targets."""
    rank: int | None = None
    """This process's rank; None: by role, by arrival at etcd, or by whose host the address is."""
    role: str | None = None
    token: str | None = None
    """Text that only this run's ranks share, from the launcher."""
    launcher: str | None = None
    address: tuple[str, int] | None = None
    """Host and port of rank 0, for TCP."""
    endpoints: tuple[str, ...] = ()
    """etcd's endpoints; empty: the ranks meet over TCP."""
    namespace: str = "default"
    group: str = "default"
    timeout: float = JOIN_SECONDS


@dataclass(frozen=True, slots=True)
class MeetingOptions:
    """What the command line says of the ranks."""

    launcher: str | None = None
    rendezvous: str | None = None
    etcd_endpoints: tuple[str, ...] = ()
    etcd_namespace: str = "default"
    etcd_group: str = "default"
    role: str | None = None
    ranks: int | None = None
    join_timeout: float = JOIN_SECONDS

    @property
    def given(self) -> bool:
        """True if the run has ranks that are started elsewhere."""
        return self.launcher is not None or self.rendezvous is not None or bool(self.etcd_endpoints)


def meeting_of(options: MeetingOptions, environment: Mapping[str, str]) -> Meeting:
    """Return where this process meets the other ranks.

    Raises:
        UsageError: The options contradict each other, or don't say enough.
    """
    namespace = checked_name(options.etcd_namespace, "--etcd-namespace")
    group = checked_name(options.etcd_group, "--etcd-group")
    if options.join_timeout <= 0:
        raise UsageError(f"--join-timeout {number_text(options.join_timeout)} is no time", "give some seconds")
    placement = placement_of(environment, options.launcher) if options.launcher is not None else None
    if placement is None:
        return _by_arrival(options, namespace, group)
    if options.role is not None or options.ranks is not None:
        option = "--role" if options.role is not None else "--ranks"
        raise UsageError(f"{option} contradicts --launcher, which gives each process its rank", f"omit {option}")
    check_world(placement.world)
    address = None if options.etcd_endpoints else _address(options, placement)
    return Meeting(
        placement.world,
        placement.rank,
        token=placement.token,
        launcher=placement.launcher,
        address=address,
        endpoints=options.etcd_endpoints,
        namespace=namespace,
        group=group,
        timeout=options.join_timeout,
    )


def _by_arrival(options: MeetingOptions, namespace: str, group: str) -> Meeting:
    """Return the meeting of ranks that the same command starts on each host."""
    if options.rendezvous is not None and options.etcd_endpoints:
        raise UsageError("--rendezvous and --etcd-endpoints are two ways to meet", "give only one of them")
    world = 2 if options.ranks is None else options.ranks
    check_world(world)
    address = None
    if options.rendezvous is not None:
        address = parse_address(options.rendezvous, "--rendezvous")
        if world > 2:
            raise UsageError(
                f"--rendezvous alone doesn't number {world} ranks", "add --launcher, or use --etcd-endpoints"
            )
    return Meeting(
        world,
        role=options.role,
        address=address,
        endpoints=options.etcd_endpoints,
        namespace=namespace,
        group=group,
        timeout=options.join_timeout,
    )


def _address(options: MeetingOptions, placement: Placement) -> tuple[str, int]:
    if options.rendezvous is not None:
        return parse_address(options.rendezvous, "--rendezvous")
    if placement.host is None:
        raise UsageError(f"{placement.launcher} doesn't say to its ranks where rank 0 is", f"give every rank {_HOW}")
    return placement.host, placement.port


def check_world(world: int) -> None:
    """Raise UsageError if there are too few ranks for a run between them."""
    if world < 2:
        raise UsageError("a run between ranks needs at least 2 of them", "start more ranks, or omit --launcher")


def checked_name(text: str, option: str) -> str:
    """Return a namespace or group if it is a plain name.

    Raises:
        UsageError: It isn't.
    """
    if not _NAME.fullmatch(text) or text in (".", ".."):
        raise UsageError(f"{option}: {text!r} is not a name", "use letters, digits, `.`, `_` and `-`")
    return text


def ranks_text(numbers: Sequence[int]) -> str:
    """Return `rank 1` or `ranks 1, 2`."""
    return f"rank{'s' if len(numbers) != 1 else ''} {', '.join(map(str, numbers))}"
