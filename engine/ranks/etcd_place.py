"""How the ranks of a run find each other in etcd: a place of their own each, by launcher, by role or by arrival."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from kvdeck.engine.meeting import ranks_text
from kvdeck.engine.ranks.etcd import EtcdBoard, EtcdRank, EtcdSeat
from kvdeck.engine.ranks.etcd_gateway import EtcdAccess, EtcdEntry
from kvdeck.engine.ranks.names import described, since
from kvdeck.sessions.errors import KvdeckError, RunFailedError, UsageError
from kvdeck.sessions.host.documents import load_record
from kvdeck.sessions.units import count_text, many, number_text

_TOKEN = re.compile(r"[0-9a-f]{16}")
_PAUSE_SECONDS = 0.2
_SILENT_SECONDS = 2
"""Seconds without a renewal after which a lease, renewed every second, probably belongs to a dead process."""


@dataclass(frozen=True, slots=True)
class EtcdMeeting:
    """Where a rank meets the others."""

    namespace: str
    group: str
    world: int
    token: str | None = None
    """Text that only this run's ranks share; None: they agree on one."""
    ranks: tuple[int, ...] | None = None
    """Ranks that this process may take, the first free one; None: any."""

    @property
    def folder(self) -> str:
        """Prefix of the group's keys."""
        return f"/kvdeck/{self.namespace}/{self.group}/"


@dataclass(frozen=True, slots=True)
class EtcdPlace:
    """A rank's place in a run, and its rendezvous: a board for rank 0, a seat for the others."""

    rank: int
    token: str
    rendezvous: EtcdBoard | EtcdSeat


class _Lease:
    """Another process's lease, looked at several times to see whether it is renewed."""

    def __init__(self) -> None:
        self.alive = False
        self._since = time.monotonic()
        self._most = -1

    def look(self, rank: EtcdRank, lease: int) -> None:
        """Ask for the seconds left: they fall by one per second unless the lease is renewed, every second."""
        left = rank.gateway.remaining(lease)[0] if lease else 0
        renewed = left >= self._most and time.monotonic() - self._since > _SILENT_SECONDS
        self.alive = self.alive or not lease or renewed
        self._most = max(self._most, left)


def meet(access: EtcdAccess, meeting: EtcdMeeting, who: dict[str, Any], say: Callable[[str], object],
         timeout: float) -> EtcdPlace:  # fmt: skip
    """Take a place and wait until all ranks of the run are there.

    Keys of a run whose processes are dead are reported at once and out of the way within 5 s.

    Args:
        who: What the others learn of this process: `host`, `pid`, and `at`, the time in seconds since the epoch.
        say: Called with what the operator should know.

    Raises:
        UsageError: The group gathers another number of ranks, or this process's place is taken.
        KvdeckError: The others did not come within `timeout` seconds.
        RunFailedError: Etcd is gone.
    """
    deadline = time.monotonic() + timeout
    while True:
        rank, place, there = EtcdRank(access), None, False
        try:
            place = _place(rank, meeting, who, say, deadline)
            say(f"rank {place.rank} of {meeting.world}, in run {place.token}")
            there = _all_there(place, meeting, say, deadline)
            if there:
                _close_gathering(rank, meeting, place)
                return place
        finally:
            if not there:
                (rank.end if place is None else place.rendezvous.leave)()


def _place(rank: EtcdRank, meeting: EtcdMeeting, who: dict[str, Any], say: Callable[[str], object],
           deadline: float) -> EtcdPlace:  # fmt: skip
    """Return this rank's place; a dead process's is waited for until its lease ends."""
    leases: dict[int, _Lease] = {}
    mine = orjson.dumps({**who, "world": meeting.world})
    while True:
        token, gathering = (meeting.token, None) if meeting.token else _agreed(rank, meeting, who)
        prefix = f"{meeting.folder}{token}/"
        holders = []
        for number in range(meeting.world) if meeting.ranks is None else meeting.ranks:
            created, holder = rank.gateway.create(_alive(prefix, number), mine, rank.lease, only_if=gathering)
            if created:
                if number == 0:
                    return EtcdPlace(0, token, EtcdBoard(rank, prefix))
                return EtcdPlace(number, token, EtcdSeat(rank, prefix, number))
            if holder is not None:
                holders.append((number, holder))
        if not leases:
            for number, holder in holders:
                _report(rank, number, holder, say)
        for _, holder in holders:
            leases.setdefault(holder.lease, _Lease()).look(rank, holder.lease)
        late = time.monotonic() > deadline
        if late and not holders:
            raise KvdeckError(f"the group {meeting.group} began no run with a place for this process", "start it again")
        if late or (holders and all(leases[holder.lease].alive for _, holder in holders)):
            raise UsageError(
                f"{_holder(*holders[0])} is in this run already",
                "start each rank once, or give this run a --etcd-group of its own",
            )
        time.sleep(_PAUSE_SECONDS)


def _agreed(rank: EtcdRank, meeting: EtcdMeeting, who: dict[str, Any]) -> tuple[str, tuple[str, bytes]]:
    """Return the token of the group's run that is gathering, or begin one; and the key and value that say so."""
    token = secrets.token_hex(8)
    value = orjson.dumps({**who, "world": meeting.world, "token": token})
    key = f"{meeting.folder}gathering"
    while True:
        created, present = rank.gateway.create(key, value, rank.lease)
        if created:
            return token, (key, value)
        if present is not None:  # else it was deleted since
            break
    found = _read(present)
    if not isinstance(found.get("token"), str) or not _TOKEN.fullmatch(found["token"]):
        raise UsageError(
            f"the key {present.key} in etcd was not written by kvdeck", "give this run another --etcd-group"
        )
    if found.get("world") != meeting.world:
        raise UsageError(
            f"the group {meeting.group} gathers {many(found.get('world', 0), 'rank')} for {_holder(0, present)}, but "
            f"this command asks for {meeting.world}",
            "start all ranks with the same options, or give this run a --etcd-group of its own",
        )
    return found["token"], (key, present.value or b"")


def _all_there(place: EtcdPlace, meeting: EtcdMeeting, say: Callable[[str], object], deadline: float) -> bool:
    """Wait for the other ranks; False if one of them is dead and the token was agreed on, so that another can be."""
    rendezvous, left = place.rendezvous, max(0.0, deadline - time.monotonic())
    try:
        if isinstance(rendezvous, EtcdBoard):
            if not rendezvous.wait_for(meeting.world, left):
                missing = sorted(set(range(1, meeting.world)) - set(rendezvous.present))
                raise KvdeckError(
                    f"{ranks_text(missing)} of {meeting.world} did not come within {number_text(left)} s",
                    "start the same command on every host",
                )
            rendezvous.put("all-there", True)
        else:
            rendezvous.get("all-there", left)
    except RunFailedError as error:
        if meeting.token is not None or not error.what.startswith("rank "):
            raise
        say(f"{error.what}; it belonged to a run that never began")
        return False
    return True


def _close_gathering(rank: EtcdRank, meeting: EtcdMeeting, place: EtcdPlace) -> None:
    """Let the next run of the group begin."""
    if meeting.token is None and place.rank == 0:
        entries, _ = rank.gateway.read(f"{meeting.folder}gathering")
        for entry in entries:
            if entry.value is not None and _read(entry).get("token") == place.token:
                rank.gateway.remove(entry.key, entry.value)


def _report(rank: EtcdRank, number: int, holder: EtcdEntry, say: Callable[[str], object]) -> None:
    """Report who holds a place, and how long ago it was last heard of."""
    if holder.lease == 0:
        say(f"{_holder(number, holder)} has a key without a lease, which never ends: {holder.key}")
        return
    left, whole = rank.gateway.remaining(holder.lease)
    silent = whole - left
    state = f"silent for {count_text(silent)} s, so probably dead" if silent >= _SILENT_SECONDS else "alive"
    say(
        f"{_holder(number, holder)} is in this run already: {state}; its place is free "
        f"{count_text(max(left, 0))} s after it ends"
    )


def _holder(number: int, entry: EtcdEntry) -> str:
    found = _read(entry)
    return f"{described(number, found)}, {since(found)},"


def _alive(prefix: str, number: int) -> str:
    return f"{prefix}down/alive" if number == 0 else f"{prefix}up/{number}/alive"


def _read(entry: EtcdEntry) -> dict[str, Any]:
    """Return an entry's object; {} if it isn't one."""
    try:
        found = load_record(entry.value or b"")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
