"""The two sides of a transfer: host memory or files that can be described, filled, poisoned and checked."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from kvdeck.engine.host.folder import folder_facts
from kvdeck.engine.io import descriptors, memory, nixl, pattern, reasons
from kvdeck.engine.io.descriptors import Offsets
from kvdeck.engine.planning.layout import Geometry, Layout, parse_layout
from kvdeck.engine.ranks.rpc import Remote
from kvdeck.sessions.units import exact_size_text

_IO_CHUNK = 4 << 20


@dataclass(frozen=True, slots=True)
class Region:
    """One registered piece for NIXL: address (0 for a file), bytes, and device (GPU or file descriptor)."""

    address: int
    size: int
    device: int


class Side(Protocol):
    """One side of a transfer: `blocks` blocks of one geometry, readable under any layout."""

    memory_type: str
    """NIXL's name: DRAM, VRAM or FILE."""

    @property
    def regions(self) -> tuple[Region, ...]:
        """What is to be registered."""

    def describe(self, layout: Layout, *, whole: bool) -> npt.NDArray[np.uint64]:
        """Descriptors (address, length, device), shape (blocks, per block, 3); whole blocks or single regions."""

    def fill(self, seed: int, position: int = 0) -> None:
        """Write the pattern over everything, as if it began `position` bytes into a larger whole."""

    def poison(self) -> None:
        """Overwrite everything with what no pattern holds."""

    def check(self, own: Layout, origin: Origin) -> str | None:
        """What is wrong with the bytes that should have come from `origin`; None when all are there."""

    def close(self) -> None:
        """Give everything back."""


def _shaped(addresses: Offsets, devices: Offsets | int, size: int) -> npt.NDArray[np.uint64]:
    return descriptors.describe(addresses, size, devices).reshape(*addresses.shape, 3)


def _offsets(layout: Layout, geometry: Geometry, blocks: int, files: int, *, whole: bool) -> tuple[Offsets, int]:
    """Offsets of shape (blocks, per block) and the bytes at each."""
    offsets = descriptors.region_offsets(layout, geometry, blocks, files)
    return (offsets[:, :1], geometry.block_bytes) if whole else (offsets, geometry.region_bytes)


def region_descriptors(
    layout: Layout, geometry: Geometry, each: int, regions: Sequence[Region], *, whole: bool
) -> npt.NDArray[np.uint64]:
    """Descriptors, shape (blocks, per block, 3), of regions that have `each` blocks, one region after the other."""
    return np.concatenate([address_descriptors(layout, geometry, each, region, whole=whole) for region in regions])


def address_descriptors(
    layout: Layout, geometry: Geometry, blocks: int, region: Region, *, whole: bool
) -> npt.NDArray[np.uint64]:
    """Descriptors, shape (blocks, per block, 3), of blocks that lie in one piece of memory."""
    offsets, size = _offsets(layout, geometry, blocks, 1, whole=whole)
    return _shaped(offsets + np.uint64(region.address), region.device, size)


@dataclass(frozen=True, slots=True)
class Origin:
    """How the bytes lay where they came from: enough to know what each region must hold."""

    layout: Layout
    files: int
    """Files, or with `devices` regions, that the source's blocks lay in."""
    seed: int
    devices: bool = False
    position: int = 0
    """Where in the pattern the source began; bytes."""
    first: int = 0
    """The source's block that should be the destination's first."""
    blocks: int = 0
    """The source's blocks; 0 for as many as the destination has."""

    def offsets(self, geometry: Geometry, blocks: int) -> Offsets:
        """Where in the pattern each region of so many blocks must be from, shape (blocks, regions)."""
        whole = descriptors.region_offsets(
            self.layout, geometry, self.blocks or blocks, self.files, dealt=not self.devices
        )
        return whole[self.first : self.first + blocks] + np.uint64(self.position)


def wrong_region(content: pattern.Bytes, geometry: Geometry, blocks: int, own: Layout, files: int,
                 origin: Origin) -> str | None:  # fmt: skip
    """Name the first region of `content` that does not hold its origin's bytes; None when all do."""
    size = geometry.region_bytes
    to = descriptors.region_offsets(own, geometry, blocks, files)
    source = origin.offsets(geometry, blocks)
    if own.kind == origin.layout.kind == "FullyContiguous":
        to, source, size = to[:, :1], source[:, :1], geometry.block_bytes
    found = pattern.first_difference(content, to.reshape(-1), source.reshape(-1), size, origin.seed)
    if found is None:
        return None
    block, region = divmod(found, to.shape[1])
    layer, outer = divmod(region, geometry.outer_dims)
    return f"block {block} of {blocks}, layer {layer}, outer dim {outer} does not hold its source's bytes"


def register(agent: Any, side: Side, backend: str) -> Any:
    """Register a side's memory or files with one backend; returns what `deregister_memory` takes.

    Raises:
        UnavailableError: The backend refuses them.
    """
    pieces = [(region.address, region.size, region.device) for region in side.regions]
    return nixl.register(agent, backend, side.memory_type, pieces)


class HostSide:
    """Host memory of this process: a region a device, each with its run of the blocks."""

    memory_type = "DRAM"

    def __init__(self, geometry: Geometry, blocks: int, *, huge_pages: bool, devices: int = 1) -> None:
        if blocks % devices:
            raise ValueError(f"{blocks} blocks don't divide between {devices} devices")
        self.geometry, self.blocks, self.each = geometry, blocks, blocks // devices
        size = geometry.block_bytes * self.each
        self.buffers = [memory.allocate(size, huge_pages=huge_pages) for _ in range(devices)]

    @property
    def regions(self) -> tuple[Region, ...]:
        return tuple(Region(buffer.address, buffer.size, number) for number, buffer in enumerate(self.buffers))

    def describe(self, layout: Layout, *, whole: bool) -> npt.NDArray[np.uint64]:
        return region_descriptors(layout, self.geometry, self.each, self.regions, whole=whole)

    def fill(self, seed: int, position: int = 0) -> None:
        for number, buffer in enumerate(self.buffers):
            pattern.fill(buffer.array, seed, position + number * buffer.size)

    def poison(self) -> None:
        for buffer in self.buffers:
            buffer.array[:] = pattern.POISON

    def check(self, own: Layout, origin: Origin) -> str | None:
        whole = replace(origin, blocks=origin.blocks or self.blocks)
        for number, buffer in enumerate(self.buffers):
            here = replace(whole, first=whole.first + number * self.each)
            if found := wrong_region(buffer.array, self.geometry, self.each, own, 1, here):
                return f"device {number}: {found}" if len(self.buffers) > 1 else found
        return None

    def close(self) -> None:
        for buffer in self.buffers:
            buffer.close()


class RemoteSide:
    """Memory of a target process, seen from the initiator; a region a device, each with its run of the blocks."""

    def __init__(
        self,
        geometry: Geometry,
        blocks: int,
        places: Sequence[tuple[int, int]],
        target: Remote | None,
        memory_type: str = "DRAM",
    ) -> None:
        """`places` are each region's address and NIXL device number in the target."""
        self.geometry, self.blocks, self.target, self.memory_type = geometry, blocks, target, memory_type
        self.each = blocks // len(places)
        size = geometry.block_bytes * self.each
        self._there = tuple(Region(address, size, number) for address, number in places)

    @property
    def regions(self) -> tuple[Region, ...]:
        """Nothing: the target registers its own memory."""
        return ()

    def describe(self, layout: Layout, *, whole: bool) -> npt.NDArray[np.uint64]:
        return region_descriptors(layout, self.geometry, self.each, self._there, whole=whole)

    def fill(self, seed: int, position: int = 0) -> None:
        if self.target is not None:
            self.target.call("fill", seed=seed, position=position)

    def poison(self) -> None:
        if self.target is not None:
            self.target.call("poison")

    def check(self, own: Layout, origin: Origin) -> str | None:
        """What the target finds; nothing where others share it, for then their rank 0 asks it."""
        if self.target is None:
            return None
        found = self.target.call("check", own=str(own), origin=origin_to_json(origin))
        return None if found is None else str(found)

    def close(self) -> None:
        """Nothing: the target process ends with its memory."""


def origin_to_json(origin: Origin) -> dict[str, Any]:
    """An origin for another process."""
    return {**asdict(origin), "layout": str(origin.layout)}


def origin_from_json(data: dict[str, Any]) -> Origin:
    """An origin that crossed a process boundary."""
    return Origin(**{**data, "layout": parse_layout(data["layout"])})


class FileSide:
    """Files that hold the blocks: block `i` lies in file `i mod files`, each file laid out on its own.

    The files are written through once at the start, so no timed write pays for allocation.
    """

    memory_type = "FILE"

    def __init__(self, geometry: Geometry, blocks: int, folder: Path, files: int, *, direct: bool) -> None:
        if blocks % files:
            raise ValueError(f"{blocks} blocks don't divide into {files} files")
        self.geometry, self.blocks, self.files, self.direct = geometry, blocks, files, direct
        self.size = blocks // files * geometry.block_bytes
        self.paths = [folder / f"blocks-{os.getpid()}-{index}.kv" for index in range(files)]
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        try:
            self.descriptors = [os.open(path, flags | (os.O_DIRECT if direct else 0), 0o600) for path in self.paths]
        except OSError as error:
            if direct and error.errno == errno.EINVAL:
                raise reasons.no_direct(str(folder), folder_facts(folder).filesystem) from error
            raise
        # Preparing goes through handles of its own: a size may not suit O_DIRECT, and the cache is dropped after.
        self._plain = [os.open(path, os.O_RDWR | os.O_CLOEXEC) for path in self.paths]

    @property
    def regions(self) -> tuple[Region, ...]:
        return tuple(Region(0, self.size, fd) for fd in self.descriptors)

    def describe(self, layout: Layout, *, whole: bool) -> npt.NDArray[np.uint64]:
        offsets, size = _offsets(layout, self.geometry, self.blocks, self.files, whole=whole)
        part, offset = np.divmod(offsets, np.uint64(self.size))
        return _shaped(offset, np.array(self.descriptors, np.uint64)[part.astype(np.intp)], size)

    def fill(self, seed: int, position: int = 0) -> None:
        for index in range(self.files):
            self._write(index, seed, position)

    def poison(self) -> None:
        for index in range(self.files):
            self._write(index, None)

    def check(self, own: Layout, origin: Origin) -> str | None:
        """Read the files back past the page cache and compare."""
        self.drop_cache()
        content = memory.allocate(self.size * self.files)
        try:
            whole = content.array
            for index, fd in enumerate(self._plain):
                _read_fully(fd, whole.data[index * self.size : (index + 1) * self.size])
            return wrong_region(whole, self.geometry, self.blocks, own, self.files, origin)
        finally:
            del whole
            content.close()

    def drop_cache(self) -> None:
        """Write back and forget the files' pages, so that a buffered read comes from the device."""
        for fd in self._plain:
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def sync(self) -> None:
        for fd in self.descriptors:
            os.fdatasync(fd)

    def close(self) -> None:
        for fd in (*self.descriptors, *self._plain):
            os.close(fd)
        for path in self.paths:
            path.unlink(missing_ok=True)

    def _write(self, index: int, seed: int | None, position: int = 0) -> None:
        fd = self._plain[index]
        for at in range(0, self.size, _IO_CHUNK):
            count = min(_IO_CHUNK, self.size - at)
            if seed is None:
                data = np.full(count, pattern.POISON, np.uint8)
            else:
                data = pattern.expected(position + index * self.size + at, count, seed)
            _write_fully(fd, data.data, at)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def _write_fully(fd: int, data: memoryview, at: int) -> None:
    done = 0
    while done < len(data):
        done += os.pwrite(fd, data[done:], at + done)


def _read_fully(fd: int, into: memoryview) -> None:
    done = 0
    while done < len(into):
        read = os.preadv(fd, [into[done:]], done)
        if read == 0:
            raise OSError(f"the file ended after {exact_size_text(done)} of {exact_size_text(len(into))}")
        done += read
