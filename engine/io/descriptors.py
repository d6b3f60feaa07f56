"""Region offsets of blocks under a layout, and NIXL's N×3 descriptor arrays, all as NumPy arrays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kvdeck.engine.planning.layout import Geometry, Layout

Offsets = npt.NDArray[np.uint64]


def region_offsets(layout: Layout, geometry: Geometry, blocks: int, parts: int = 1, *, dealt: bool = True) -> Offsets:
    """Return the byte offset of every region of `blocks` blocks, shape (blocks, layers × outer_dims).

    The order is the same for every layout (by layer, then outer dim), so a row and column identify the same KV.
    With `parts`, each part has a layout of its own, and offsets count from the start of the first part as if all
    parts were contiguous. With `dealt` (files), block `i` lies in part `i mod parts`; without (devices), each part
    holds a contiguous range of blocks.
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
    """Return the descriptors (address, bytes, device) of N regions of `size` bytes, shape (N, 3)."""
    flat = addresses.reshape(-1)
    out = np.empty((flat.size, 3), np.uint64)
    out[:, 0] = flat
    out[:, 1] = size
    out[:, 2] = devices if isinstance(devices, int) else devices.reshape(-1)
    return out


def in_pairs(rows: npt.NDArray[np.uint64], pairs: int, batch: int) -> npt.NDArray[np.uint64]:
    """Return descriptors in request order, shape (N, 3): `batch` blocks of each device pair in turn, as in nixlbench.

    Args:
        rows: Descriptors of all blocks, shape (blocks, per block, 3); each pair's blocks are contiguous.
        pairs: Number of device pairs.
        batch: Blocks of one pair in one request.
    """
    if pairs == 1:
        return rows.reshape(-1, 3)
    order = np.arange(len(rows)).reshape(pairs, -1, batch).transpose(1, 0, 2).reshape(-1)
    return rows[order].reshape(-1, 3)


def merged_count(local: npt.NDArray[np.uint64], remote: npt.NDArray[np.uint64]) -> int:
    """Return the number of descriptors after merging those adjacent on both endpoints, as `make_prepped_xfer` does."""
    if len(local) == 0:
        return 0
    joins = np.ones(len(local) - 1, bool)
    for side in (local, remote):
        joins &= (side[:-1, 0] + side[:-1, 1] == side[1:, 0]) & (side[:-1, 2] == side[1:, 2])
    return int(len(local) - joins.sum())
