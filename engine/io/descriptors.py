"""Where blocks lie: region offsets of a layout as arrays, and the N×3 descriptor arrays NIXL takes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kvdeck.engine.planning.layout import Geometry, Layout

Offsets = npt.NDArray[np.uint64]


def region_offsets(layout: Layout, geometry: Geometry, blocks: int, parts: int = 1, *, dealt: bool = True) -> Offsets:
    """Byte offsets of every region of `blocks` blocks, shape (blocks, layers × outer_dims).

    Same order on every layout: layer by layer, outer dims inside; so row and column name the same KV.
    With `parts`, each part is laid out on its own, and an offset counts from the start of the first as if they lay
    behind each other. Files are dealt to: block `i` lies in part `i mod parts`. Devices are not: the first has the
    first blocks.
    """
    if parts > 1:
        each, block = region_offsets(layout, geometry, blocks // parts), np.arange(blocks)
        within, part = np.divmod(block, parts) if dealt else np.divmod(block, blocks // parts)[::-1]
        starts = (part * (blocks // parts * geometry.block_bytes)).astype(np.uint64)
        return each[within] + starts[:, None]
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


def in_pairs(rows: npt.NDArray[np.uint64], pairs: int, batch: int) -> npt.NDArray[np.uint64]:
    """Descriptors in the order requests take them: of each pair `batch` blocks, pair by pair, as nixlbench has it.

    Args:
        rows: Descriptors of all blocks, shape (blocks, per block, 3); each pair's blocks lie beside each other.
        pairs: How many pairs there are.
        batch: Blocks of one pair in one request.
    """
    if pairs == 1:
        return rows.reshape(-1, 3)
    order = np.arange(len(rows)).reshape(pairs, -1, batch).transpose(1, 0, 2).reshape(-1)
    return rows[order].reshape(-1, 3)


def merged_count(local: npt.NDArray[np.uint64], remote: npt.NDArray[np.uint64]) -> int:
    """Descriptors left when those that are neighbours on both sides are merged, as `make_prepped_xfer` does."""
    if len(local) == 0:
        return 0
    joins = np.ones(len(local) - 1, bool)
    for side in (local, remote):
        joins &= (side[:-1, 0] + side[:-1, 1] == side[1:, 0]) & (side[:-1, 2] == side[1:, 2])
    return int(len(local) - joins.sum())
