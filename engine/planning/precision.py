"""Element types of the KV cache and their sizes in bytes, scales included."""

from __future__ import annotations

from dataclasses import dataclass

from kvdeck.sessions.errors import UsageError


@dataclass(frozen=True, slots=True)
class Precision:
    """An element type; neighbouring elements of a head's vector may share a scale."""

    name: str
    bits: int
    scale_every: int = 0
    """Elements that share one scale; 0 if scales are per tensor or head, outside the block."""
    scale_bytes: int = 0
    packed: bool = False
    """True for vLLM's packing of MLA's latent: fp8 with scales, its rope part in bf16."""

    def vector_bytes(self, elements: int) -> int:
        """Return the bytes of one head's vector: its elements, rounded up to whole bytes, and their scales."""
        return -(-elements * self.bits // 8) + self.vector_scale_bytes(elements)

    def vector_scale_bytes(self, elements: int) -> int:
        """Return the bytes of the scales of one head's vector."""
        return -(-elements // self.scale_every) * self.scale_bytes if self.scale_every else 0

    @property
    def said(self) -> str:
        """Element size as text: `4 bits + 1 B of scale for each 16 elements`."""
        if self.packed:
            return "vLLM's packing of MLA: fp8 and scales, rope in bf16"
        if not self.scale_every:
            return f"{self.bits // 8} B per element"
        return f"{self.bits} bits + {self.scale_bytes} B of scale per {self.scale_every} elements"


PRECISIONS = {
    precision.name: precision
    for precision in (
        Precision("fp8", 8),
        Precision("int8", 8),
        Precision("fp16", 16),
        Precision("bf16", 16),
        Precision("fp32", 32),
        # SGLang's fp4_e2m1 and TensorRT-LLM's NVFP4 store 1 byte of scale per 16 elements, OCP's MXFP4 per 32.
        Precision("fp4", 4, 16, 1),
        Precision("nvfp4", 4, 16, 1),
        Precision("mxfp4", 4, 32, 1),
        Precision("fp8_ds_mla", 8, packed=True),
    )
}
_SPELLINGS = {
    "bfloat16": "bf16",
    "float16": "fp16",
    "half": "fp16",
    "float32": "fp32",
    "fp8_e4m3": "fp8",
    "fp8_e5m2": "fp8",
    "fp4_e2m1": "fp4",
}


def parse_precision(text: str) -> Precision:
    """Return the element type of a spelling; case is ignored.

    Raises:
        UsageError: The type is unknown.
    """
    name = str(text).strip().lower().replace("-", "_")
    precision = PRECISIONS.get(_SPELLINGS.get(name, name))
    if precision is None:
        raise UsageError(f"unknown KV precision {text!r}", f"use {', '.join((*PRECISIONS, 'bfloat16'))}")
    return precision
