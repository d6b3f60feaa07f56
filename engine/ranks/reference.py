"""Reference for an initiator's transfers: the same bytes moved by memcpy, cudaMemcpy, or pread and pwrite."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

from kvdeck.engine.io import cuda
from kvdeck.engine.io.endpoints import FileSide, TransferEndpoint
from kvdeck.engine.io.memory import HostBuffer
from kvdeck.engine.ranks.initiator_setup import LaneSetup
from kvdeck.sessions.errors import KvdeckError
from kvdeck.sessions.units import exact_size_text


def move(setup: LaneSetup, source: TransferEndpoint, destination: TransferEndpoint, scratch: HostBuffer | None,
         blocks: Sequence[int], begin_ns: int, batch: int = 1) -> tuple[int, int]:  # fmt: skip
    """Move blocks one after the other, not before `begin_ns`; return start and end in ns of `CLOCK_MONOTONIC`.

    CUDA copies are started for `batch` blocks and then waited for once, as in one request.

    Raises:
        KvdeckError: A pread or pwrite moved fewer bytes than a block.
        UnavailableError: A CUDA copy fails.
    """
    for side in (source, destination):
        if isinstance(side, FileSide):
            assert scratch is not None
            return _through_files(setup, side, scratch, blocks, begin_ns)
    if "VRAM" in (source.memory_type, destination.memory_type):
        return _by_cuda(setup, source, destination, blocks, begin_ns, batch)
    one = _mover(setup, source, destination, scratch)
    wait_until(begin_ns)
    begin = time.perf_counter_ns()
    for block in blocks:
        one(block)
    return begin, time.perf_counter_ns()


def _mover(
    setup: LaneSetup, source: TransferEndpoint, destination: TransferEndpoint, scratch: HostBuffer | None
) -> Callable[[int], Any]:
    """Return a function that copies one block to scratch memory of this process.

    It reads the source, or the destination where the source has no regions in this process.
    """
    assert scratch is not None
    size, to, regions = setup.geometry.block_bytes, scratch.address, (source.regions or destination.regions)
    each = setup.blocks // len(regions)
    starts = [region.address for region in regions]
    return lambda block: ctypes.memmove(to + block * size, starts[block // each] + block % each * size, size)


def _by_cuda(setup: LaneSetup, source: TransferEndpoint, destination: TransferEndpoint, blocks: Sequence[int],
             begin_ns: int, batch: int) -> tuple[int, int]:  # fmt: skip
    near, far, size = source.regions[0], destination.regions[0], setup.geometry.block_bytes
    gpu = far.device if setup.path == "HostToDevice" else near.device
    pieces = [(far.address + block * size, near.address + block * size, size) for block in blocks]
    wait_until(begin_ns)
    begin = time.perf_counter_ns()
    for at in range(0, len(pieces), batch):
        cuda.copy_all(gpu, cast(cuda.Direction, setup.path), pieces[at : at + batch])
    return begin, time.perf_counter_ns()


def _through_files(setup: LaneSetup, side: FileSide, scratch: HostBuffer, blocks: Sequence[int],
                   begin_ns: int) -> tuple[int, int]:  # fmt: skip
    if setup.drop_cache:
        side.drop_cache()
    room, size = scratch.array.data, setup.geometry.block_bytes
    calls = [
        (side.descriptors[block % side.files], room[block * size : (block + 1) * size], block // side.files * size)
        for block in blocks
    ]
    write = setup.operation == "WRITE"
    wait_until(begin_ns)
    begin = time.perf_counter_ns()
    for fd, part, offset in calls:
        done = os.pwrite(fd, part, offset) if write else os.preadv(fd, [part], offset)
        if done != size:
            raise KvdeckError(
                f"a plain {'pwrite' if write else 'pread'} moved {exact_size_text(done)} of {exact_size_text(size)}",
                "check the disk's free space",
            )
    if write and setup.durable:
        side.sync()
    return begin, time.perf_counter_ns()


def wait_until(begin_ns: int) -> None:
    """Busy-wait until `begin_ns` of `CLOCK_MONOTONIC`."""
    while time.perf_counter_ns() < begin_ns:
        pass
