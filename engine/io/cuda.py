"""GPU memory; the only module that imports cupy. Without a usable GPU every function raises UnavailableError."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from kvdeck.engine.host.gpu import driver_present
from kvdeck.engine.io import reasons
from kvdeck.sessions.errors import UnavailableError
from kvdeck.sessions.units import many, size_text

Direction = Literal["HostToDevice", "DeviceToHost", "DeviceToDevice"]
_KINDS: dict[Direction, int] = {"HostToDevice": 1, "DeviceToHost": 2, "DeviceToDevice": 3}  # cudaMemcpyKind


@dataclass(frozen=True, slots=True)
class DeviceBuffer:
    """Memory of one GPU, allocated by cudaMalloc and not from a pool; size in bytes."""

    device: int
    address: int
    size: int


@dataclass(frozen=True, slots=True)
class PinnedBuffer:
    """Page-locked host memory, which the GPU reads and writes at full speed; size in bytes."""

    address: int
    size: int


def require() -> int:
    """Return the number of usable GPUs, at least one.

    Raises:
        UnavailableError: There is no driver, no cupy, or no GPU.
    """
    runtime = _runtime()
    try:
        count = int(runtime.getDeviceCount())
    except runtime.CUDARuntimeError as error:
        raise reasons.no_gpu(str(error)) from error
    if count == 0:
        raise reasons.no_gpu("the CUDA runtime lists none")
    return count


def memory_info(device: int = 0) -> tuple[int, int]:
    """Return the free and total memory of a GPU, in bytes.

    Raises:
        UnavailableError: The GPU can't be used.
    """
    with _on(device, f"querying the memory of GPU {device}") as runtime:
        free, total = runtime.memGetInfo()
    return int(free), int(total)


def allocate(device: int, size: int) -> DeviceBuffer:
    """Allocate `size` bytes on a GPU; free them with `release`.

    Raises:
        UnavailableError: The GPU can't be used, or has too little free memory.
    """
    with _on(device, f"allocating {size_text(size)} on GPU {device}") as runtime:
        return DeviceBuffer(device, int(runtime.malloc(size)), size)


def release(buffer: DeviceBuffer) -> None:
    """Free a GPU buffer. Deregister it from NIXL first.

    Raises:
        UnavailableError: The GPU refuses.
    """
    with _on(buffer.device, f"freeing memory on GPU {buffer.device}") as runtime:
        runtime.free(buffer.address)


def allocate_pinned(size: int) -> PinnedBuffer:
    """Allocate `size` bytes of page-locked host memory; free them with `release_pinned`.

    Raises:
        UnavailableError: No GPU can be used, or the memory can't be pinned.
    """
    with _on(0, f"pinning {size_text(size)} of host memory") as runtime:
        return PinnedBuffer(int(runtime.hostAlloc(size, 0)), size)


def release_pinned(buffer: PinnedBuffer) -> None:
    """Free page-locked host memory.

    Raises:
        UnavailableError: The CUDA runtime refuses.
    """
    with _on(0, "freeing pinned memory") as runtime:
        runtime.freeHost(buffer.address)


def fill(buffer: DeviceBuffer, host_address: int, size: int, offset: int = 0) -> None:
    """Copy `size` bytes from host memory to a GPU buffer at `offset`, and wait for the copy.

    Raises:
        UnavailableError: The copy fails.
        ValueError: The bytes don't fit into the buffer.
    """
    copy(buffer.device, "HostToDevice", _within(buffer, offset, size), host_address, size)


def read(buffer: DeviceBuffer, host_address: int, size: int, offset: int = 0) -> None:
    """Copy `size` bytes of a GPU buffer from `offset` on to host memory, and wait for the copy.

    Raises:
        UnavailableError: The copy fails.
        ValueError: The buffer ends before `offset + size`.
    """
    copy(buffer.device, "DeviceToHost", host_address, _within(buffer, offset, size), size)


def poison(buffer: DeviceBuffer, value: int = 0xDB) -> None:
    """Overwrite a GPU buffer with `value`, so that bytes which never arrived can't match, and wait.

    Raises:
        UnavailableError: The GPU refuses.
    """
    with _on(buffer.device, f"overwriting memory on GPU {buffer.device}") as runtime:
        runtime.memset(buffer.address, value, buffer.size)
        runtime.deviceSynchronize()


def copy(device: int, direction: Direction, destination: int, source: int, size: int) -> int:
    """Copy `size` bytes between two addresses by cudaMemcpyAsync, and wait: the reference for the device paths.

    Returns:
        Time from the call until the stream is done, in ns.

    Raises:
        UnavailableError: The copy fails.
    """
    with _on(device, f"copying {size_text(size)} {direction} on GPU {device}") as runtime:
        start = time.perf_counter_ns()
        runtime.memcpyAsync(destination, source, size, _KINDS[direction], 0)
        runtime.streamSynchronize(0)
        return time.perf_counter_ns() - start


def copy_pieces(
    device: int, direction: Direction, destinations: npt.NDArray[np.uint64], sources: npt.NDArray[np.uint64]
) -> None:
    """Copy many pieces by cudaMemcpyAsync, started one after another, and wait once.

    Args:
        device: GPU whose stream carries the copies.
        direction: Kind of copy, as cudaMemcpyKind.
        destinations: Rows (address, bytes, device), shape (N, 3).
        sources: Rows of the same shape; the bytes are those of the destinations.

    Raises:
        UnavailableError: A copy fails.
    """
    rows = zip(destinations.tolist(), sources.tolist(), strict=True)
    copy_all(device, direction, [(to, origin, size) for (to, size, _), (origin, *_rest) in rows])


def copy_all(device: int, direction: Direction, pieces: Sequence[tuple[int, int, int]]) -> None:
    """Copy pieces (destination, source, bytes) by cudaMemcpyAsync, started one after another, and wait once.

    Raises:
        UnavailableError: A copy fails.
    """
    with _on(device, f"copying {many(len(pieces), 'piece')} {direction} on GPU {device}") as runtime:
        kind, begin = _KINDS[direction], runtime.memcpyAsync
        for to, origin, size in pieces:
            begin(to, origin, size, kind, 0)
        runtime.streamSynchronize(0)


def _within(buffer: DeviceBuffer, offset: int, size: int) -> int:
    if offset < 0 or size < 0 or offset + size > buffer.size:
        raise ValueError(f"{size} bytes at {offset} lie outside a buffer of {buffer.size}")
    return buffer.address + offset


@contextlib.contextmanager
def _on(device: int, doing: str) -> Iterator[Any]:
    """Yield the CUDA runtime with `device` current; its errors become UnavailableError with `doing` in the message."""
    count, runtime = require(), _runtime()
    if not 0 <= device < count:
        raise UnavailableError(f"there is no GPU {device}", f"use 0 to {count - 1}")
    try:
        runtime.setDevice(device)
        yield runtime
    except runtime.CUDARuntimeError as error:
        raise UnavailableError(f"{doing} failed: {error}", "lower --blocks, or check nvidia-smi") from error


@functools.cache
def _runtime() -> Any:
    if not driver_present():
        raise reasons.no_driver()
    try:
        import cupy
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == "cupy"
        raise reasons.no_cupy() if missing else reasons.no_cupy(str(error).splitlines()[0]) from error
    return cupy.cuda.runtime
