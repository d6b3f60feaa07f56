"""Reference for an initiator's transfers: the same bytes, in the same memory, by the plainest means there is.

Where these means can't well be exceeded they are a limit (`sessions.model.references.is_limit`): as many blocks are in
flight as in the transfers, and a copy between two processes is one call.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import time
from collections.abc import Callable, Sequence
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt

from kvdeck.engine.io import cuda, memory
from kvdeck.engine.io.endpoints import DeviceSide, FileSide, TransferEndpoint
from kvdeck.engine.io.kernel_aio import KernelAio
from kvdeck.engine.io.process_memory import plan_copies, run_copies
from kvdeck.engine.planning.layout import parse_layout
from kvdeck.engine.ranks.initiator_setup import LaneSetup
from kvdeck.engine.ranks.second_core import SecondCore
from kvdeck.sessions.errors import KvdeckError
from kvdeck.sessions.model.references import (
    CUDA_MEMCPY,
    IO_SUBMIT,
    LIMIT_FROM,
    MEMCPY,
    MEMCPY_BY_BOTH,
    PINNED_CUDA_MEMCPY,
    PREAD,
    PROCESS_VM_READV,
    PROCESS_VM_WRITEV,
    PWRITE,
)
from kvdeck.sessions.units import exact_size_text

Rows = npt.NDArray[np.uint64]
Blocks = Sequence[int]
_WHOLE = parse_layout("FullyContiguous")
_TRIES, _TRIED_BYTES = 3, 64 << 20
"""How often, and on how many bytes, a way to copy is tried as the reference is opened."""


class Reference(Protocol):
    """One of the means, opened for an initiator's endpoints."""

    name: str

    @property
    def target_core(self) -> bool:
        """True if it needs the target's core, on which the target mustn't poll meanwhile."""
        return False

    def plan(self, blocks: Blocks, group: int, /) -> Callable[[], None]:
        """Return a function that moves blocks, `group` of them in flight together.

        It raises OSError or UnavailableError.
        """

    def close(self) -> None:
        """Free what it allocated."""


def timed(run: Callable[[], None], begin_ns: int) -> tuple[int, int]:
    """Run a plan, not before `begin_ns`; return start and end in ns of `CLOCK_MONOTONIC`.

    Raises:
        KvdeckError: It moved fewer bytes than asked, or the system refuses.
        UnavailableError: A CUDA copy fails.
    """
    wait_until(begin_ns)
    begin = time.perf_counter_ns()
    try:
        run()
    except OSError as error:
        raise KvdeckError(f"the reference failed: {error}", "check the disk's free space, or --no-reference") from error
    return begin, time.perf_counter_ns()


def open_reference(setup: LaneSetup, own: TransferEndpoint, other: TransferEndpoint, target: int | None) -> Reference:
    """Open the means for a path: a limit where there is one and this host allows it, else a comparison.

    Args:
        setup: The initiator's settings.
        own: Its own endpoint, or the host memory that it is staged through.
        other: The first other endpoint.
        target: Process of `other`; None if it is this one, or if it isn't on this host.
    """
    if isinstance(other, FileSide):
        if setup.direct:
            with contextlib.suppress(OSError):
                return _KernelQueue(setup, own, other)
        return _PlainCalls(setup, own, other)
    if "VRAM" in (own.memory_type, other.memory_type):
        return _DeviceCopies(setup, own, other)
    peer = setup.backend == "UCX" and setup.backend_params.get("ucx_error_handling_mode") != "none"
    if target is not None and peer:
        with contextlib.suppress(OSError):
            return _BetweenProcesses(setup, own, other, target)
    apart = target is not None and not setup.shared and setup.targets == 1
    own_cores, far_cores = setup.cores
    single = len(own_cores) == len(far_cores) == 1 and own_cores != far_cores
    second = far_cores[0] if apart and single and setup.geometry.block_bytes >= LIMIT_FROM else None
    return _Memcpy(setup, own, other, second)


def open_on_plain_pages(setup: LaneSetup, own: TransferEndpoint, other: TransferEndpoint, blocks: int) -> Reference:
    """Open the limit of an O_DIRECT path with `blocks` blocks of memory on plain pages in place of the endpoint's.

    Raises:
        OSError: The kernel gives no queue.
    """
    assert isinstance(other, FileSide)
    return _KernelQueue(setup, own, other, plain_blocks=blocks)


def whole_blocks(side: TransferEndpoint) -> Rows:
    """Return one descriptor per block."""
    return side.describe(_WHOLE, whole=True)[:, 0]


def _scratch_blocks(address: int, size: int, blocks: int) -> Rows:
    places = np.arange(blocks, dtype=np.uint64) * np.uint64(size) + np.uint64(address)
    return np.stack([places, np.full_like(places, size), np.zeros_like(places)], axis=1)


class _FileMeans:
    """The memory and the files of a path to or from a disk; memory of a device is replaced by host memory."""

    target_core = False

    def __init__(self, setup: LaneSetup, own: TransferEndpoint, files: FileSide) -> None:
        self._files, self._write = files, setup.operation == "WRITE"
        self._drop_cache, self._durable = setup.drop_cache, setup.durable
        self._scratch: memory.HostBuffer | None = None
        if own.memory_type == "VRAM":
            self._scratch = memory.allocate(setup.bytes, huge_pages=setup.huge_pages)
            self.memory = _scratch_blocks(self._scratch.address, setup.geometry.block_bytes, setup.blocks)
        else:
            self.memory = whole_blocks(own)
        self.places = whole_blocks(files)

    def _finish(self) -> None:
        if self._write and self._durable:
            self._files.sync()

    def close(self) -> None:
        if self._scratch is not None:
            self._scratch.close()
            self._scratch = None


class _KernelQueue(_FileMeans):
    """O_DIRECT reads or writes by the kernel's own queue, as many in flight as in the transfers."""

    name = IO_SUBMIT
    _plain: memory.HostBuffer | None = None

    def __init__(self, setup: LaneSetup, own: TransferEndpoint, files: FileSide, plain_blocks: int = 0) -> None:
        """`plain_blocks`: number of blocks of memory on plain pages to use in turn in place of the endpoint's."""
        self._queue = KernelAio(setup.blocks)
        super().__init__(setup, own, files)
        if plain_blocks:
            size = setup.geometry.block_bytes
            self._plain = memory.allocate(size * plain_blocks)
            rows = _scratch_blocks(self._plain.address, size, plain_blocks)
            self.memory = rows[np.arange(setup.blocks) % plain_blocks]

    def plan(self, blocks: Blocks, group: int) -> Callable[[], None]:
        which = np.array(blocks)
        flight = self._queue.plan(self.memory[which], self.places[which], group, write=self._write)

        def run() -> None:
            self._queue.run(flight)
            self._finish()

        return run

    def close(self) -> None:
        self._queue.close()
        if self._plain is not None:
            self._plain.close()
            self._plain = None
        super().close()


class _PlainCalls(_FileMeans):
    """One read or write at a time, through the page cache where the transfers use it."""

    def __init__(self, setup: LaneSetup, own: TransferEndpoint, files: FileSide) -> None:
        super().__init__(setup, own, files)
        self.name = PWRITE if self._write else PREAD
        self._call = _LIBC.pwrite64 if self._write else _LIBC.pread64

    def plan(self, blocks: Blocks, _group: int) -> Callable[[], None]:
        if self._drop_cache:
            self._files.drop_cache()
        calls = [
            (ctypes.c_int(fd), ctypes.c_void_p(address), ctypes.c_size_t(size), ctypes.c_longlong(offset))
            for (address, size, _), (offset, _, fd) in (
                (self.memory[block].tolist(), self.places[block].tolist()) for block in blocks
            )
        ]
        call, size = self._call, int(self.memory[0, 1])

        def run() -> None:
            for arguments in calls:
                if (moved := call(*arguments)) != size:
                    error = ctypes.get_errno() if moved < 0 else 0
                    said = f"{exact_size_text(max(moved, 0))} of {exact_size_text(size)} were moved"
                    raise OSError(error, os.strerror(error) if error else said)
            self._finish()

        return run


class _BetweenProcesses:
    """Copies by the kernel between the memory of two processes, a request's blocks in one call."""

    target_core = False

    def __init__(self, setup: LaneSetup, own: TransferEndpoint, other: TransferEndpoint, pid: int) -> None:
        self._pid, self._write = pid, setup.operation == "WRITE"
        self.name = PROCESS_VM_WRITEV if self._write else PROCESS_VM_READV
        first = setup.shared[0].place * setup.blocks if len(setup.shared) == 1 else 0
        self._here = whole_blocks(own)
        self._there = whole_blocks(other)[first : first + setup.blocks]
        self.plan([0], 1)()  # OSError if the kernel doesn't allow it

    def plan(self, blocks: Blocks, group: int) -> Callable[[], None]:
        which = np.array(blocks) % len(self._there)  # of several targets, the first
        calls = plan_copies(self._pid, self._here[which], self._there[which], group, write=self._write)
        return lambda: run_copies(calls)

    def close(self) -> None:
        """Nothing was allocated."""


class _Memcpy:
    """memcpy within this process: to the other endpoint, or to scratch memory if that is another process's.

    Between two processes each side may copy on a core of its own, so the limit is the faster of a copy by one core and
    of one by both sides' cores, as found when it is opened.
    """

    def __init__(self, setup: LaneSetup, own: TransferEndpoint, other: TransferEndpoint, second: int | None) -> None:
        """`second`: the target's core, if it isn't the initiator's; None: only this process's core copies."""
        self.name = MEMCPY
        self._scratch: memory.HostBuffer | None = None
        self._helper: SecondCore | None = None
        self._here = whole_blocks(own)
        if other.regions:
            self._there = whole_blocks(other)
        else:
            self._scratch = memory.allocate(setup.bytes, huge_pages=setup.huge_pages)
            self._there = _scratch_blocks(self._scratch.address, setup.geometry.block_bytes, setup.blocks)
        if setup.operation == "READ" and other.regions:
            self._here, self._there = self._there, self._here
        if second is not None:
            self._try(second, range(min(setup.blocks, max(1, _TRIED_BYTES // setup.geometry.block_bytes))))

    @property
    def target_core(self) -> bool:
        """True if it needs the target's core, on which the target mustn't poll meanwhile."""
        return self._helper is not None

    def _try(self, second: int, blocks: Blocks) -> None:
        """Keep a thread on the second core if both cores together copy faster than one."""
        alone = min(_seconds(self.plan(blocks, 1)) for _ in range(_TRIES))
        self._helper = SecondCore(second)
        if min(_seconds(self.plan(blocks, 1)) for _ in range(_TRIES)) < alone:
            self.name = MEMCPY_BY_BOTH
        else:
            self._helper.close()
            self._helper = None

    def plan(self, blocks: Blocks, _group: int) -> Callable[[], None]:
        pieces = [(int(self._there[b, 0]), int(self._here[b, 0]), int(self._here[b, 1])) for b in blocks]
        if (helper := self._helper) is None:
            return lambda: _copy(pieces)
        half = len(pieces) // 2

        def run() -> None:
            helper.begin(lambda: _copy(pieces[:half]))
            _copy(pieces[half:])
            helper.wait()

        return run

    def close(self) -> None:
        if self._helper is not None:
            self._helper.close()
            self._helper = None
        if self._scratch is not None:
            self._scratch.close()
            self._scratch = None


def _copy(pieces: Sequence[tuple[int, int, int]]) -> None:
    move = ctypes.memmove  # doesn't hold the interpreter's lock
    for to, origin, size in pieces:
        move(to, origin, size)


def _seconds(run: Callable[[], None]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


class _DeviceCopies:
    """Copies by CUDA, started for a request's blocks and then waited for once; host memory is page-locked."""

    target_core = False

    def __init__(self, setup: LaneSetup, own: TransferEndpoint, other: TransferEndpoint) -> None:
        size, blocks = setup.geometry.block_bytes, setup.blocks
        self._pinned: cuda.PinnedBuffer | None = None
        self._device: DeviceSide | None = None
        near, far = (own, other) if setup.operation == "WRITE" else (other, own)
        self._gpu = next(side.regions[0].device for side in (own, other) if side.memory_type == "VRAM" and side.regions)
        if setup.path == "DeviceToDevice":
            self.name = CUDA_MEMCPY
            self._direction: cuda.Direction = "DeviceToDevice"
            if not other.regions:  # the target's memory belongs to another process: copy within our GPU
                self._device = DeviceSide(setup.geometry, blocks, self._gpu)
                near, far = own, self._device
            self._from, self._to = whole_blocks(near), whole_blocks(far)
            return
        self.name = PINNED_CUDA_MEMCPY
        self._direction = cast(cuda.Direction, setup.path)
        self._pinned = cuda.allocate_pinned(setup.bytes)
        host = _scratch_blocks(self._pinned.address, size, blocks)
        device = whole_blocks(own if own.memory_type == "VRAM" else other)
        self._from, self._to = (host, device) if setup.path == "HostToDevice" else (device, host)

    def plan(self, blocks: Blocks, group: int) -> Callable[[], None]:
        pieces = [(int(self._to[b, 0]), int(self._from[b, 0]), int(self._from[b, 1])) for b in blocks]

        def run() -> None:
            for at in range(0, len(pieces), group):
                cuda.copy_all(self._gpu, self._direction, pieces[at : at + group])

        return run

    def close(self) -> None:
        if self._pinned is not None:
            cuda.release_pinned(self._pinned)
        if self._device is not None:
            self._device.close()
        self._pinned = self._device = None


_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.pread64.restype = _LIBC.pwrite64.restype = ctypes.c_ssize_t


def wait_until(begin_ns: int) -> None:
    """Busy-wait until `begin_ns` of `CLOCK_MONOTONIC`."""
    while time.perf_counter_ns() < begin_ns:
        pass
