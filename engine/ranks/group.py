"""Rank group: all initiators of a run driven as one; they start each visit together, and their times are combined.

If several initiators share a target process, rank 0 opens, fills, poisons, checks and polls it for all of them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from kvdeck.engine.host.run_delay import RunDelays, gained
from kvdeck.engine.io import hang
from kvdeck.engine.io.endpoints import Origin, origin_to_json
from kvdeck.engine.io.loop import Visit
from kvdeck.engine.planning.layout import parse_layout_pair
from kvdeck.engine.ranks.initiator import Lane, target_arguments
from kvdeck.engine.ranks.initiator_setup import LaneSetup, local_pid
from kvdeck.engine.ranks.rendezvous import Board, check_board, naming_losses
from kvdeck.engine.ranks.rpc import Remote

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
    """A target process shared by several initiators."""

    remote: Remote
    setup: LaneSetup
    """Setup of the first sharer."""

    @property
    def sharers(self) -> int:
        assert self.setup.shared is not None
        return self.setup.shared.sharers

    @property
    def position(self) -> int:
        assert self.setup.shared is not None
        return self.setup.shared.position

    def origin(self, layout: str, seed: int) -> dict[str, Any]:
        """Return the origin of the bytes that the initiators write; their sources are contiguous in the pattern."""
        source = parse_layout_pair(layout).source
        return origin_to_json(Origin(source, self.sharers, seed, True, self.setup.position))


class Crew:
    """Rank group: rank 0's initiator, plus one process per further thread or initiator device.

    `visit`, `verify` and the other calls raise RunFailedError if a rank is lost.
    """

    def __init__(self, setups: list[LaneSetup], cancelled: Callable[[], bool]) -> None:
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
        try:
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
            setups = self._open_shared(self._board, setups)
            for index in range(1, len(setups)):
                self._others.append(Remote(self._board, "kvdeck.engine.ranks.rank", f"kvdeck-lane{index}"))
        opening = [
            remote.start("open", setup=dataclasses.asdict(setup))
            for remote, setup in zip(self._others, setups[1:], strict=True)
        ]
        self._lane = Lane(setups[0], f"kvdeck-lane0-{os.getpid()}", lambda: check_board(self._board) or cancelled())
        for remote, number in zip(self._others, opening, strict=True):
            remote.result(number)

    def _open_shared(self, board: Board, setups: list[LaneSetup]) -> list[LaneSetup]:
        """Open each shared target; return the setups completed with the target's name, metadata and places."""
        found: dict[int, dict[str, Any]] = {}
        for setup in setups:
            shared = setup.shared
            if shared is None or shared.number in found:
                continue
            remote = Remote(board, "kvdeck.engine.ranks.target", f"kvdeck-target{shared.number}")
            self._shared.append(_Shared(remote, setup))
            found[shared.number] = remote.call(
                "open", **target_arguments(setup, setup.blocks * shared.sharers, setup.target_devices)
            )
            self._delays.append(RunDelays([local_pid(found[shared.number]["process"])]))
            if not self._writes:
                remote.call("fill", seed=0, position=0)
        return [setup if setup.shared is None else _told(setup, found[setup.shared.number]) for setup in setups]

    def _everywhere(self, method: str, *, begin_together: bool = False, **arguments: Any) -> list[Any]:
        """Call a method on all initiators at once; return their results, rank 0's first and not converted to JSON."""
        if begin_together and self._others:
            arguments["begin_ns"] = time.perf_counter_ns() + _HEADSTART_NS
        with naming_losses(self._boards):
            calls = [remote.start(method, **arguments) for remote in self._others]
            first = getattr(self._lane, method)(**arguments)
            return [first, *(remote.result(call) for remote, call in zip(self._others, calls, strict=True))]

    def _boards(self) -> tuple[Board | None, Board | None]:
        return self._board, None if self._lane is None else self._lane.board

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
        with hang.watched(f"a request over {self._backend}", self._pace.get(step, 0.0) * count):
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
        return None if self._lane is None else self._lane.reference_name

    def reference(self, group: int, count: int, at: int, plain: bool = False) -> int:
        """Return the wall time in ns of the reference moving groups of blocks, on all initiators at once."""
        spans = self._everywhere("reference", begin_together=True, group=group, count=count, at=at, plain=plain)
        return int(max(end for _, end in spans) - min(start for start, _ in spans))

    def verify(self, step: int, seed: int) -> str | None:
        """Transfer the whole working set once and compare; return the first initiator's difference, or None."""
        with hang.watched(f"verifying the bytes moved by {self._backend}", self._bytes / _SLOW_BYTES_PER_S):
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
        for shared in self._shared:
            shared.remote.close()
        if self._board is not None:
            self._board.close()


def _waits(lanes: Sequence[tuple[int, int] | None], shared: Sequence[int | None]) -> tuple[int, int] | None:
    """Return the waits of all initiators and of all targets, those of shared targets included; None if unknown."""
    known = [waits for waits in lanes if waits is not None]
    told = [wait for wait in shared if wait is not None]
    if len(known) < len(lanes) or len(told) < len(shared):
        return None
    return sum(own for own, _ in known), sum(far for _, far in known) + sum(told)


def _told(setup: LaneSetup, opened: dict[str, Any]) -> LaneSetup:
    assert setup.shared is not None
    there = dataclasses.replace(
        setup.shared,
        name=opened["name"],
        metadata=opened["metadata"],
        places=tuple((address, device) for address, device in opened["places"]),
        pages=opened["pages"],
        process=opened["process"],
    )
    return dataclasses.replace(setup, shared=there)
