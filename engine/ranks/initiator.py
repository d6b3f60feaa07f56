"""Initiator with both endpoints of its transfers: prepares requests, times visits, verifies, and runs the reference.

An initiator (`Lane`) is the unit of concurrency: rank 0 drives one in its own process, and each further thread, or
initiator device with a process of its own, adds one. Public methods take and return JSON values (`visit` returns a
dataclass that serializes to JSON), so that another rank can call them.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import functools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from kvdeck.engine.host.run_delay import RunDelays, gained
from kvdeck.engine.io import cuda, descriptors, loop, nixl, plugins
from kvdeck.engine.io.bindings import StagedBinding, Volley, VolleyBinding
from kvdeck.engine.io.endpoints import DeviceSide, FileSide, HostSide, Origin, TransferEndpoint, register
from kvdeck.engine.io.transports import connect
from kvdeck.engine.planning.layout import Layout, LayoutPair, parse_layout_pair
from kvdeck.engine.ranks import reference
from kvdeck.engine.ranks.board import Board
from kvdeck.engine.ranks.initiator_setup import LaneSetup, local_pid
from kvdeck.engine.ranks.rank_process import RankProcess
from kvdeck.engine.ranks.remote_endpoint import RemoteSide
from kvdeck.engine.ranks.rendezvous import check_lost
from kvdeck.engine.ranks.rpc import Remote
from kvdeck.engine.ranks.tcp_stream import StreamListener, TcpStream
from kvdeck.sessions.errors import UnavailableError
from kvdeck.sessions.model.records import FILE_PATHS

_AnySide = TypeVar("_AnySide", bound=TransferEndpoint)
_LEAST_PREPARED = 32  # minimum number of requests made to time preparation, enough for percentiles


@dataclass(slots=True)
class _Prepared:
    """A step's requests, and the index of the request with which its next visit begins."""

    pair: LayoutPair
    handles: list[Any]
    lists: list[tuple[Any, Any]]
    """Prepared descriptor lists (own, other endpoint) for each remote agent."""
    batch: int
    depth: int
    next: int = 0

    def take(self, count: int) -> list[int]:
        """Return the binding's handles of the next `count` requests, cycling through the working set."""
        ring = self.handles
        first, self.next = self.next, (self.next + count) % len(ring)
        return [ring[(first + index) % len(ring)]._handle for index in range(count)]


class Lane:
    """Initiator with its endpoints and prepared steps; `__init__` opens them and starts its own target processes.

    Raises:
        UnavailableError: The backend, GPU or filesystem can't be used.
        RunFailedError: A target process is gone.
        KvdeckError: A target process failed to open.
    """

    def __init__(self, setup: LaneSetup, name: str, cancelled: Callable[[], bool]) -> None:
        self.busy = False
        self._transports: list[str] = []
        self._polled = False
        """True while its own targets poll."""
        self._board: Board | None = None
        self._setup = setup
        self._patience = loop.Patience(setup.patience_s, lambda: self._is_cut(cancelled))
        self._targets: list[Remote] = []
        self._registered: list[Any] = []
        self._steps: dict[int, _Prepared] = {}
        self._reference: reference.Reference | None = None
        self._on_plain: reference.Reference | None = None
        self._opened: list[TransferEndpoint] = []
        self._remote_names: list[str] = []
        self._own_delay, self._target_delay = RunDelays([os.getpid()]), RunDelays([])
        self._target_pids: list[int | None] = []
        self._shared_pid: int | None = None
        self._agent: Any = None
        self._listener: StreamListener | None = None
        try:
            self._open(name)
        except BaseException:
            with contextlib.suppress(Exception):  # report the first error, not one of closing
                self.close()
            raise

    def _open(self, name: str) -> None:
        setup = self._setup
        os.sched_setaffinity(0, setup.cores[0])
        self._agent = nixl.make_agent(name, progress_thread=setup.progress_thread)
        self._backend = setup.backend.removeprefix(plugins.STAGED)
        nixl.create_backend(self._agent, self._backend, setup.backend_params)
        self._bound: Any = self._agent.agent if setup.targets == 1 else VolleyBinding(self._agent.agent)
        self._remote_names.append(name)
        self._own, self._others = self._open_sides(name)
        self._bounce = self._open_bounce()
        for side in (self._bounce or self._own, *self._others):
            if side.regions:
                self._registered.append(register(self._agent, side, self._backend))
        for source in self._sources:
            source.fill(0)
        for side in self._others:
            if isinstance(side, FileSide) and self._writes:  # so that no timed write includes allocating the file
                side.poison()
        self._target_delay = RunDelays(self._target_pids)
        if setup.reference:
            target = self._target_pids[0] if self._target_pids else self._shared_pid
            self._reference = reference.open_reference(setup, self._bounce or self._own, self._other, target)

    @property
    def _writes(self) -> bool:
        return self._setup.operation == "WRITE"

    @property
    def _other(self) -> TransferEndpoint:
        """The first other endpoint; there are more only with several target processes."""
        return self._others[0]

    @property
    def _sources(self) -> list[TransferEndpoint]:
        return [self._own] if self._writes else list(self._others)

    @property
    def _destinations(self) -> list[TransferEndpoint]:
        return list(self._others) if self._writes else [self._own]

    @property
    def board(self) -> Board | None:
        """Rendezvous server of this initiator's own targets; None without such targets."""
        return self._board

    def _is_cut(self, cancelled: Callable[[], bool]) -> bool:
        """True if the run was cancelled; RunFailedError if one of its own targets is gone."""
        return check_lost(self._board) or cancelled()

    def _open_sides(self, name: str) -> tuple[TransferEndpoint, list[TransferEndpoint]]:
        """Open and return the initiator's own endpoint and the other endpoints."""
        path = self._setup.path
        if path == "HostToHost":
            return self._host(self._setup.devices), self._far_hosts(name)
        if path == "DeviceToDevice" and self._setup.shared:
            return self._device(self._setup.gpu), self._shared_targets("VRAM")
        if path == "DeviceToDevice":
            far = min(1, cuda.require() - 1)
            return self._device(0), self._targets_of(name, far) if self._setup.two_processes else [self._device(far)]
        on_device = "Device" in path
        if path in FILE_PATHS:
            own = self._device(0) if on_device else self._host(self._setup.devices)
            return own, [self._files()]
        return (self._host(), [self._device(0)]) if path == "HostToDevice" else (self._device(0), [self._host()])

    def _far_hosts(self, name: str) -> list[TransferEndpoint]:
        setup = self._setup
        if not setup.two_processes:
            return [self._host(setup.target_devices)]
        return self._shared_targets() if setup.shared else self._targets_of(name)

    def _shared_targets(self, memory_type: str = "DRAM") -> list[TransferEndpoint]:
        """Connect with the targets that rank 0 opened."""
        setup = self._setup
        self._remote_names[:] = [one.name for one in setup.shared]
        self._transports = [connect(self._agent, self._backend, one.metadata) for one in setup.shared]
        self._shared_pid = local_pid(setup.shared[0].process)
        each = setup.blocks // len(setup.shared)
        return [
            RemoteSide(setup.geometry, each * one.sharers, one.places, None, memory_type, one.pages)
            for one in setup.shared
        ]

    def _targets_of(self, name: str, gpu: int | None = None) -> list[TransferEndpoint]:
        """Start a process for each target, with memory on the host or on `gpu`, and return the endpoints."""
        self._remote_names.clear()
        board = self._board = Board()
        numbers = range(self._setup.targets)
        return [self._open_target(board, f"{name}-target{number or ''}", number, gpu) for number in numbers]

    def _open_bounce(self) -> HostSide | None:
        """Open host memory for staged requests, with the same layout as the device's; None without staging."""
        if not self._setup.backend.startswith(plugins.STAGED):
            return None
        write = self._setup.operation == "WRITE"
        gpu, direction = self._own.regions[0].device, "DeviceToHost" if write else "HostToDevice"
        copy = functools.partial(cuda.copy_pieces, gpu, cast(cuda.Direction, direction))
        self._bound = StagedBinding(self._agent.agent, copy, write=write)
        return self._host()

    def _host(self, devices: int = 1) -> HostSide:
        setup = self._setup
        return self._keep(HostSide(setup.geometry, setup.blocks, huge_pages=setup.huge_pages, devices=devices))

    def _device(self, gpu: int) -> DeviceSide:
        return self._keep(DeviceSide(self._setup.geometry, self._setup.blocks, gpu))

    def _files(self) -> FileSide:
        setup = self._setup
        return self._keep(FileSide(setup.geometry, setup.blocks, Path(setup.folder), setup.files, direct=setup.direct))

    def _keep(self, side: _AnySide) -> _AnySide:
        """Record an endpoint for `close`."""
        self._opened.append(side)
        return side

    def _open_target(self, board: Board, name: str, number: int, gpu: int | None) -> RemoteSide:
        setup = self._setup
        target = RankProcess(board, "kvdeck.engine.ranks.target", name)
        self._targets.append(target)
        blocks = setup.blocks // setup.targets
        arguments = target_arguments(setup, blocks, setup.target_devices)
        if setup.targets == len(setup.cores[1]):
            arguments["cores"] = [setup.cores[1][number]]
        opened = target.call("open", **arguments, gpu=gpu)
        self._agent.add_remote_agent(base64.b64decode(opened["metadata"]))
        self._target_pids.append(local_pid(opened["process"]))
        self._remote_names.append(opened["name"])
        memory_type = "DRAM" if gpu is None else "VRAM"
        return RemoteSide(setup.geometry, blocks, opened["places"], target, memory_type, opened["pages"])

    def transports(self) -> list[str]:
        """Return what connects it with each of its shared targets, as UCX names it: `tcp/eth1`."""
        return self._transports

    def listen(self) -> list[dict[str, Any]]:
        """Listen for a TCP stream from each shared target's host; return the places to connect to.

        Raises:
            UnavailableError: There can be none.
        """
        if self._own.memory_type != "DRAM":
            raise UnavailableError("the bytes are a GPU's: there is no plain means", "compare with the link's bound")
        self._listener = StreamListener(self._transports)
        return self._listener.places()

    def accept(self) -> None:
        """Take the streams as the reference.

        Raises:
            UnavailableError: One of them didn't come.
        """
        assert self._listener is not None
        rows = reference.whole_blocks(self._own)
        self._reference = TcpStream(self._listener.accept(), rows, self._setup.patience_s, write=self._writes)

    def pages(self) -> list[str | None]:
        """Return the pages of the own endpoint (of the memory it is staged through, if so) and of the first other."""
        return [(self._bounce or self._own).pages, self._other.pages]

    def prepare(self, step: int, layout: str, batch: int, depth: int, merge: bool) -> dict[str, Any]:
        """Make a step's requests; `batch` is in blocks per request, `depth` in requests in flight.

        Returns:
            `prep_ns`: one preparation time per request made; `list_ns`: time to prepare the descriptor lists of both
            endpoints; `descriptors`: number of descriptors that one request passes to the backend.
        """
        setup, pair = self._setup, parse_layout_pair(layout)
        whole = pair.descriptors_per_block(setup.geometry) == 1
        own_layout, other_layout = (pair.source, pair.destination)
        if setup.operation == "READ":
            own_layout, other_layout = other_layout, own_layout
        begin = time.perf_counter_ns()
        near = self._bounce or self._own
        each, pairs = setup.blocks // setup.targets, setup.pairs // setup.targets
        near_rows = near.describe(own_layout, whole=whole)
        own = [
            descriptors.in_pairs(near_rows[at : at + each], pairs, batch // setup.pairs)
            for at in range(0, setup.blocks, each)
        ]
        other = [
            descriptors.in_pairs(self._rows_of(side, other_layout, whole), pairs, batch // setup.pairs)
            for side in self._others
        ]
        lists = [
            (
                self._agent.prep_xfer_dlist("", own[number], near.memory_type, [self._backend]),
                self._agent.prep_xfer_dlist(name, other[number], self._other.memory_type, [self._backend]),
            )
            for number, name in enumerate(self._remote_names)
        ]
        list_ns = time.perf_counter_ns() - begin
        per_request = batch // setup.targets * (len(own[0]) // each)
        count = len(own[0]) // per_request
        handles, prep_ns = self._make_requests(lists, count, per_request, merge)
        if isinstance(self._bound, StagedBinding):
            pieces = self._own.describe(own_layout, whole=whole).reshape(-1, 3)
            for index, handle in enumerate(handles):
                rows = slice(index * per_request, (index + 1) * per_request)
                self._bound.stage(handle._handle, pieces[rows], own[0][rows])
        self._steps[step] = _Prepared(pair, handles, lists, batch, min(depth, len(handles)))
        counted = sum(
            descriptors.merged_count(near_one[:per_request], far_one[:per_request]) if merge else per_request
            for near_one, far_one in zip(own, other, strict=True)
        )
        return {"prep_ns": prep_ns, "list_ns": list_ns, "descriptors": counted}

    def _rows_of(self, side: TransferEndpoint, layout: Layout, whole: bool) -> npt.NDArray[np.uint64]:
        """Return the other endpoint's descriptors; for a shared target, those of this initiator's blocks."""
        rows, shared = side.describe(layout, whole=whole), self._setup.shared
        return rows[shared[0].place * self._setup.blocks :][: self._setup.blocks] if len(shared) == 1 else rows

    def _make_requests(
        self, lists: list[tuple[Any, Any]], count: int, per_request: int, merge: bool
    ) -> tuple[list[Any], list[int]]:
        setup = self._setup
        notification = b"kvdeck" if setup.notify and setup.two_processes else b""
        handles: list[Any] = []
        prep_ns = []
        for index in range(max(count, _LEAST_PREPARED)):
            first = index % count * per_request
            rows = np.arange(first, first + per_request, dtype=np.int32)
            begin = time.perf_counter_ns()
            made = tuple(
                self._agent.make_prepped_xfer(
                    setup.operation, near, rows, far, rows, notification, [self._backend], not merge
                )
                for near, far in lists
            )
            prep_ns.append(time.perf_counter_ns() - begin)
            if index < count:
                handles.append(made[0] if len(made) == 1 else Volley(made))
            else:
                self._release(made)
        return handles, prep_ns

    def _release(self, handles: tuple[Any, ...]) -> None:
        for handle in handles:
            self._agent.release_xfer_handle(handle)

    def visit(self, step: int, count: int, begin_ns: int = 0) -> loop.Visit:
        """Time `count` requests of a step, from `begin_ns` (`CLOCK_MONOTONIC`) on, a start shared by all initiators.

        Raises:
            CancelledError: The run was cancelled.
            RunFailedError: A target is gone.
            KvdeckError: A request didn't complete in time.
        """
        prepared, bound = self._steps[step], self._bound
        other = self._other
        if self._setup.drop_cache and isinstance(other, FileSide):
            other.drop_cache()
        os.sched_setaffinity(0, self._setup.cores[0])  # another initiator opened in this process may have changed it
        handles, yields = prepared.take(count), self._setup.yields[0]
        reference.wait_until(begin_ns)
        own, far = self._own_delay.read(), self._target_delay.read()
        if prepared.depth == 1:
            visit = loop.serial_visit(bound.postXferReq, bound.getXferStatus, handles, self._patience, yields=yields)
        else:
            visit = loop.pipelined_visit(
                bound.postXferReq, bound.getXferStatus, handles, prepared.depth, self._patience, yields=yields
            )
        own, far = gained(own, self._own_delay.read()), gained(far, self._target_delay.read())
        if own is not None and far is not None:
            visit = dataclasses.replace(visit, waits_ns=(own, far))
        if self._setup.durable and isinstance(other, FileSide):
            other.sync()
            visit = dataclasses.replace(visit, end_ns=time.perf_counter_ns())
        return visit

    def verify(self, step: int, seed: int) -> str | None:
        """Transfer the whole working set once, from fresh bytes onto poison; return the first difference, or None."""
        self.ready(seed)
        self.attend(True)
        try:
            self.sweep(step)
        finally:
            self.attend(False)
        return self.compare(step, seed)

    def ready(self, seed: int) -> None:
        """Fill the sources and poison the destinations; shared targets are left to rank 0."""
        position = self._setup.position
        for source in self._sources:
            source.fill(seed, position)
            position += self._setup.bytes // len(self._sources)
        for destination in self._destinations:
            destination.poison()
        if self._bounce is not None:
            self._bounce.poison()

    def sweep(self, step: int) -> None:
        """Run every request of a step once."""
        prepared, bound = self._steps[step], self._bound
        prepared.next = 0
        ring = prepared.take(len(prepared.handles))
        yields = self._setup.yields[0]
        loop.serial_visit(bound.postXferReq, bound.getXferStatus, ring, self._patience, yields=yields)

    def compare(self, step: int, seed: int) -> str | None:
        """Compare the bytes in this initiator's destinations; return the first difference as a message, or None."""
        setup, pair = self._setup, self._steps[step].pair
        if self._writes:
            origin = Origin(pair.source, setup.devices, seed, True, setup.position, 0, setup.blocks)
        elif isinstance(self._other, FileSide):
            origin = Origin(pair.source, setup.files, seed, position=setup.position)
        elif len(setup.shared) == 1:
            (shared,) = setup.shared
            first, total = shared.place * setup.blocks, shared.sharers * setup.blocks
            origin = Origin(pair.source, setup.target_devices, seed, True, shared.position, first, total)
        else:
            origin = Origin(pair.source, setup.targets * setup.target_devices, seed, True, setup.position)
        for number, destination in enumerate(self._destinations):
            here = dataclasses.replace(origin, first=origin.first + number * setup.blocks // len(self._destinations))
            if found := destination.check(pair.destination, here):
                return f"target {number}: {found}" if setup.targets > 1 else found
        return None

    def attend(self, busy: bool) -> None:
        """Start or stop polling for notifications in this initiator's own targets."""
        self._polled = busy
        for target in self._targets:
            target.call("attend", busy=busy)

    @property
    def reference_name(self) -> str | None:
        return None if self._reference is None else self._reference.name

    def reference(self, group: int, count: int, at: int, begin_ns: int = 0, plain: bool = False) -> tuple[int, int]:
        """Move `count` groups of blocks, from the group `at` on, by the reference; a group is in flight together.

        `plain`: from or to memory on plain pages, where the reference is `io_submit`.

        Returns:
            Start and end in ns of `CLOCK_MONOTONIC`.

        Raises:
            KvdeckError: The system refuses.
            UnavailableError: A CUDA copy fails.
        """
        blocks = [(at * group + index) % self._setup.blocks for index in range(group * count)]
        used = self._reference
        if plain:
            near = self._bounce or self._own
            self._on_plain = self._on_plain or reference.open_on_plain_pages(self._setup, near, self._other, group)
            used = self._on_plain
        assert used is not None
        planned, polling = used.plan(blocks, group), self._polled
        if not used.target_core or not polling:
            return reference.timed(planned, begin_ns)
        self.attend(False)
        try:
            return reference.timed(planned, begin_ns)
        finally:
            self.attend(True)

    def release(self, step: int) -> None:
        """Release a step's requests and descriptor lists."""
        prepared = self._steps.pop(step)
        for handle in prepared.handles:
            self._release(handle.handles if isinstance(handle, Volley) else (handle,))
        for prepped in prepared.lists:
            for one in prepped:
                self._agent.release_dlist_handle(one)

    def poll(self) -> None:
        """Nothing to do between calls."""

    def close(self) -> None:
        """Release everything in the order that NIXL requires: requests, registrations, agent, memory."""
        for step in list(self._steps):
            self.release(step)
        for registered in self._registered:
            self._agent.deregister_memory(registered)
        self._registered.clear()
        if self._setup.two_processes:
            for name in self._remote_names:
                self._agent.remove_remote_agent(name)
        for target in self._targets:
            target.close()
        if self._board is not None:
            self._board.leave()
        self._agent = self._bound = None
        if self._listener is not None:
            self._listener.close()
        for opened in (self._reference, self._on_plain):
            if opened is not None:
                opened.close()
        self._reference = self._on_plain = None
        for side in self._opened:
            side.close()
        self._opened.clear()
        for delay in (self._own_delay, self._target_delay):
            delay.close()


def target_arguments(setup: LaneSetup, blocks: int, devices: int) -> dict[str, Any]:
    """Return the arguments of `Target.open`, except `gpu`."""
    return {
        "geometry": dataclasses.asdict(setup.geometry),
        "blocks": blocks,
        "huge_pages": setup.huge_pages,
        "backend": setup.backend,
        "params": setup.backend_params,
        "progress_thread": setup.progress_thread,
        "cores": setup.cores[1],
        "devices": devices,
        "yields": setup.yields[1],
    }
