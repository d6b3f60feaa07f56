"""Endpoint in GPU memory; fill and check copy through host memory, transfers don't."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kvdeck.engine.io import cuda, memory, pattern
from kvdeck.engine.io.endpoints import Origin, Region, address_descriptors, wrong_region
from kvdeck.engine.planning.layout import Geometry, Layout

_CHUNK = 16 << 20


class DeviceSide:
    """Endpoint in the memory of one GPU; every method that reaches the GPU raises UnavailableError if it refuses."""

    memory_type = "VRAM"

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
        staging = memory.allocate(min(_CHUNK, self.buffer.size))
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
