"""Rank 0's view of a run's half on another host: what it said of itself, its ranks, and its counters."""

from __future__ import annotations

import contextlib
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from kvdeck.engine.host.nics import Carried
from kvdeck.engine.io.loop import CancelledError
from kvdeck.engine.ranks.board import LateError, late
from kvdeck.engine.ranks.outpost import PROTOCOL, greeting
from kvdeck.engine.ranks.rendezvous import RootRendezvous
from kvdeck.engine.ranks.rpc import ANSWER_SECONDS, Remote
from kvdeck.sessions.errors import KvdeckError, RunFailedError
from kvdeck.sessions.units import number_text

GREETING_SECONDS = 30.0
"""Time for a host that can be reached to start its half."""
_LOOK_SECONDS = 0.2
_CLOCK_QUESTIONS = 16
COMPARED = {"kvdeck": "kvdeck", "nixl": "NIXL", "ucx": "UCX", "python": "Python"}
"""Versions that are compared first, with their names for people."""


@dataclass(frozen=True, slots=True)
class ClockOffset:
    """How far another host's clock is ahead, in seconds, and the most by which this can be wrong."""

    seconds: float
    error_s: float


class RankCalls(Protocol):
    """Calls to a rank, wherever it runs."""

    def call(self, method: str, **arguments: Any) -> Any:
        """Call a method and return its result; errors are those of `Remote.result`."""

    def close(self) -> None:
        """End the rank."""


class PeerHost:
    """Another host that takes part in a run. Every call ends within `timeout` seconds, or the host is lost."""

    def __init__(
        self,
        rendezvous: RootRendezvous,
        rank: str,
        label: str,
        timeout: float,
        end: Callable[[], object] = lambda: None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        """Wait for the host's greeting, for `GREETING_SECONDS` or the time limit of its calls, whichever is longer.

        Args:
            rank: The name under which the other half serves.
            label: The host as the user named it.
            end: Called by `close`: ends what leads to the host.
            cancelled: True if the run is to end now.

        Raises:
            CancelledError: It was cancelled before the greeting came.
            KvdeckError: No greeting came, or its kvdeck speaks another protocol.
            RunFailedError: The way to it ended first.
        """
        self.label, self.timeout = label, timeout
        self._rendezvous, self._end = rendezvous, end
        self._outpost = Remote(rendezvous, rank)
        self._started = 0
        limit = max(GREETING_SECONDS, timeout)
        self.greeting: dict[str, Any] = _greeting_of(rendezvous, f"greeting/{rank}", limit, cancelled)
        check_protocol(self.greeting, label)

    @property
    def hostname(self) -> str:
        return str(self.greeting["host"]["hostname"])

    @property
    def elsewhere(self) -> bool:
        """True if it isn't this host, where no bytes take an interface."""
        return self.hostname != platform.node()

    @property
    def lost(self) -> str | None:
        """How the way to this host, or a rank on it, ended; None while all is well."""
        return self._rendezvous.lost

    def on_loss(self, told: Callable[[str], None]) -> None:
        """Have every later loss reported to `told`, as a message."""
        self._rendezvous.on_loss(told)

    def lose(self, why: str) -> None:
        """Take this host for lost from now on."""
        self._rendezvous.lose(why)

    def begin(self, environment: Mapping[str, str]) -> None:
        """Set variables for its ranks, unless set there; `greeting["environment"]` is then what they use."""
        self.greeting["environment"] = self._call("begin", environment=dict(environment))

    def start_target(self) -> RankCalls:
        """Start a target process there and return the calls to it."""
        return self.start_rank("target")

    def start_rank(self, kind: str) -> RankCalls:
        """Start a rank of a kind that `outpost` knows, and return the calls to it."""
        rank = f"kvdeck-{kind}{self._started}"
        self._started += 1
        self._call("start_rank", kind=kind, rank=rank)
        return _FarRank(self, rank)

    def counters(self) -> dict[str, Carried]:
        """Return the bytes carried by each of its interfaces."""
        return {name: Carried(*carried) for name, carried in self._call("counters").items()}

    def clock_offset(self) -> ClockOffset:
        """Measure how far its clock is ahead of this host's; from the quickest of several questions."""
        found = []
        for _ in range(_CLOCK_QUESTIONS):
            asked = time.time_ns()
            there = self._call("clock")
            answered = time.time_ns()
            found.append(ClockOffset((there - (asked + answered) / 2) / 1e9, (answered - asked) / 2e9))
        return min(found, key=lambda one: one.error_s)

    def pass_on(self, rank: str, method: str, arguments: dict[str, Any]) -> Any:
        """Call a method of a rank there, which may fill or compare much memory; errors are those of `Remote.result`."""
        limit = max(self.timeout, ANSWER_SECONDS)
        return self._wait(self._outpost.start("pass_on", rank=rank, call=method, arguments=arguments), limit)

    def end_rank(self, rank: str) -> None:
        self._call("end_rank", rank=rank)

    def close(self) -> None:
        """End the other half, and the way to it."""
        with contextlib.suppress(KvdeckError):
            if self.lost is None:
                self._outpost.close()
        self._end()

    def _call(self, method: str, **arguments: Any) -> Any:
        return self._wait(self._outpost.start(method, **arguments), self.timeout)

    def _wait(self, number: int, seconds: float) -> Any:
        if self.lost is not None:
            raise RunFailedError(self.lost, "see the session's engine.log")
        try:
            return self._outpost.result(number, seconds)
        except LateError as error:
            silent = f"{self.label} did not answer within {number_text(seconds)} s"
            self._rendezvous.lose(silent)
            raise RunFailedError(silent, "check the link, or give it longer by --peer-timeout") from error


def _greeting_of(rendezvous: RootRendezvous, key: str, limit: float, cancelled: Callable[[], bool]) -> dict[str, Any]:
    """Wait for a greeting; raises as `PeerHost` does."""
    deadline = time.monotonic() + limit
    while True:
        left = deadline - time.monotonic()
        try:
            return dict(rendezvous.get(key, max(0.0, min(_LOOK_SECONDS, left))))
        except LateError as error:
            if cancelled():
                raise CancelledError("cancelled while a peer was starting") from error
            if left <= _LOOK_SECONDS:
                raise late(key, limit) from error


class _FarRank:
    """Calls to a rank on a peer, passed on by its half there."""

    def __init__(self, peer: PeerHost, rank: str) -> None:
        self._peer, self._rank = peer, rank

    def call(self, method: str, **arguments: Any) -> Any:
        return self._peer.pass_on(self._rank, method, arguments)

    def close(self) -> None:
        if self._peer.lost is None:  # otherwise the rank ends with its half
            self._peer.end_rank(self._rank)


def check_protocol(said: Mapping[str, Any], label: str) -> None:
    """Raise KvdeckError if the other half's kvdeck doesn't speak this one's protocol."""
    if said.get("protocol") != PROTOCOL:
        here, there = greeting()["kvdeck"], said.get("kvdeck", "of unknown version")
        raise KvdeckError(
            f"kvdeck {there} on {label} and kvdeck {here} here don't work together",
            "install the same version on both hosts",
        )


def check_apart(here: Mapping[str, Any], peers: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    """Raise KvdeckError if a peer is this host, or another of the peers, by their networks.

    Args:
        here: This host's greeting.
        peers: Each peer's label and greeting.
    """
    seen = {here["network"]: "this host"}
    for label, said in peers:
        network = said.get("network")
        if network and network in seen:
            raise KvdeckError(
                f"{label} is {seen[network]}: no bytes between them would use a NIC",
                "name another host, or measure within this one without --peer",
            )
        seen[network] = f"the same host as {label}"


def differences(here: Mapping[str, Any], there: Mapping[str, Any], label: str) -> list[str]:
    """Return how two hosts' greetings differ in what decides results: versions, and variables of UCX and NIXL."""
    found = [
        f"{name} is {here.get(key) or 'unknown'} here and {there.get(key) or 'unknown'} on {label}"
        for key, name in COMPARED.items()
        if here.get(key) != there.get(key)
    ]
    own, other = here["environment"], there["environment"]
    for name in sorted({*own, *other}):
        if "LOG" not in name and own.get(name) != other.get(name):
            found.append(f"{name} is {own.get(name, 'not set')} here and {other.get(name, 'not set')} on {label}")
    return found
