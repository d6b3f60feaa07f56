"""The link between hosts during a step: what its interfaces carried against what was sent, and what they can carry."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kvdeck.engine.host.nics import Carried, Nic, nic_counters
from kvdeck.engine.io.transports import WITHIN_HOST
from kvdeck.engine.ranks.group import PeerLink
from kvdeck.engine.ranks.peer import PeerHost
from kvdeck.sessions.units import figure, number_text, percent_text, size_text

IDLE_SECONDS = 0.2
LEAST, MOST = 0.9, 1.1
"""What the interfaces carry, as part of the bytes sent, if these went over them: with headers a little more."""
_OVERHEAD = 256
"""Bytes of headers allowed for each descriptor, beyond `MOST`: small pieces need a packet each."""
_USED = 0.01
"""Part of the bytes sent from which an interface counts as used."""

Counters = Mapping[str, Carried]


@dataclass(frozen=True, slots=True)
class PeerUse:
    """What the bytes of a step used on one of its peers."""

    transport: str
    """As UCX names it."""
    share: float
    """Part of the step's bytes that this peer's targets had."""
    carried: dict[str, int]
    """Bytes that each of its interfaces carried, without those of its idle time."""
    part: float | None
    """The same, as part of the bytes that its targets had; None: no counters."""


@dataclass(frozen=True, slots=True)
class LinkUse:
    """What a step's bytes used."""

    sent: dict[str, int]
    """Bytes that each interface of the sending host carried, without those of its idle time."""
    received: dict[str, int]
    """The same of the receiving hosts; with several, the host's name comes first."""
    part: float | None
    """What the interfaces carried, as part of the bytes sent: the end that is further from 1. None: no counters."""
    doubt: str | None
    """Why the bytes didn't take the interfaces, or can't have; None without doubt."""
    bound_gb_per_s: float | None
    """Rate of the used interfaces of the slower end, in GB/s; None if no driver states it."""
    bound: str
    """The interfaces of the bound with their rates, or why there is none."""
    peers: dict[str, PeerUse]
    """The same of each peer, by its label."""


class LinkWatch:
    """Counters of both ends' interfaces around each visit of each step."""

    def __init__(self, peers: Sequence[PeerHost], nics: Sequence[Nic], *, pushes: bool) -> None:
        """`nics`: this host's; `pushes`: this host sends (WRITE), otherwise it receives (READ)."""
        self._peers, self._pushes = peers, pushes
        ends = {"": nics} | {f"{peer.label}/": [Nic(**nic) for nic in peer.greeting["nics"]] for peer in peers}
        self._nics = {f"{host}{nic.name}": nic for host, found in ends.items() for nic in found}
        self._carried: dict[int, dict[str, list[float]]] = defaultdict(lambda: defaultdict(lambda: [0.0, 0.0]))
        self._moved: dict[int, tuple[int, int]] = {}
        self._before: tuple[int, dict[str, Carried]] = (0, {})
        self._idle: dict[str, tuple[float, float]] = {}

    def rest(self) -> None:
        """Measure what the interfaces carry while nothing is sent; takes `IDLE_SECONDS`."""
        begun, before = time.perf_counter_ns(), self._read()
        time.sleep(IDLE_SECONDS)
        seconds = (time.perf_counter_ns() - begun) / 1e9
        self._idle = {
            name: ((after.sent - before[name].sent) / seconds, (after.received - before[name].received) / seconds)
            for name, after in self._read().items()
            if name in before
        }

    def begin(self) -> None:
        """Read the counters before a visit."""
        self._before = time.perf_counter_ns(), self._read()

    def end(self, step: int, moved: int, descriptors: int) -> None:
        """Read them after a visit of a step that moved that many bytes in that many descriptors."""
        begun, before = self._before
        after, seconds = self._read(), (time.perf_counter_ns() - begun) / 1e9
        for name in after.keys() & before.keys():
            for way, idle in enumerate(self._idle.get(name, (0.0, 0.0))):
                self._carried[step][name][way] += after[name][way] - before[name][way] - idle * seconds
        total, count = self._moved.get(step, (0, 0))
        self._moved[step] = total + moved, count + descriptors

    def use(self, step: int, gb_per_s: float | None, links: Mapping[str, PeerLink]) -> LinkUse:
        """Return what a step used, and whether its rate can be.

        Args:
            gb_per_s: The step's rate.
            links: What UCX said that it uses for each peer, and the peer's part of the bytes.
        """
        moved, count = self._moved.get(step, (0, 0))
        taken = " ".join(dict.fromkeys(link.transport for link in links.values() if link.transport))
        here = self._of_host(step, "", taken, way=not self._pushes)
        peers = {}
        for label, link in links.items():
            there = self._of_host(step, f"{label}/", link.transport, way=self._pushes)
            peers[label] = PeerUse(link.transport, link.share, there, _part(there, moved * link.share))
        there = {name: carried for use in peers.values() for name, carried in use.carried.items()}
        ends = [(1.0, here), *((use.share, use.carried) for use in peers.values())]
        parts = [part for share, carried in ends if (part := _part(carried, moved * share)) is not None]
        part = max(parts, key=lambda one: abs(one - 1), default=None)
        bound, words = self._bound(ends, moved)
        several = len(peers) > 1
        doubts = [_doubt(_part(here, moved), moved, count, taken, {**here, **there}, "")] + [
            _doubt(
                use.part,
                moved * use.share,
                count * use.share,
                use.transport,
                {**here, **use.carried},
                f" with {label}" if several else "",
            )
            for label, use in peers.items()
        ]
        doubt = next(filter(None, doubts), None)
        if doubt is None and bound is not None and gb_per_s is not None and gb_per_s > bound:
            doubt = f"{figure(gb_per_s)} GB/s is more than the link's rate of {figure(bound)} GB/s ({words})"
        sent, received = (here, there) if self._pushes else (there, here)
        return LinkUse(sent, received, part, doubt, bound, words, peers)

    def _of_host(self, step: int, prefix: str, transport: str, *, way: bool) -> dict[str, int]:
        """Return the bytes that a host's interfaces carried in a step, `way`: received, otherwise sent."""
        return {
            name: round(max(0.0, counts[way]))
            for name, counts in self._carried[step].items()
            if (name.startswith(prefix) if prefix else "/" not in name) and self._counts(name, transport)
        }

    def _read(self) -> dict[str, Carried]:
        found = dict(nic_counters())
        for peer in self._peers:
            found |= {f"{peer.label}/{name}": carried for name, carried in peer.counters().items()}
        return found

    def _counts(self, name: str, transport: str) -> bool:
        """True if bytes of these transports are in an interface's counters; IP over InfiniBand is in two of them."""
        nic = self._nics.get(name)
        by_tcp = [part.startswith("tcp/") for part in transport.split() if "/" in part]
        if nic is None or not by_tcp or transport.endswith(WITHIN_HOST):
            return True
        return any(by_tcp) if not nic.rdma else not all(by_tcp)

    def _bound(self, ends: Sequence[tuple[float, Mapping[str, int]]], moved: int) -> tuple[float | None, str]:
        """Return the GB/s that the used interfaces of the slowest end allow the step, and what they are.

        Args:
            ends: Each host's part of the bytes, and what its interfaces carried.
        """
        found: list[tuple[float, str]] = []
        for share, carried in ends:
            used = [name for name, count in carried.items() if moved and count > _USED * moved * share]
            rates = {name: nic.bits_per_s if (nic := self._nics.get(name)) else None for name in used}
            if unknown := [name for name, rate in rates.items() if rate is None]:
                return None, f"the driver of {unknown[0]} states no rate"
            known = {name: rate for name, rate in rates.items() if rate is not None}
            if known:
                words = ", ".join(f"{name} {number_text(rate / 1e9)} Gb/s" for name, rate in known.items())
                found.append((sum(known.values()) / 8e9 / share, words + _for_part(share)))
        return min(found, key=lambda one: one[0], default=(None, "no interface was used"))


def _for_part(share: float) -> str:
    return "" if share == 1 else f" for {percent_text(share)} of the bytes"


def _part(carried: Mapping[str, int], moved: float) -> float | None:
    return sum(carried.values()) / moved if carried and moved else None


def _doubt(part: float | None, moved: float, descriptors: float, transport: str, used: Mapping[str, int],
           where: str) -> str | None:  # fmt: skip
    if part is None or not moved:
        return None
    if LEAST <= part <= MOST + _OVERHEAD * descriptors / moved:
        return None
    carried = ", ".join(f"{name} {size_text(count)}" for name, count in used.items()) or "nothing"
    sent = f"{percent_text(part)} of the {size_text(round(moved))} sent{where}"
    return f"did not use the NIC: {sent} went over it ({carried}); UCX used {transport or 'an unknown transport'}"


def to_settings(use: LinkUse | None, peers: Sequence[PeerHost], links: Mapping[str, PeerLink],
                gb_per_s: float | None, lanes: Sequence[float]) -> dict[str, Any]:  # fmt: skip
    """Return a step's peers and the link to them, if they are on other hosts, for its result's settings.

    Args:
        gb_per_s: The step's rate.
        lanes: Rate of each initiator over its own time; empty with one.
    """
    transports = dict.fromkeys(link.transport for link in links.values() if link.transport)
    named: dict[str, Any] = {
        "hosts": [peer.label for peer in peers],
        "hostnames": [peer.hostname for peer in peers],
        "transport": " ".join(transports) or None,
    }
    if len(links) > 1:
        named["each"] = [_of_peer(peer, links[peer.label], use, gb_per_s, lanes) for peer in _distinct(peers)]
    if use is None:
        return {**named, "bound": "a rank is on rank 0's host"}
    return {
        **named,
        "sent_by_nic": use.sent,
        "received_by_nic": use.received,
        "carried_part": None if use.part is None else round(use.part, 4),
        "bound_gb_per_s": use.bound_gb_per_s,
        "bound": use.bound,
    }


def _distinct(peers: Sequence[PeerHost]) -> list[PeerHost]:
    """Return the peers without those on the host of an earlier one, which a launcher may start."""
    return list({peer.label: peer for peer in reversed(peers)}.values())[::-1]


def _of_peer(
    peer: PeerHost, link: PeerLink, use: LinkUse | None, gb_per_s: float | None, lanes: Sequence[float]
) -> dict[str, Any]:
    """Return one peer's part of a step: the rate of the initiators that only it serves, else its part of the whole."""
    own = len(lanes) > 1 and len(set(link.lanes)) == len(link.lanes)
    rate = sum(lanes[lane] for lane in link.lanes) if own else gb_per_s and gb_per_s * link.share
    found: dict[str, Any] = {
        "host": peer.label,
        "hostname": peer.hostname,
        "transport": link.transport or None,
        "share": round(link.share, 4),
        "gb_per_s": None if rate is None else round(rate, 4),
    }
    if use is not None and (used := use.peers.get(peer.label)) is not None:
        found["by_nic"] = used.carried
        found["carried_part"] = None if used.part is None else round(used.part, 4)
    return found
