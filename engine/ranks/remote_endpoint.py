"""Endpoint in the memory of a target process."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from kvdeck.engine.io.endpoints import Origin, Region, origin_to_json, region_descriptors
from kvdeck.engine.planning.layout import Geometry, Layout
from kvdeck.engine.ranks.rpc import Remote


class RemoteSide:
    """Memory of a target process, as the initiator addresses it: one region per device, each with a range of blocks.

    Without a `target`, fill, poison and check do nothing: rank 0 calls a shared target once for all its initiators.
    """

    def __init__(
        self,
        geometry: Geometry,
        blocks: int,
        places: Sequence[tuple[int, int]],
        target: Remote | None,
        memory_type: str = "DRAM",
        pages: str | None = None,
    ) -> None:
        """`places`: address and NIXL device number of each region in the target."""
        self.geometry, self.blocks, self.target, self.memory_type = geometry, blocks, target, memory_type
        self.pages = pages
        self.each = blocks // len(places)
        size = geometry.block_bytes * self.each
        self._there = tuple(Region(address, size, number) for address, number in places)

    @property
    def regions(self) -> tuple[Region, ...]:
        """Empty: the target registers its own memory."""
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
        """Return the target's check result; None for a shared target, which rank 0 checks."""
        if self.target is None:
            return None
        found = self.target.call("check", own=str(own), origin=origin_to_json(origin))
        return None if found is None else str(found)

    def close(self) -> None:
        """Do nothing: the target process frees its memory."""
