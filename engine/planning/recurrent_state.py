"""Recurrent states of Mamba, linear attention and short convolutions; their size doesn't depend on sequence length.

The shapes are those of vLLM's `MambaStateShapeCalculator` (vllm/model_executor/layers/mamba/mamba_utils.py), without
rows for speculative tokens: the convolution's last `kernel - 1` input rows, and the recurrence's state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kvdeck.engine.planning.model_numbers import checked_count
from kvdeck.engine.planning.precision import PRECISIONS, parse_precision
from kvdeck.sessions.errors import UsageError

FIELDS: dict[str, tuple[str, ...]] = {
    "mamba1": ("intermediate_size", "state_size", "conv_kernel"),
    "mamba2": ("intermediate_size", "n_groups", "num_heads", "head_dim", "state_size", "conv_kernel"),
    "gated_delta_net": ("num_k_heads", "num_v_heads", "head_k_dim", "head_v_dim", "conv_kernel"),
    "kda": ("num_heads", "head_dim", "conv_kernel"),
    "short_conv": ("conv_dim", "conv_kernel"),
    "linear_attention": ("num_heads", "head_dim"),
}
"""Required numbers of each kind of state, by vLLM's names."""
DTYPES = ("dtype", "ssm_dtype")
"""Optional types: convolution (default bf16) and recurrence (default the same; fp32 for kda, as in vLLM)."""


@dataclass(frozen=True, slots=True)
class State:
    """One layer's state of one sequence."""

    kind: str
    conv_rows: int
    """Input rows stored for the convolution (`kernel - 1`); 0 without one."""
    conv_dim: int
    """Elements per row, divided by tensor parallelism."""
    groups: int
    """Mamba 2's groups of B and C, appended to each row; a rank needs at least one complete group."""
    group_dim: int
    heads: int
    """Heads (or channels) of the recurrence, divided by tensor parallelism; 0 without one."""
    head_elements: int
    dtype: str = "bf16"
    ssm_dtype: str = "bf16"

    def conv_bytes(self, tp: int = 1) -> int:
        """Return the convolution's bytes on one of `tp` ranks."""
        groups = self.groups if self.groups % tp == 0 else tp
        return (self.conv_dim + 2 * groups * self.group_dim) // tp * self.conv_rows * _width(self.dtype)

    def ssm_bytes(self, tp: int = 1) -> int:
        """Return the recurrence's bytes on one of `tp` ranks."""
        return self.heads // tp * self.head_elements * _width(self.ssm_dtype)

    def bytes(self, tp: int = 1) -> int:
        """Return the state's total bytes on one of `tp` ranks."""
        return self.conv_bytes(tp) + self.ssm_bytes(tp)

    def check(self, tp: int, model: str) -> None:
        """Check that serving engines accept this tensor parallelism.

        Raises:
            UsageError: TP doesn't divide the heads or the row, or TP and groups don't divide one another.
        """
        for words, count in {
            "heads of its recurrence": self.heads,
            "elements of its convolution": self.conv_dim,
        }.items():
            if count % tp:
                raise UsageError(f"TP {tp} doesn't divide {model}'s state: {count} {words}", "give a divisor")
        if self.groups and max(self.groups, tp) % min(self.groups, tp):
            raise UsageError(
                f"TP {tp} doesn't divide {model}'s state: {self.groups} groups", "give a divisor or a multiple"
            )

    @property
    def said(self) -> str:
        """Kind and element types, as text."""
        types = self.dtype if self.ssm_dtype == self.dtype or not self.heads else f"{self.dtype}, {self.ssm_dtype}"
        return f"{self.kind.replace('_', ' ')} {types}"


def _width(dtype: str) -> int:
    return PRECISIONS[dtype].bits // 8


def state_of(kind: str, fields: Mapping[str, Any], source: str) -> State:
    """Return a layer's state from vLLM's numbers for its kind.

    Args:
        fields: The numbers in `FIELDS` and optional types in `DTYPES`.
        source: Name of the file or model in error messages.

    Raises:
        UsageError: The kind is unknown, or a number or type is missing, unknown or invalid.
    """
    if kind not in FIELDS:
        raise UsageError(f"state {kind!r} in {source} is unknown", f"use {', '.join(FIELDS)}")
    known = (*FIELDS[kind], *DTYPES)
    if unknown := sorted(str(key) for key in fields if key not in known):
        raise UsageError(f"state {kind} in {source} has unknown keys: {unknown[0]}", f"use only {', '.join(known)}")
    if missing := [key for key in FIELDS[kind] if fields.get(key) is None]:
        raise UsageError(f"state {kind} in {source} lacks {', '.join(missing)}", "add it")
    n = {key: checked_count(key, fields[key], source) for key in FIELDS[kind]}
    dtype = _type(fields.get("dtype") or "bf16")
    ssm_dtype = _type(fields.get("ssm_dtype") or ("fp32" if kind == "kda" else dtype))
    rows = n.get("conv_kernel", 1) - 1
    return State(kind, rows, *_shape(kind, n), dtype, ssm_dtype)


def _shape(kind: str, n: Mapping[str, int]) -> tuple[int, int, int, int, int]:
    """Return `State`'s fields (conv_dim, groups, group_dim, heads, head_elements)."""
    if kind == "mamba1":
        return n["intermediate_size"], 0, 0, n["intermediate_size"], n["state_size"]
    if kind == "mamba2":
        head = n["head_dim"] * n["state_size"]
        return n["intermediate_size"], n["n_groups"], n["state_size"], n["num_heads"], head
    if kind == "gated_delta_net":
        keys, values = n["num_k_heads"] * n["head_k_dim"], n["num_v_heads"] * n["head_v_dim"]
        return 2 * keys + values, 0, 0, n["num_v_heads"], n["head_v_dim"] * n["head_k_dim"]
    if kind == "kda":
        return 3 * n["num_heads"] * n["head_dim"], 0, 0, n["num_heads"], n["head_dim"] ** 2
    if kind == "short_conv":
        return n["conv_dim"], 0, 0, 0, 0
    return 0, 0, 0, n["num_heads"], n["head_dim"] ** 2


def _type(text: object) -> str:
    precision = parse_precision(str(text).removeprefix("torch."))
    if precision.scale_every:
        raise UsageError(f"a recurrent state can't be stored as {precision.name}", "use bf16, fp16, fp32 or fp8")
    return precision.name
