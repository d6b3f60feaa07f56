"""One initiator with both sides of its transfers: it prepares requests, times visits, verifies and refers.

A lane is the unit of concurrency: rank 0 drives its own and, with more threads, one a process besides.
Its public methods take and return JSON values, so another rank can call them.
"""

from __future__ import annotations

import base64
import ctypes
import dataclasses
import functools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from kvdeck.engine.kv.layout import Geometry, LayoutPair, parse_layout_pair
from kvdeck.engine.transfer import descriptors, device, loop, memory, nixl, plugins
from kvdeck.engine.transfer.calls import Remote
from kvdeck.engine.transfer.device_side import DeviceSide
from kvdeck.engine.transfer.planning import FILE_PATHS
from kvdeck.engine.transfer.rendezvous import Board
from kvdeck.engine.transfer.sides import FileSide, HostSide, Origin, RemoteHostSide, Side, register
from kvdeck.engine.transfer.staged import StagedBinding
from kvdeck.sessions.errors import KvdeckError

COMPLETION_SECONDS = 30.0
_LEAST_PREPARED = 32  # requests made to time prep, so that its percentiles mean something


@dataclass(frozen=True, slots=True)
class LaneSetup:
    """Everything that stays the same while a lane lives."""

    path: str
    backend: str
    backend_params: dict[str, str]
    geometry: Geometry
    blocks: int
    """Blocks of this lane's working set."""
    folder: str
    files: int
    direct: bool
    durable: bool
    drop_cache: bool
    huge_pages: bool
    progress_thread: bool
    notify: bool
    two_processes: bool
    operation: str
    """NIXL's operation as the initiator sees it: WRITE from its own side, READ into it."""
    cores: tuple[tuple[int, ...], tuple[int, ...]]
    """Cores that the initiator and the target may use: one each where they are pinned."""
    reference: bool


def setup_from_json(data: dict[str, Any]) -> LaneSetup:
    """A setup that crossed a process boundary."""
    initiator, target = data["cores"]
    cores = (tuple(initiator), tuple(target))
    return LaneSetup(**{**data, "geometry": Geometry(**data["geometry"]), "cores": cores})


@dataclass(slots=True)
class _Prepared:
    """A step's requests, and where in the working set its next visit begins."""

    pair: LayoutPair
    handles: list[Any]
    lists: list[Any]
    batch: int
    depth: int
    next: int = 0

    def take(self, count: int) -> list[int]:
        """The binding's handles of the next `count` requests, round the working set."""
        ring = self.handles
        first, self.next = self.next, (self.next + count) % len(ring)
        return [ring[(first + index) % len(ring)]._handle for index in range(count)]


class Lane:
    """An initiator, its sides and its prepared steps."""

    def __init__(self, setup: LaneSetup, name: str, cancelled: Callable[[], bool]) -> None:
        self.busy = False
        self._board: Board | None = None
        self._setup = setup
        self._patience = loop.Patience(COMPLETION_SECONDS, cancelled)
        self._target: Remote | None = None
        self._registered: list[Any] = []
        self._steps: dict[int, _Prepared] = {}
        self._scratch: memory.HostBuffer | None = None
        os.sched_setaffinity(0, setup.cores[0])
        self._agent = nixl.make_agent(name, progress_thread=setup.progress_thread)
        self._backend = setup.backend.removeprefix(plugins.STAGED)
        nixl.create_backend(self._agent, self._backend, setup.backend_params)
        self._bound: Any = self._agent.agent
        self._remote_name = name
        self._own, self._other = self._open_sides(name)
        self._bounce = self._open_bounce()
        for side in (self._bounce or self._own, self._other):
            if side.regions:
                self._registered.append(register(self._agent, side, self._backend))
        self._source.fill(0)
        if isinstance(self._destination, FileSide):  # so that no timed write pays for allocating the file
            self._destination.poison()
        if setup.reference and (setup.path == "HostToHost" or setup.path in FILE_PATHS):
            self._scratch = memory.allocate(self._reference_bytes(), huge_pages=setup.huge_pages)

    @property
    def _source(self) -> Side:
        return self._own if self._setup.operation == "WRITE" else self._other

    @property
    def _destination(self) -> Side:
        return self._other if self._setup.operation == "WRITE" else self._own

    def _open_sides(self, name: str) -> tuple[Side, Side]:
        """The initiator's own side and the other."""
        path = self._setup.path
        if path == "HostToHost":
            other = self._open_target(f"{name}-target") if self._setup.two_processes else self._host()
            return self._host(), other
        if path == "DeviceToDevice":
            return self._device(0), self._device(min(1, device.require() - 1))
        on_device = "Device" in path
        if path in FILE_PATHS:
            own = self._device(0) if on_device else self._host()
            return own, self._files()
        return (self._host(), self._device(0)) if path == "HostToDevice" else (self._device(0), self._host())

    def _open_bounce(self) -> HostSide | None:
        """Host memory that staged requests go through, laid out byte for byte like the device's."""
        if not self._setup.backend.startswith(plugins.STAGED):
            return None
        write = self._setup.operation == "WRITE"
        gpu, direction = self._own.regions[0].device, "DeviceToHost" if write else "HostToDevice"
        copy = functools.partial(device.copy_pieces, gpu, cast(device.Direction, direction))
        self._bound = StagedBinding(self._agent.agent, copy, write=write)
        return self._host()

    def _host(self) -> HostSide:
        return HostSide(self._setup.geometry, self._setup.blocks, huge_pages=self._setup.huge_pages)

    def _device(self, gpu: int) -> DeviceSide:
        return DeviceSide(self._setup.geometry, self._setup.blocks, gpu)

    def _files(self) -> FileSide:
        setup = self._setup
        return FileSide(setup.geometry, setup.blocks, Path(setup.folder), setup.files, direct=setup.direct)

    def _open_target(self, name: str) -> RemoteHostSide:
        setup = self._setup
        self._board = Board()
        self._target = Remote(self._board, "kvdeck.engine.transfer.target", name)
        opened = self._target.call(
            "open",
            geometry=dataclasses.asdict(setup.geometry),
            blocks=setup.blocks,
            huge_pages=setup.huge_pages,
            backend=setup.backend,
            params=setup.backend_params,
            progress_thread=setup.progress_thread,
            cores=setup.cores[1],
        )
        self._agent.add_remote_agent(base64.b64decode(opened["metadata"]))
        self._remote_name = opened["name"]
        return RemoteHostSide(setup.geometry, setup.blocks, opened["address"], self._target)

    def prepare(self, step: int, layout: str, batch: int, depth: int, merge: bool) -> dict[str, Any]:
        """Make a step's requests.

        Returns:
            `prep_ns`, one time a request made; `list_ns`, the time of preparing both descriptor lists; and
            `descriptors`, how many of them one request hands to the backend.
        """
        setup, pair = self._setup, parse_layout_pair(layout)
        whole = pair.descriptors_per_block(setup.geometry) == 1
        own_layout, other_layout = (pair.source, pair.destination)
        if setup.operation == "READ":
            own_layout, other_layout = other_layout, own_layout
        begin = time.perf_counter_ns()
        near = self._bounce or self._own
        own = near.describe(own_layout, whole=whole).reshape(-1, 3)
        other = self._other.describe(other_layout, whole=whole).reshape(-1, 3)
        lists = [
            self._agent.prep_xfer_dlist("", own, near.memory_type, [self._backend]),
            self._agent.prep_xfer_dlist(self._remote_name, other, self._other.memory_type, [self._backend]),
        ]
        list_ns = time.perf_counter_ns() - begin
        per_request = batch * (len(own) // setup.blocks)
        handles, prep_ns = self._make_requests(lists, len(own) // per_request, per_request, merge)
        if isinstance(self._bound, StagedBinding):
            pieces = self._own.describe(own_layout, whole=whole).reshape(-1, 3)
            for index, handle in enumerate(handles):
                rows = slice(index * per_request, (index + 1) * per_request)
                self._bound.stage(handle._handle, pieces[rows], own[rows])
        self._steps[step] = _Prepared(pair, handles, lists, batch, min(depth, len(handles)))
        counted = descriptors.merged_count(own[:per_request], other[:per_request]) if merge else per_request
        return {"prep_ns": prep_ns, "list_ns": list_ns, "descriptors": counted}

    def _make_requests(
        self, lists: list[Any], count: int, per_request: int, merge: bool
    ) -> tuple[list[Any], list[int]]:
        setup = self._setup
        notification = b"kvdeck" if setup.notify and setup.two_processes else b""
        handles, prep_ns = [], []
        for index in range(max(count, _LEAST_PREPARED)):
            first = index % count * per_request
            rows = np.arange(first, first + per_request, dtype=np.int32)
            begin = time.perf_counter_ns()
            handle = self._agent.make_prepped_xfer(
                setup.operation, lists[0], rows, lists[1], rows, notification, [self._backend], not merge
            )
            prep_ns.append(time.perf_counter_ns() - begin)
            if index < count:
                handles.append(handle)
            else:
                self._agent.release_xfer_handle(handle)
        return handles, prep_ns

    def visit(self, step: int, count: int, begin_ns: int = 0) -> loop.Visit:
        """Time `count` requests of a step, from `begin_ns` on, so that lanes begin together."""
        prepared, bound = self._steps[step], self._bound
        other = self._other
        if self._setup.drop_cache and isinstance(other, FileSide):
            other.drop_cache()
        os.sched_setaffinity(0, self._setup.cores[0])  # another lane of this process may have moved it
        handles = prepared.take(count)
        _wait_until(begin_ns)
        if prepared.depth == 1:
            visit = loop.serial_visit(bound.postXferReq, bound.getXferStatus, handles, self._patience)
        else:
            visit = loop.pipelined_visit(
                bound.postXferReq, bound.getXferStatus, handles, prepared.depth, self._patience
            )
        if self._setup.durable and isinstance(other, FileSide):
            other.sync()
            visit = dataclasses.replace(visit, end_ns=time.perf_counter_ns())
        return visit

    def verify(self, step: int, seed: int) -> str | None:
        """Move the whole working set once, from fresh bytes onto poison; returns what is wrong, or None."""
        prepared, files = self._steps[step], self._setup.files
        self._source.fill(seed)
        self._destination.poison()
        prepared.next = 0
        bound = self._bound
        if self._bounce is not None:
            self._bounce.poison()
        self.attend(True)
        try:
            ring = prepared.take(len(prepared.handles))
            loop.serial_visit(bound.postXferReq, bound.getXferStatus, ring, self._patience)
        finally:
            self.attend(False)
        source_files = files if isinstance(self._source, FileSide) else 1
        return self._destination.check(prepared.pair.destination, Origin(prepared.pair.source, source_files, seed))

    def attend(self, busy: bool) -> None:
        """Let the target poll for notifications, or rest."""
        if self._target is not None:
            self._target.call("attend", busy=busy)

    def _reference_bytes(self) -> int:
        return self._setup.geometry.block_bytes * self._setup.blocks

    def reference(self, batch: int, count: int, at: int, begin_ns: int = 0) -> tuple[int, int]:
        """Move the bytes of `count` requests by plain means: memcpy, or pread and pwrite on the same files.

        Returns:
            Start and end, ns.
        """
        size, total = self._setup.geometry.block_bytes, self._setup.blocks
        blocks = [(at * batch + index) % total for index in range(batch * count)]
        other = self._other
        if isinstance(other, FileSide):
            if self._setup.drop_cache:
                other.drop_cache()
            return self._file_reference(other, blocks, size, begin_ns)
        move = self._memory_mover(size)
        _wait_until(begin_ns)
        begin = time.perf_counter_ns()
        for block in blocks:
            move(block * size)
        return begin, time.perf_counter_ns()

    def _memory_mover(self, size: int) -> Callable[[int], Any]:
        """What moves one block at an offset from the source's memory to the destination's by plain means."""
        path = self._setup.path
        if path == "HostToHost":
            assert self._scratch is not None
            to, origin = self._scratch.address, self._own.regions[0].address
            return lambda offset: ctypes.memmove(to + offset, origin + offset, size)
        source, destination = self._source.regions[0], self._destination.regions[0]
        gpu = destination.device if path == "HostToDevice" else source.device
        direction = cast(device.Direction, path)
        return lambda offset: device.copy(gpu, direction, destination.address + offset, source.address + offset, size)

    def _file_reference(self, other: FileSide, blocks: list[int], size: int, begin_ns: int) -> tuple[int, int]:
        assert self._scratch is not None
        room = self._scratch.array.data
        calls = [
            (
                other.descriptors[block % other.files],
                room[block * size : (block + 1) * size],
                block // other.files * size,
            )
            for block in blocks
        ]
        write = self._setup.operation == "WRITE"
        _wait_until(begin_ns)
        begin = time.perf_counter_ns()
        for fd, part, offset in calls:
            done = os.pwrite(fd, part, offset) if write else os.preadv(fd, [part], offset)
            if done != size:
                raise KvdeckError(
                    f"a plain {'pwrite' if write else 'pread'} moved {done} of {size} bytes", "is the disk full?"
                )
        if write and self._setup.durable:
            other.sync()
        return begin, time.perf_counter_ns()

    def release(self, step: int) -> None:
        """Give a step's requests back."""
        prepared = self._steps.pop(step)
        for handle in prepared.handles:
            self._agent.release_xfer_handle(handle)
        for prepped in prepared.lists:
            self._agent.release_dlist_handle(prepped)

    def poll(self) -> None:
        """Nothing to do between calls."""

    def close(self) -> None:
        """Give everything back in NIXL's order: requests, registrations, agent, memory."""
        for step in list(self._steps):
            self.release(step)
        for registered in self._registered:
            self._agent.deregister_memory(registered)
        self._registered.clear()
        if self._target is not None:
            self._agent.remove_remote_agent(self._remote_name)
            self._target.close()
        if self._board is not None:
            self._board.close()
        self._agent = self._bound = None
        for side in (self._own, self._other, self._bounce):
            if side is not None:
                side.close()
        if self._scratch is not None:
            self._scratch.close()
            self._scratch = None


def _wait_until(begin_ns: int) -> None:
    while time.perf_counter_ns() < begin_ns:
        pass
