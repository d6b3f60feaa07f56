"""Geometry and memory layout of KV-cache blocks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from kvdeck.sessions.errors import UsageError

DTYPE_BYTES = {"fp8": 1, "int8": 1, "fp16": 2, "bf16": 2, "bfloat16": 2, "fp32": 4}


@dataclass(frozen=True, slots=True)
class Geometry:
    """A block on one rank: `layers × outer_dims × page_size × inner_dim` elements of `dtype`.

    A plain block size without structure is one region: `layers = outer_dims = page_size = 1`.
    """

    layers: int
    outer_dims: int
    page_size: int
    inner_dim: int
    dtype: str

    @property
    def region_bytes(self) -> int:
        """Bytes of one outer dim of one layer of a block."""
        return self.page_size * self.inner_dim * DTYPE_BYTES[self.dtype]

    @property
    def regions(self) -> int:
        """Regions of a block in LayerSeparate: `layers × outer_dims`."""
        return self.layers * self.outer_dims

    @property
    def block_bytes(self) -> int:
        return self.regions * self.region_bytes


LLAMA_3_1_8B = Geometry(layers=32, outer_dims=2, page_size=16, inner_dim=1024, dtype="bf16")
"""8 KV heads of 128 in 32 layers: 2 MiB per block, 64 regions of 32 KiB."""

LayoutKind = Literal["FullyContiguous", "LayerSeparate"]


@dataclass(frozen=True, slots=True)
class Layout:
    """Memory layout of blocks; `str()` is the Rust debug form used in Dynamo's session files.

    With `blocks` blocks, FullyContiguous is `[blocks, layers, outer, region]`. LayerSeparate is, per layer,
    `[blocks, outer, region]`, or `[outer, blocks, region]` when `outer_contiguous`.
    """

    kind: LayoutKind
    outer_contiguous: bool = False

    def __str__(self) -> str:
        if self.kind == "FullyContiguous":
            return self.kind
        return f"LayerSeparate {{ outer_contiguous: {str(self.outer_contiguous).lower()} }}"

    def region_offset(self, geometry: Geometry, blocks: int, block: int, layer: int, outer: int) -> int:
        """Return a region's byte offset in a buffer of `blocks` blocks."""
        size, dims = geometry.region_bytes, geometry.outer_dims
        if self.kind == "FullyContiguous":
            return ((block * geometry.layers + layer) * dims + outer) * size
        if self.outer_contiguous:
            return ((layer * dims + outer) * blocks + block) * size
        return ((layer * blocks + block) * dims + outer) * size


FULLY_CONTIGUOUS = Layout("FullyContiguous")
LAYER_SEPARATE = Layout("LayerSeparate")
LAYER_SEPARATE_OUTER = Layout("LayerSeparate", outer_contiguous=True)

_SPELLINGS = {
    "fullycontiguous": FULLY_CONTIGUOUS,
    "fc": FULLY_CONTIGUOUS,
    "layerseparate": LAYER_SEPARATE,
    "ls": LAYER_SEPARATE,
    "layerseparate{outer_contiguous:false}": LAYER_SEPARATE,
    "layerseparate{outer_contiguous:true}": LAYER_SEPARATE_OUTER,
    "layerseparateouter": LAYER_SEPARATE_OUTER,
    "ls-outer": LAYER_SEPARATE_OUTER,
}


def parse_layout(text: str) -> Layout:
    """Return the layout of a spelling; case, spaces and underscores in the name are ignored.

    Raises:
        UsageError: The layout is unknown.
    """
    squeezed = re.sub(r"\s+", "", text).lower()
    layout = _SPELLINGS.get(squeezed) or _SPELLINGS.get(squeezed.replace("_", ""))
    if layout is None:
        raise UsageError(
            f"unknown layout {text!r}",
            "use FullyContiguous (fc), LayerSeparate (ls) or 'LayerSeparate { outer_contiguous: true }' (ls-outer)",
        )
    return layout


@dataclass(frozen=True, slots=True)
class LayoutPair:
    """Layouts of a transfer's two endpoints; the finer one determines the descriptors per block."""

    source: Layout
    destination: Layout

    def __str__(self) -> str:
        return str(self.source) if self.source == self.destination else f"{self.source} -> {self.destination}"

    def descriptors_per_block(self, geometry: Geometry) -> int:
        """Return 1 if both endpoints are FullyContiguous, else `layers × outer_dims`."""
        if self.source.kind == self.destination.kind == "FullyContiguous":
            return 1
        return geometry.regions


def parse_layout_pair(text: str) -> LayoutPair:
    """Return the pair of `LAYOUT` (both endpoints) or `SOURCE -> DESTINATION` (or `SOURCE:DESTINATION`, short names).

    Raises:
        UsageError: A layout is unknown, or there are more than two.
    """
    parts = re.split(r"\s*->\s*", text) if "->" in text else [text]
    if len(parts) == 1 and "{" not in text and ":" in text:
        parts = text.split(":")
    if len(parts) > 2:
        raise UsageError(f"layout {text!r} has more than two sides", "write SOURCE -> DESTINATION")
    sides = [parse_layout(part) for part in parts]
    return LayoutPair(sides[0], sides[-1])
