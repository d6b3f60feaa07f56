"""Where blocks lie: region offsets of a layout as arrays, and the N×3 descriptor arrays NIXL takes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kvdeck.engine.kv.layout import Geometry, Layout

Offsets = npt.NDArray[np.uint64]


def region_offsets(layout: Layout, geometry: Geometry, blocks: int, parts: int = 1) -> Offsets:
    """Byte offsets of every region of `blocks` blocks, shape (blocks, layers × outer_dims).

    Same order on every layout: layer by layer, outer dims inside; so row and column name the same KV.
    With `parts` (files), block `i` lies in part `i mod parts`, each part is laid out on its own, and an
    offset counts from the start of the first as if they lay behind each other.
    """
    if parts > 1:
        each = region_offsets(layout, geometry, blocks // parts)
        block = np.arange(blocks)
        starts = (block % parts * (blocks // parts * geometry.block_bytes)).astype(np.uint64)
        return each[block // parts] + starts[:, None]
    layers, dims = geometry.layers, geometry.outer_dims
    if layout.kind == "FullyContiguous":
        index: npt.NDArray[np.int64] = np.arange(blocks * layers * dims).reshape(blocks, layers * dims)
    elif layout.outer_contiguous:
        index = np.arange(layers * dims * blocks).reshape(layers * dims, blocks).T
    else:
        index = np.arange(layers * blocks * dims).reshape(layers, blocks, dims).transpose(1, 0, 2)
    flat = np.ascontiguousarray(index).reshape(blocks, layers * dims).astype(np.uint64)
    return flat * np.uint64(geometry.region_bytes)


def describe(addresses: Offsets, size: int, devices: Offsets | int) -> npt.NDArray[np.uint64]:
    """Descriptors (address, length, device), shape (N, 3), of N regions of `size` bytes."""
    flat = addresses.reshape(-1)
    out = np.empty((flat.size, 3), np.uint64)
    out[:, 0] = flat
    out[:, 1] = size
    out[:, 2] = devices if isinstance(devices, int) else devices.reshape(-1)
    return out


def merged_count(local: npt.NDArray[np.uint64], remote: npt.NDArray[np.uint64]) -> int:
    """Descriptors left when those that are neighbours on both sides are merged, as `make_prepped_xfer` does."""
    if len(local) == 0:
        return 0
    joins = np.ones(len(local) - 1, bool)
    for side in (local, remote):
        joins &= (side[:-1, 0] + side[:-1, 1] == side[1:, 0]) & (side[:-1, 2] == side[1:, 2])
    return int(len(local) - joins.sum())
