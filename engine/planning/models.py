"""Model architectures, reduced to what determines the KV cache: layers, heads, dimensions, windows and states."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from kvdeck.engine.planning.precision import Precision
from kvdeck.engine.planning.recurrent_state import State
from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.units import count_text, many

STATELESS = ("none", "mlp", "moe", "shared")
"""Names of layers without KV or state, or that reuse another layer's KV (`shared`)."""


@dataclass(frozen=True, slots=True)
class Part:
    """One outer dim of a layer: K, V, MLA's latent, or an indexer's keys."""

    heads: int
    dim: int
    split: bool = True
    """True if tensor parallelism divides the heads; False for MLA's latent, complete on every rank."""
    fixed_bytes: int = 0
    """Bytes per token if independent of the KV precision; 0 otherwise."""
    packed_bytes: int = 0
    """Bytes per token in vLLM's `fp8_ds_mla` packing; 0 if it has none."""

    def token_bytes(self, precision: Precision, heads: int | None = None) -> int:
        """Return the bytes per token of all heads, or of `heads` heads."""
        if precision.packed and self.packed_bytes:
            return self.packed_bytes
        return self.fixed_bytes or (self.heads if heads is None else heads) * precision.vector_bytes(self.dim)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of layer. Without parts it has no KV cache, but may have a recurrent state."""

    name: str
    parts: tuple[Part, ...]
    window: int | None = None
    """Tokens retained: the newest `window`, or with `chunked` those of the current chunk. Null: all."""
    chunked: bool = False
    state: State | None = None
    """Recurrent state per sequence (convolution, recurrence), independent of its length."""
    every: int = 1
    """Tokens per stored entry; above 1 the layer keeps compressed entries of whole groups of tokens only."""
    beside: tuple[Kind, ...] = ()
    """Further caches of the same layer."""

    @property
    def caches(self) -> tuple[Kind, ...]:
        """All caches of a layer of this kind: none for a layer without KV."""
        return tuple(cache for cache in (self, *self.beside) if cache.parts)

    def entries_per_page(self, page_size: int) -> int:
        """Return the entries in a page of `page_size` tokens, at least one.

        Raises:
            UsageError: The page size isn't a multiple of `every`.
        """
        if page_size > self.every and page_size % self.every:
            raise UsageError(
                f"page_size is {page_size}, but an entry of {self.name} stands for {count_text(self.every)} tokens",
                f"give a multiple of {self.every}",
            )
        return max(1, page_size // self.every)

    def kept(self, tokens: int) -> tuple[int, int]:
        """Return the first retained token of a sequence of `tokens`, and the number of retained tokens or entries."""
        if self.every > 1:
            return 0, tokens // self.every
        if self.window is None or not tokens:
            return 0, tokens
        first = (tokens - 1) // self.window * self.window if self.chunked else max(0, tokens - self.window)
        return first, tokens - first

    def pages(self, tokens: int, page_size: int) -> int:
        """Return the number of pages with a retained token of a sequence of `tokens`."""
        first, kept = self.kept(tokens)
        if self.every > 1:
            return -(-kept // self.entries_per_page(page_size))
        return (tokens - 1) // page_size - first // page_size + 1 if kept else 0


@dataclass(frozen=True, slots=True)
class Architecture:
    """A model, reduced to what determines its KV cache."""

    name: str
    kinds: tuple[Kind, ...]
    order: bytes
    """Index of each layer's kind."""
    query_heads: int | None = None
    parameters: int | None = None
    source: str = ""
    """Source of the numbers."""
    title: str = ""
    precision: str = ""
    """Element type of the KV cache according to the model's files; empty if they don't say."""
    precision_source: str = ""
    """Key and file that say it."""
    notes: tuple[str, ...] = ()
    """What was assumed where the model's file leaves something out."""

    @property
    def layers(self) -> int:
        return len(self.order)

    @property
    def latent(self) -> bool:
        """True if the model uses MLA's latent instead of KV heads."""
        return any(not part.split and not part.fixed_bytes for part in self.parts())

    def parts(self) -> tuple[Part, ...]:
        """Return the parts of all caches of all kinds."""
        return tuple(part for kind in self.kinds for cache in kind.caches for part in cache.parts)

    @property
    def compressed(self) -> bool:
        """True if some layers keep entries of several tokens each."""
        return any(cache.every > 1 for kind in self.kinds for cache in kind.caches)

    @property
    def attention(self) -> str:
        """Layers as text: `18 layers · GQA, 8 KV heads × 64, window 128; 18 layers · GQA, 8 KV heads × 64`."""
        counted = ((self.order.count(index), kind) for index, kind in enumerate(self.kinds))
        return "; ".join(
            f"{many(count, 'layer')} · {_kind_text(kind, self.query_heads)}" for count, kind in counted if count
        )

    def token_bytes(self, precision: Precision) -> int:
        """Return the bytes per token of all layers of the whole model, without replicas.

        An entry of several tokens counts as its share of one token; the sum is rounded up.
        """
        return math.ceil(
            sum(
                Fraction(
                    self.order.count(index) * sum(part.token_bytes(precision) for part in cache.parts), cache.every
                )
                for index, kind in enumerate(self.kinds)
                for cache in kind.caches
            )
        )

    def state_bytes(self) -> int:
        """Return the bytes of recurrent states per sequence, whole model, without replicas."""
        return sum(self.order.count(index) * kind.state.bytes() for index, kind in enumerate(self.kinds) if kind.state)

    def without_state(self) -> tuple[str, ...]:
        """Return texts (`24 mamba layers`) for layers whose state size is unknown."""
        return tuple(
            f"{many(self.order.count(index), f'{kind.name} layer')}"
            for index, kind in enumerate(self.kinds)
            if not kind.parts and kind.state is None and kind.name not in STATELESS
        )

    def request_bytes(self, precision: Precision, tokens: int) -> int:
        """Return the KV bytes of a sequence of `tokens` tokens, whole model, within windows, without replicas."""
        return sum(
            self.order.count(index) * cache.kept(tokens)[1] * sum(part.token_bytes(precision) for part in cache.parts)
            for index, kind in enumerate(self.kinds)
            for cache in kind.caches
        )


def uniform(name: str, layers: int, kind: Kind, **more: object) -> Architecture:
    """Return a model with identical layers."""
    return Architecture(name, (kind,), bytes(layers), **more)  # type: ignore[arg-type]


def keys_and_values(heads: int, dim: int, value_dim: int | None = None) -> tuple[Part, ...]:
    """Return K and V of grouped-query (or multi-head, or multi-query) attention."""
    return Part(heads, dim), Part(heads, value_dim or dim)


def latent(rank: int, rope: int, indexer_bytes: int = 0) -> tuple[Part, ...]:
    """Return MLA's latent vector with its rope part, and the indexer's keys if there is one.

    Packed, the latent is fp8 with an fp32 scale per 128 elements and the rope part bf16: 656 B of 512 + 64
    (vLLM's `fp8_ds_mla`, for sparse attention).
    """
    whole = Part(1, rank + rope, split=False, packed_bytes=rank + -(-rank // 128) * 4 + 2 * rope)
    return (whole, Part(1, indexer_bytes, split=False, fixed_bytes=indexer_bytes)) if indexer_bytes else (whole,)


def _kind_text(kind: Kind, query_heads: int | None) -> str:
    state = f" + {kind.state.said}" if kind.state else ""
    if not kind.parts:
        return kind.state.said if kind.state else f"{kind.name} (no KV)"
    first = kind.parts[0]
    window = "" if kind.window is None else f", {'chunk' if kind.chunked else 'window'} {count_text(kind.window)}"
    entries = "".join(f" + 1 entry per {count_text(cache.every)} tokens" for cache in kind.beside)
    if not first.split:
        return f"MLA {first.dim}{' + indexer' if len(kind.parts) > 1 else ''}{window}{state}"
    word = "MHA" if first.heads == query_heads else "MQA" if first.heads == 1 else "GQA"
    value = kind.parts[min(1, len(kind.parts) - 1)]
    dims = f"{first.dim}" if value.dim == first.dim else f"{first.dim}/{value.dim}"
    same = " (K = V)" if len(kind.parts) == 1 else ""
    index = " + indexer" if any(part.fixed_bytes for cache in kind.caches for part in cache.parts) else ""
    return f"{word}, {many(first.heads, 'KV head')} × {dims}{same}{window}{entries}{index}{state}"
