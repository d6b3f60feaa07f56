"""Endpoints of a transfer: host memory, GPU memory or files, with descriptors, fill, poison and check."""

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
from kvdeck.engine.io import cuda, descriptors, memory, nixl, pattern, reasons
from kvdeck.engine.io.descriptors import Offsets
from kvdeck.engine.io.pages import pages_text
from kvdeck.engine.planning.layout import Geometry, Layout, parse_layout
from kvdeck.sessions.units import exact_size_text

# Preparation in pieces: a whole buffer's copy would need its memory a second time.
_IO_CHUNK, _GPU_CHUNK = 4 << 20, 16 << 20


@dataclass(frozen=True, slots=True)
class Region:
    """One piece to register with NIXL: address (0 for a file), bytes, and device (GPU number or file descriptor)."""

    address: int
    size: int
    device: int


class TransferEndpoint(Protocol):
    """One endpoint of a transfer: `blocks` blocks of one geometry, accessible under any layout."""

    memory_type: str
    """NIXL's memory type: DRAM, VRAM or FILE."""
    pages: str | None
    """Kinds of the pages of its host memory, from `pages_text`; None without host memory, or if unknown."""

    @property
    def regions(self) -> tuple[Region, ...]:
        """Regions that this process registers."""

    def describe(self, layout: Layout, *, whole: bool) -> npt.NDArray[np.uint64]:
        """Return descriptors (address, bytes, device), shape (blocks, per block, 3): one per block, or per region."""

    def fill(self, seed: int, position: int = 0) -> None:
        """Overwrite all blocks with the pattern from byte `position` on."""

    def poison(self) -> None:
        """Overwrite all blocks with a constant that never matches the pattern."""

    def check(self, own: Layout, origin: Origin) -> str | None:
        """Compare all blocks with the bytes of `origin`; return the first difference as a message, or None."""

    def close(self) -> None:
        """Free memory, or close and delete files."""


def _shaped(addresses: Offsets, devices: Offsets | int, size: int) -> npt.NDArray[np.uint64]:
    return descriptors.describe(addresses, size, devices).reshape(*addresses.shape, 3)


def _offsets(layout: Layout, geometry: Geometry, blocks: int, files: int, *, whole: bool) -> tuple[Offsets, int]:
    """Return offsets in bytes, shape (blocks, per block), and the number of bytes at each."""
    offsets = descriptors.region_offsets(layout, geometry, blocks, files)
    return (offsets[:, :1], geometry.block_bytes) if whole else (offsets, geometry.region_bytes)


def region_descriptors(
    layout: Layout, geometry: Geometry, each: int, regions: Sequence[Region], *, whole: bool
) -> npt.NDArray[np.uint64]:
    """Return descriptors, shape (blocks, per block, 3), of regions with `each` blocks each, in region order."""
    return np.concatenate([address_descriptors(layout, geometry, each, region, whole=whole) for region in regions])


def address_descriptors(
    layout: Layout, geometry: Geometry, blocks: int, region: Region, *, whole: bool
) -> npt.NDArray[np.uint64]:
    """Return descriptors, shape (blocks, per block, 3), of blocks in one piece of memory."""
    offsets, size = _offsets(layout, geometry, blocks, 1, whole=whole)
    return _shaped(offsets + np.uint64(region.address), region.device, size)


@dataclass(frozen=True, slots=True)
class Origin:
    """Layout and position of the source's bytes, from which the expected content of each region follows."""

    layout: Layout
    files: int
    """Number of files (with `devices`: of regions) that hold the source's blocks."""
    seed: int
    devices: bool = False
    """True if each region holds a contiguous range of blocks; False if block `i` lies in file `i mod files`."""
    position: int = 0
    """Offset of the source's start in the pattern, in bytes."""
    first: int = 0
    """Index of the source block that belongs to the destination's first block."""
    blocks: int = 0
    """Number of the source's blocks; 0 if equal to the destination's."""

    def offsets(self, geometry: Geometry, blocks: int) -> Offsets:
        """Return the expected pattern offset, in bytes, of each region of `blocks` blocks, shape (blocks, regions)."""
        whole = descriptors.region_offsets(
            self.layout, geometry, self.blocks or blocks, self.files, dealt=not self.devices
        )
        return whole[self.first : self.first + blocks] + np.uint64(self.position)


def wrong_region(content: pattern.Bytes, geometry: Geometry, blocks: int, own: Layout, files: int,
                 origin: Origin) -> str | None:  # fmt: skip
    """Return a message that names the first region of `content` with bytes other than the origin's, or None."""
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
    return f"block {block} of {blocks}, layer {layer}, outer dim {outer} differs from its source"


def register(agent: Any, side: TransferEndpoint, backend: str) -> Any:
    """Register an endpoint's memory or files with one backend; return the handle for `deregister_memory`.

    Raises:
        UnavailableError: The backend refuses them.
    """
    pieces = [(region.address, region.size, region.device) for region in side.regions]
    return nixl.register(agent, backend, side.memory_type, pieces)


class HostSide:
    """Host memory of this process: one region per device, each with a contiguous range of the blocks.

    ValueError if the blocks don't divide between the devices.
    """

    memory_type = "DRAM"

    def __init__(self, geometry: Geometry, blocks: int, *, huge_pages: bool, devices: int = 1) -> None:
        if blocks % devices:
            raise ValueError(f"{blocks} blocks don't divide between {devices} devices")
        self.geometry, self.blocks, self.each = geometry, blocks, blocks // devices
        size = geometry.block_bytes * self.each
        self.buffers = [memory.allocate(size, huge_pages=huge_pages) for _ in range(devices)]
        self.pages = pages_text([buffer.pages for buffer in self.buffers])

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


class DeviceSide:
    """Endpoint in the memory of one GPU; every method that reaches the GPU raises UnavailableError if it refuses."""

    memory_type = "VRAM"
    pages: str | None = None

    def __init__(self, geometry: Geometry, blocks: int, gpu: int) -> None:
        self.geometry, self.blocks = geometry, blocks
        self.buffer = cuda.allocate(gpu, geometry.block_bytes * blocks)

    @property
    def regions(self) -> tuple[Region, ...]:
        return (Region(self.buffer.address, self.buffer.size, self.buffer.device),)

    def describe(self, layout: Layout, *, whole: bool) -> npt.NDArray[np.uint64]:
        region = self.regions[0]
        return address_descriptors(layout, self.geometry, self.blocks, region, whole=whole)

    def fill(self, seed: int, position: int = 0) -> None:
        staging = memory.allocate(min(_GPU_CHUNK, self.buffer.size))
        for at in range(0, self.buffer.size, staging.size):
            count = min(staging.size, self.buffer.size - at)
            pattern.fill(staging.array[:count], seed, position + at)
            cuda.fill(self.buffer, staging.address, count, at)
        staging.close()

    def poison(self) -> None:
        cuda.poison(self.buffer, pattern.POISON)

    def check(self, own: Layout, origin: Origin) -> str | None:
        content = memory.allocate(self.buffer.size)
        cuda.read(self.buffer, content.address, self.buffer.size)
        found = wrong_region(content.array, self.geometry, self.blocks, own, 1, origin)
        content.close()
        return found

    def close(self) -> None:
        cuda.release(self.buffer)


def origin_to_json(origin: Origin) -> dict[str, Any]:
    """Return an origin as JSON values, for another process."""
    return {**asdict(origin), "layout": str(origin.layout)}


def origin_from_json(data: dict[str, Any]) -> Origin:
    """Return the origin that `origin_to_json` encoded."""
    return Origin(**{**data, "layout": parse_layout(data["layout"])})


class FileSide:
    """Files that hold the blocks: block `i` lies in file `i mod files`, and each file has a layout of its own.

    `fill` and `poison` write every file through to the device; the initiator does so once at the start, so no timed
    write includes allocation.

    Raises:
        ValueError: The blocks don't divide between the files.
        UnavailableError: The filesystem doesn't support O_DIRECT and `direct` is set.
        OSError: A file can't be created.
    """

    memory_type = "FILE"
    pages: str | None = None

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
            # What a file system without O_DIRECT answers, such as tmpfs before Linux 6.6.
            if direct and error.errno == errno.EINVAL:
                raise reasons.no_direct(str(folder), folder_facts(folder).filesystem) from error
            raise
        # Separate descriptors for preparation: its sizes may not suit O_DIRECT, and the page cache is dropped after.
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
        """Drop the files' page cache, read them back and compare; OSError if a file is too short."""
        self.drop_cache()
        content = memory.allocate(self.size * self.files)
        try:
            whole = content.array
            for index, fd in enumerate(self._plain):
                _read_fully(fd, whole.data[index * self.size : (index + 1) * self.size])
            return wrong_region(whole, self.geometry, self.blocks, own, self.files, origin)
        finally:
            # A view of the memory would keep it from being freed.
            del whole
            content.close()

    def drop_cache(self) -> None:
        """Write back and drop the files' cached pages, so that a buffered read comes from the device."""
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
