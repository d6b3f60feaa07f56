"""Rank group: all initiators of a run driven as one; they start each visit together, and their times are combined.

If several initiators share a target process, rank 0 opens, fills, poisons, checks and polls it for all of them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from kvdeck.engine.host.run_delay import RunDelays, gained
from kvdeck.engine.io import hang
from kvdeck.engine.io.endpoints import Origin, origin_to_json
from kvdeck.engine.io.loop import CancelledError, Visit
from kvdeck.engine.planning.layout import parse_layout_pair
from kvdeck.engine.ranks.board import Board
from kvdeck.engine.ranks.initiator import Lane, target_arguments
from kvdeck.engine.ranks.initiator_setup import LaneSetup, SharedTarget, local_pid
from kvdeck.engine.ranks.peer import PeerHost, RankCalls
from kvdeck.engine.ranks.rank_process import RankProcess
from kvdeck.engine.ranks.rendezvous import Lossy, check_lost, naming_losses
from kvdeck.engine.ranks.rpc import Remote
from kvdeck.sessions.errors import KvdeckError, RunFailedError

_SLOW_BYTES_PER_S = 200e6
"""Lowest expected rate of filling, preparing or comparing memory and files; sets the hang watchdog's limits."""
_HEADSTART_NS = 3_000_000  # time for a call to reach the other processes


@dataclass(frozen=True, slots=True)
class Prepared:
    """Times and descriptor count of a prepared step."""

    prep_ns: tuple[int, ...]
    """Preparation time of each request, over all initiators."""
    list_ns: int
    """Time to prepare the descriptor lists, of the slowest initiator."""
    descriptors: int
    """Descriptors that one request passes to the backend."""


@dataclass(frozen=True, slots=True)
class _Shared:
    """A target process that rank 0 opened, for one initiator or several."""

    remote: RankCalls
    setup: LaneSetup
    """Setup of the first sharer."""
    target: SharedTarget

    @property
    def position(self) -> int:
        return self.target.position

    @property
    def blocks(self) -> int:
        return self.setup.blocks // len(self.setup.shared) * self.target.sharers

    def origin(self, layout: str, seed: int) -> dict[str, Any]:
        """Return the origin of the bytes that the initiators write; their sources are contiguous in the pattern."""
        source, setup = parse_layout_pair(layout).source, self.setup
        regions, total = self.target.sharers * setup.devices, self.target.sharers * setup.blocks
        first = setup.shared.index(self.target) * self.blocks
        return origin_to_json(Origin(source, regions, seed, True, setup.position, first, total))


@dataclass(frozen=True, slots=True)
class PeerLink:
    """What leads from the initiators to one peer."""

    transport: str
    """Transports that connect them, as UCX names them: `tcp/eth1`."""
    share: float
    """Part of the bytes that goes to this peer or comes from it."""
    lanes: tuple[int, ...]
    """Indices of the initiators that have a target on it."""


class Crew:
    """Rank group: rank 0's initiator, plus one process per further thread or initiator device.

    `visit`, `verify` and the other calls raise RunFailedError if a rank is lost.
    """

    def __init__(self, setups: list[LaneSetup], cancelled: Callable[[], bool], peers: Sequence[PeerHost] = ()) -> None:
        """`peers`: hosts of the targets, in turn; without any, targets are children of this host's initiators."""
        self.peers = peers
        self._board: Board | None = None
        self._others: list[Remote] = []
        self._shared: list[_Shared] = []
        self._delays: list[RunDelays] = []
        """Of the shared targets."""
        self._layouts: dict[int, str] = {}
        self._pace: dict[int, float] = {}
        """Seconds per request in each step's last visit."""
        self._bytes, self._backend = sum(setup.bytes for setup in setups), setups[0].backend
        self._writes = setups[0].operation == "WRITE"
        self._lane: Lane | None = None
        self._streams: dict[int, RankCalls] = {}
        """Processes at the far end of the reference's streams, by their targets' numbers."""
        self._attending = False
        self.no_reference = ""
        """Why there is no reference between hosts; empty if there is one, or none was asked for."""
        self._targets_of: list[tuple[int, ...]] = []
        """Numbers of each initiator's shared targets."""
        try:
            for peer in peers:
                check_lost(peer)
            opening = sum(setup.bytes for setup in setups) / _SLOW_BYTES_PER_S
            with naming_losses(self._boards), hang.watched(f"opening {setups[0].backend}", opening):
                self._open(setups, cancelled)
        except BaseException:
            with contextlib.suppress(Exception):  # report the first error, not one of closing
                self.close()
            raise

    def _open(self, setups: list[LaneSetup], cancelled: Callable[[], bool]) -> None:
        if len(setups) > 1:
            self._board = Board()
            for peer in self.peers:
                peer.on_loss(self._board.lose)
        setups = self._open_shared(setups)
        self._targets_of = [tuple(target.number for target in setup.shared) for setup in setups]
        if self._board is not None:
            for index in range(1, len(setups)):
                self._others.append(RankProcess(self._board, "kvdeck.engine.ranks.rank", f"kvdeck-lane{index}"))
        opening = [
            remote.start("open", setup=dataclasses.asdict(setup))
            for remote, setup in zip(self._others, setups[1:], strict=True)
        ]
        self._lane = Lane(setups[0], f"kvdeck-lane0-{os.getpid()}", lambda: self._is_cut(cancelled))
        for remote, number in zip(self._others, opening, strict=True):
            remote.result(number)
        if setups[0].stream and self.peers:
            self._open_streams(setups)

    def _open_streams(self, setups: list[LaneSetup]) -> None:
        """Connect each initiator with a process beside each of its targets, for a plain TCP stream; or say why not."""
        try:
            for lane, places in enumerate(self._everywhere("listen")):
                for target, place in zip(self._targets_of[lane], places, strict=True):
                    if target not in self._streams:
                        self._streams[target] = self.peers[target % len(self.peers)].start_rank("stream")
                    size = setups[lane].bytes // len(places)
                    self._streams[target].call("connect", **place, write=self._writes, size=size)
            self._everywhere("accept")
        except RunFailedError:
            raise
        except KvdeckError as error:
            self.no_reference = error.what
            for stream in self._streams.values():
                stream.close()
            self._streams.clear()

    def _is_cut(self, cancelled: Callable[[], bool]) -> bool:
        """True if the run was cancelled; RunFailedError if a rank or a peer is lost."""
        return check_lost(self._board) or any(check_lost(peer) for peer in self.peers) or cancelled()

    def _open_shared(self, setups: list[LaneSetup]) -> list[LaneSetup]:
        """Open each shared target; return the setups completed with the target's name, metadata and places."""
        found: dict[int, dict[str, Any]] = {}
        for setup in setups:
            for target in setup.shared:
                if target.number not in found:
                    found[target.number] = self._open_target(setup, target)
        return [_told(setup, found) for setup in setups]

    def _open_target(self, setup: LaneSetup, target: SharedTarget) -> dict[str, Any]:
        """Start and open a shared target; return what it said."""
        shared = _Shared(self._start_target(target.number), setup, target)
        self._shared.append(shared)
        arguments = target_arguments(setup, shared.blocks, setup.target_devices) | {"gpu": target.gpu}
        opened: dict[str, Any] = shared.remote.call(
            "open", **arguments | ({"cores": target.cores} if target.cores else {})
        )
        self._delays.append(RunDelays([local_pid(opened["process"])]))
        if not self._writes:
            shared.remote.call("fill", seed=0, position=0)
        return opened

    def _start_target(self, number: int) -> RankCalls:
        if self.peers:
            return self.peers[number % len(self.peers)].start_target()
        assert self._board is not None
        return RankProcess(self._board, "kvdeck.engine.ranks.target", f"kvdeck-target{number}")

    def links(self) -> dict[str, PeerLink]:
        """Return what leads to each peer, by its label; {} without a peer."""
        if not self.peers:
            return {}
        ways: dict[str, list[str]] = {peer.label: [] for peer in self.peers}
        numbers: dict[str, set[int]] = {peer.label: set() for peer in self.peers}
        lanes: dict[str, list[int]] = {peer.label: [] for peer in self.peers}
        for lane, transports in enumerate(self._everywhere("transports")):
            for target, transport in zip(self._targets_of[lane], transports, strict=True):
                label = self.peers[target % len(self.peers)].label
                ways[label].append(transport)
                numbers[label].add(target)
                lanes[label].append(lane)
        total = len(self._shared)
        return {
            label: PeerLink(" ".join(dict.fromkeys(ways[label])), len(numbers[label]) / total, tuple(lanes[label]))
            for label in ways
        }

    def _everywhere(self, method: str, *, begin_together: bool = False, **arguments: Any) -> list[Any]:
        """Call a method on all initiators at once; return their results, rank 0's first and not converted to JSON."""
        if begin_together and self._others:
            arguments["begin_ns"] = time.perf_counter_ns() + _HEADSTART_NS
        with naming_losses(self._boards):
            calls = [remote.start(method, **arguments) for remote in self._others]
            first = getattr(self._lane, method)(**arguments)
            return [first, *(remote.result(call) for remote, call in zip(self._others, calls, strict=True))]

    def _boards(self) -> tuple[Lossy | None, ...]:
        return self._board, None if self._lane is None else self._lane.board, *self.peers

    @contextlib.contextmanager
    def _failing_together(self) -> Iterator[None]:
        """Make a request that fails on the way to a peer the end of the run.

        A request that is given up isn't cancelled: its bytes may still arrive, so the memory of both ends must not be
        used again, and this process is to end.

        Raises:
            RunFailedError: A request failed, or did not complete in time.
        """
        try:
            yield
        except (CancelledError, RunFailedError):
            raise
        except Exception as error:
            if not self.peers:
                raise
            hosts = ", ".join(peer.label for peer in self.peers)
            fix = error.fix if isinstance(error, KvdeckError) else "check the link and the peer"
            what = error.what if isinstance(error, KvdeckError) else str(error) or type(error).__name__
            failed = f"a transfer with {hosts} failed: {what}"
            for peer in self.peers:  # what follows must not wait for it
                peer.lose(failed)
            raise RunFailedError(failed, fix) from error

    def pages(self) -> list[str]:
        """Return the distinct kinds of pages of the endpoints' host memory, the initiators' first."""
        sides: list[list[str | None]] = self._everywhere("pages")
        return list(dict.fromkeys(text for texts in zip(*sides, strict=True) for text in texts if text))

    def prepare(self, step: int, layout: str, batch: int, depth: int, merge: bool) -> Prepared:
        self._layouts[step] = layout
        with hang.watched(f"making requests for {self._backend}", self._bytes / _SLOW_BYTES_PER_S):
            found = self._everywhere("prepare", step=step, layout=layout, batch=batch, depth=depth, merge=merge)
        times = tuple(time_ns for one in found for time_ns in one["prep_ns"])
        return Prepared(times, max(one["list_ns"] for one in found), found[0]["descriptors"])

    def visit(self, step: int, count: int) -> Visit:
        """Run `count` requests on each initiator; return the combined visit, from the first start to the last end."""
        with (
            self._failing_together(),
            hang.watched(f"a request over {self._backend}", self._pace.get(step, 0.0) * count),
        ):
            before = [delays.read() for delays in self._delays]
            found = self._everywhere("visit", begin_together=True, step=step, count=count)
            shared = [gained(one, delays.read()) for one, delays in zip(before, self._delays, strict=True)]
        visits = [one if isinstance(one, Visit) else Visit(**one) for one in found]
        self._pace[step] = (max(one.end_ns for one in visits) - min(one.start_ns for one in visits)) / 1e9 / count
        return Visit(
            min(visit.start_ns for visit in visits),
            max(visit.end_ns for visit in visits),
            tuple(time_ns for visit in visits for time_ns in visit.post_ns),
            tuple(time_ns for visit in visits for time_ns in visit.transfer_ns),
            tuple(visit.end_ns - visit.start_ns for visit in visits),
            _waits([visit.waits_ns for visit in visits], shared),
        )

    @property
    def reference_name(self) -> str | None:
        """Name of the reference that rank 0 opened; None without one."""
        return None if self._lane is None or self.no_reference else self._lane.reference_name

    def reference(self, group: int, count: int, at: int, plain: bool = False) -> int:
        """Return the wall time in ns of the reference moving groups of blocks, on all initiators at once."""
        attending = self._attending and bool(self._streams)
        if attending:  # a target that polls would take a core from the stream
            self.attend(False)
        with self._failing_together():
            spans = self._everywhere("reference", begin_together=True, group=group, count=count, at=at, plain=plain)
        if attending:
            self.attend(True)
        return int(max(end for _, end in spans) - min(start for start, _ in spans))

    def verify(self, step: int, seed: int) -> str | None:
        """Transfer the whole working set once and compare; return the first initiator's difference, or None."""
        with (
            self._failing_together(),
            hang.watched(f"verifying the bytes moved by {self._backend}", self._bytes / _SLOW_BYTES_PER_S),
        ):
            return self._verify(step, seed)

    def _verify(self, step: int, seed: int) -> str | None:
        if not self._shared:
            return next((found for found in self._everywhere("verify", step=step, seed=seed) if found), None)
        for shared in self._shared:
            if self._writes:
                shared.remote.call("poison")
            else:
                shared.remote.call("fill", seed=seed, position=shared.position)
        self._everywhere("ready", seed=seed)
        self.attend(True)
        try:
            self._everywhere("sweep", step=step)
        finally:
            self.attend(False)
        wrong = self._everywhere("compare", step=step, seed=seed)
        if self._writes:
            own = str(parse_layout_pair(self._layouts[step]).destination)
            for shared in self._shared:
                origin = shared.origin(self._layouts[step], seed)
                wrong.append(shared.remote.call("check", own=own, origin=origin))
        return next((found for found in wrong if found), None)

    def attend(self, busy: bool) -> None:
        if not busy and any(peer.lost for peer in self.peers):
            return  # the loss has been raised; no target listens any more
        self._attending = busy
        for shared in self._shared:
            shared.remote.call("attend", busy=busy)
        self._everywhere("attend", busy=busy)

    def release(self, step: int) -> None:
        self._everywhere("release", step=step)

    def close(self) -> None:
        """Close all initiators and end their processes and the shared targets."""
        for remote in self._others:
            remote.close()
        if self._lane is not None:
            self._lane.close()
        for delays in self._delays:
            delays.close()
        for one in (*self._streams.values(), *(shared.remote for shared in self._shared)):
            one.close()
        if self._board is not None:
            self._board.leave()


def _waits(lanes: Sequence[tuple[int, int] | None], shared: Sequence[int | None]) -> tuple[int, int] | None:
    """Return the waits of all initiators and of all targets, those of shared targets included; None if unknown."""
    known = [waits for waits in lanes if waits is not None]
    told = [wait for wait in shared if wait is not None]
    if len(known) < len(lanes) or len(told) < len(shared):
        return None
    return sum(own for own, _ in known), sum(far for _, far in known) + sum(told)


def _told(setup: LaneSetup, opened: dict[int, dict[str, Any]]) -> LaneSetup:
    """Return an initiator's setup with what its shared targets said of themselves, by their numbers."""
    there = tuple(
        dataclasses.replace(
            target,
            name=said["name"],
            metadata=said["metadata"],
            places=tuple((address, device) for address, device in said["places"]),
            pages=said["pages"],
            process=said["process"],
        )
        for target in setup.shared
        for said in (opened[target.number],)
    )
    return dataclasses.replace(setup, shared=there)
