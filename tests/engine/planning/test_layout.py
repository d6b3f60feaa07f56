"""Layouts in exact integers, and the same blocks as descriptor arrays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvdeck.engine.io.descriptors import describe, merged_count, region_offsets
from kvdeck.engine.planning.layout import (
    FULLY_CONTIGUOUS,
    LAYER_SEPARATE,
    LAYER_SEPARATE_OUTER,
    LLAMA_3_1_8B,
    Geometry,
    Layout,
    LayoutPair,
    parse_layout,
    parse_layout_pair,
)
from kvdeck.sessions.errors import UsageError

LAYOUTS = st.sampled_from([FULLY_CONTIGUOUS, LAYER_SEPARATE, LAYER_SEPARATE_OUTER])
GEOMETRIES = st.builds(
    Geometry,
    layers=st.integers(1, 5),
    outer_dims=st.integers(1, 2),
    page_size=st.integers(1, 4),
    inner_dim=st.integers(1, 9),
    dtype=st.sampled_from(["fp8", "bf16", "fp32"]),
)


def test_the_default_is_two_mebibytes_in_64_regions() -> None:
    assert (LLAMA_3_1_8B.block_bytes, LLAMA_3_1_8B.regions, LLAMA_3_1_8B.region_bytes) == (2 << 20, 64, 32 << 10)


@given(LAYOUTS, GEOMETRIES, st.integers(1, 4), st.integers(1, 3))
def test_regions_cover_the_buffer_exactly_once(layout: Layout, geometry: Geometry, rows: int, parts: int) -> None:
    blocks = rows * parts
    offsets = region_offsets(layout, geometry, blocks, parts)
    assert offsets.shape == (blocks, geometry.regions)
    step = geometry.region_bytes
    assert sorted(offsets.reshape(-1).tolist()) == list(range(0, blocks * geometry.block_bytes, step))


@given(LAYOUTS, GEOMETRIES, st.integers(1, 4), st.data())
def test_arrays_agree_with_the_formula(layout: Layout, geometry: Geometry, blocks: int, data: st.DataObject) -> None:
    block = data.draw(st.integers(0, blocks - 1))
    layer = data.draw(st.integers(0, geometry.layers - 1))
    outer = data.draw(st.integers(0, geometry.outer_dims - 1))
    offsets = region_offsets(layout, geometry, blocks)
    expected = layout.region_offset(geometry, blocks, block, layer, outer)
    assert offsets[block, layer * geometry.outer_dims + outer] == expected


def test_outer_contiguous_only_moves_the_strides() -> None:
    pairs = [LayoutPair(layout, layout) for layout in (LAYER_SEPARATE, LAYER_SEPARATE_OUTER)]
    assert {pair.descriptors_per_block(LLAMA_3_1_8B) for pair in pairs} == {64}
    near, far = (region_offsets(layout, LLAMA_3_1_8B, 8) for layout in (LAYER_SEPARATE, LAYER_SEPARATE_OUTER))
    assert near[0, 1] - near[0, 0] == LLAMA_3_1_8B.region_bytes
    assert far[0, 1] - far[0, 0] == 8 * LLAMA_3_1_8B.region_bytes


def test_the_finer_side_sets_the_count() -> None:
    assert LayoutPair(LAYER_SEPARATE, FULLY_CONTIGUOUS).descriptors_per_block(LLAMA_3_1_8B) == 64
    assert LayoutPair(FULLY_CONTIGUOUS, FULLY_CONTIGUOUS).descriptors_per_block(LLAMA_3_1_8B) == 1


@pytest.mark.parametrize("layout", [FULLY_CONTIGUOUS, LAYER_SEPARATE, LAYER_SEPARATE_OUTER])
def test_a_layout_reads_its_own_text(layout: Layout) -> None:
    assert parse_layout(str(layout)) == layout


@pytest.mark.parametrize("text", ["ls -> fc", "ls:fc", "LayerSeparate -> FullyContiguous"])
def test_two_sides(text: str) -> None:
    assert parse_layout_pair(text) == LayoutPair(LAYER_SEPARATE, FULLY_CONTIGUOUS)


@pytest.mark.parametrize("text", ["", "fc:ls:fc", "a -> b", "Contiguous", "LayerSeparate { outer_contiguous: maybe }"])
def test_what_is_no_layout_is_named(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_layout_pair(text)
    assert caught.value.fix


def test_merging_counts_neighbours_on_both_sides_only() -> None:
    size = 4096
    near = np.arange(4, dtype=np.uint64) * np.uint64(size)
    apart = near * np.uint64(2)
    assert merged_count(describe(near, size, 0), describe(near, size, 0)) == 1
    assert merged_count(describe(near, size, 0), describe(apart, size, 0)) == 4
    assert merged_count(describe(near, size, 0), describe(near, size, np.array([3, 3, 4, 4], np.uint64))) == 2
