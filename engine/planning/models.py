"""What of a model decides its KV cache: layers, heads, dimensions and windows."""

from __future__ import annotations

from dataclasses import dataclass

from kvdeck.engine.planning.precision import Precision
from kvdeck.engine.planning.recurrent_state import State
from kvdeck.sessions.units import count_text, many

STATELESS = ("none", "mlp", "moe", "shared")
"""Names of layers that keep nothing at all, or another layer's KV."""


@dataclass(frozen=True, slots=True)
class Part:
    """One outer dim of a layer: K, V, MLA's latent, or an indexer's keys."""

    heads: int
    dim: int
    split: bool = True
    """Whether tensor parallelism divides the heads; MLA's latent stands whole on every rank."""
    fixed_bytes: int = 0
    """Bytes of a token where the KV precision doesn't matter."""

    def token_bytes(self, precision: Precision, heads: int | None = None) -> int:
        """Bytes of one token with all heads, or so many."""
        return self.fixed_bytes or (self.heads if heads is None else heads) * precision.vector_bytes(self.dim)


@dataclass(frozen=True, slots=True)
class Kind:
    """Layers that are alike. One without parts keeps nothing that grows with the tokens; it may have a state."""

    name: str
    parts: tuple[Part, ...]
    window: int | None = None
    """Tokens that are kept: the newest so many, or with `chunked` those of the chunk that goes on."""
    chunked: bool = False
    state: State | None = None
    """What a layer keeps of a sequence besides, whatever its length: of a convolution, a recurrence."""

    def kept(self, tokens: int) -> tuple[int, int]:
        """First token that is kept of so many, and how many are."""
        if self.window is None or not tokens:
            return 0, tokens
        first = (tokens - 1) // self.window * self.window if self.chunked else max(0, tokens - self.window)
        return first, tokens - first

    def pages(self, tokens: int, page_size: int) -> int:
        """Pages that hold a kept token of a sequence of so many."""
        first, kept = self.kept(tokens)
        return (tokens - 1) // page_size - first // page_size + 1 if kept else 0


@dataclass(frozen=True, slots=True)
class Architecture:
    """A model as far as its KV cache goes."""

    name: str
    kinds: tuple[Kind, ...]
    order: bytes
    """For each layer the index of its kind."""
    query_heads: int | None = None
    parameters: int | None = None
    source: str = ""
    """Where the figures come from."""
    title: str = ""

    @property
    def layers(self) -> int:
        return len(self.order)

    @property
    def latent(self) -> bool:
        """Whether it has MLA's latent instead of heads."""
        return any(not part.split and not part.fixed_bytes for kind in self.kinds for part in kind.parts)

    @property
    def attention(self) -> str:
        """Its layers in words: `36 × sliding 128, 36 × full GQA 8 × 64`."""
        counted = ((self.order.count(index), kind) for index, kind in enumerate(self.kinds))
        return ", ".join(f"{count} {_kind_text(kind, self.query_heads)}" for count, kind in counted if count)

    def token_bytes(self, precision: Precision) -> int:
        """Bytes that one token adds in all layers, whole model, nothing replicated."""
        return sum(
            self.order.count(index) * sum(part.token_bytes(precision) for part in kind.parts)
            for index, kind in enumerate(self.kinds)
        )

    def state_bytes(self) -> int:
        """Bytes of one sequence's recurrent states in all layers, whole model, nothing replicated."""
        return sum(self.order.count(index) * kind.state.bytes() for index, kind in enumerate(self.kinds) if kind.state)

    def without_state(self) -> tuple[str, ...]:
        """Layers that keep a state of which nothing is known here."""
        return tuple(
            f"{many(self.order.count(index), f'{kind.name} layer')}"
            for index, kind in enumerate(self.kinds)
            if not kind.parts and kind.state is None and kind.name not in STATELESS
        )

    def request_bytes(self, precision: Precision, tokens: int) -> int:
        """Bytes of a sequence of so many tokens in all layers, windows respected, nothing replicated."""
        return sum(
            self.order.count(index) * kind.kept(tokens)[1] * sum(part.token_bytes(precision) for part in kind.parts)
            for index, kind in enumerate(self.kinds)
        )


def uniform(name: str, layers: int, kind: Kind, **more: object) -> Architecture:
    """A model whose layers are all alike."""
    return Architecture(name, (kind,), bytes(layers), **more)  # type: ignore[arg-type]


def keys_and_values(heads: int, dim: int, value_dim: int | None = None) -> tuple[Part, ...]:
    """K and V of grouped-query (or multi-head, or multi-query) attention."""
    return Part(heads, dim), Part(heads, value_dim or dim)


def latent(rank: int, rope: int, indexer_bytes: int = 0) -> tuple[Part, ...]:
    """MLA: the latent vector with its rope part, and the indexer's keys where there is one."""
    whole = Part(1, rank + rope, split=False)
    return (whole, Part(1, indexer_bytes, split=False, fixed_bytes=indexer_bytes)) if indexer_bytes else (whole,)


def _kind_text(kind: Kind, query_heads: int | None) -> str:
    state = f" + {kind.state.said}" if kind.state else ""
    if not kind.parts:
        return kind.state.said if kind.state else f"{kind.name} (no KV)"
    first = kind.parts[0]
    window = "" if kind.window is None else f" {'chunk' if kind.chunked else 'window'} {count_text(kind.window)}"
    if not first.split:
        return f"MLA {first.dim}{' + indexer' if len(kind.parts) > 1 else ''}{window}{state}"
    word = "MHA" if first.heads == query_heads else "MQA" if first.heads == 1 else "GQA"
    dims = f"{first.dim}" if kind.parts[-1].dim == first.dim else f"{first.dim}/{kind.parts[-1].dim}"
    return f"{word} {first.heads} × {dims}{window}{state}"
