"""What a layer keeps: KV heads and their dims, MLA's latent, an indexer's keys, windows, compressed entries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kvdeck.engine.planning.model_fields import HEAD_DIM, KV_HEADS, QUERY_HEADS, WIDTH, WINDOW, Fields
from kvdeck.engine.planning.model_numbers import cut
from kvdeck.engine.planning.models import Kind, Part, keys_and_values, latent
from kvdeck.engine.planning.recurrent_fields import state_in
from kvdeck.sessions.errors import UsageError

SHORT = {"compressed_sparse": "csa", "heavily_compressed": "hca"}
"""DeepSeek V4's own names of its two attentions."""
INDEX_BLOCK = 128
"""Elements of an indexer's fp8 key that share one fp32 scale, as vLLM and SGLang store it."""


def layer_kind(fields: Fields, word: str, family: str, indexed: bool) -> Kind:
    """Return the kind of one layer.

    Args:
        fields: The decoder's keys, with this layer's own values.
        word: The layer's type, as `layer_words` names it.
        family: The model's `model_type`; empty if it is unknown.
        indexed: True if the layer has an indexer with keys of its own, where the model has indexers.

    Raises:
        UsageError: A number is missing or invalid.
    """
    if word in ("full", "sliding", "chunked", "hybrid", "sparse"):
        return _attention(fields, word, family, indexed)
    if word in ("compressed_sparse", "heavily_compressed"):
        return _compressed(fields, word)
    if word in ("shared", "mlp", "moe", "none"):
        return Kind(word, ())
    state = state_in(_merged(fields), word, family, fields.source)
    return Kind("mamba" if word == "linear" and state and state.kind.startswith("mamba") else word, (), state=state)


def _merged(fields: Fields) -> Mapping[str, Any]:
    """Return the file's keys over its class's defaults."""
    return {**fields.defaults, **fields.config}


def _attention(fields: Fields, word: str, family: str, indexed: bool) -> Kind:
    window = None
    if word == "chunked":
        window = fields.needed(("attention_chunk_size",))
    elif word == "sliding":
        if family == "modernbert-decoder":
            window = fields.needed(("local_attention",)) // 2
        elif family == "mimo_v2_flash":
            window = fields.count(("sliding_window_size",)) or fields.needed(("sliding_window",))
        else:
            window = fields.needed(WINDOW, ", whose layer_types have sliding windows")
    if word == "sliding":
        fields.seen.update(WINDOW)
    if family == "modernbert-decoder":
        fields.seen.add("local_attention")
    if family == "deepseek_v4":
        return Kind(word, (_shared_vector(fields),), window)
    parts = _latent_parts(fields, indexed) if _is_latent(fields, family) else _head_parts(fields, word, family)
    if word == "sparse":
        dim = fields.needed(("index_head_dim", "sparse_index_dim"))
        parts = (*parts, Part(1, 2 * dim, split=False, fixed_bytes=2 * dim))
    state = state_in(_merged(fields), "mamba", family, fields.source) if word == "hybrid" else None
    return Kind(word, parts, window, word == "chunked", state)


def _is_latent(fields: Fields, family: str) -> bool:
    on = fields.flag("use_mla")
    rank = fields.count(("kv_lora_rank",))
    fields.seen.update(("qk_nope_head_dim", "qk_rope_head_dim", "qk_head_dim", "q_head_dim"))
    if not rank or on is False:
        if on:
            raise UsageError(f"kv_lora_rank is missing in {fields.source}, whose use_mla is true", "add it")
        return False
    if not family and fields.find(("qk_rope_head_dim",))[1] is None:
        raise UsageError(f"qk_rope_head_dim is missing in {fields.source}, whose kv_lora_rank is {rank}", "add it")
    return True


def _latent_parts(fields: Fields, indexed: bool) -> tuple[Part, ...]:
    fields.seen.update((*KV_HEADS, *HEAD_DIM, "v_head_dim", "index_head_dim"))
    rank = fields.needed(("kv_lora_rank",))
    rope = fields.needed(("qk_rope_head_dim",))
    dim = fields.count(("index_head_dim",)) if indexed else None
    return latent(rank, rope, _indexer_bytes(dim or 0))


def _indexer_bytes(dim: int) -> int:
    return dim + -(-dim // INDEX_BLOCK) * 4


def _head_parts(fields: Fields, word: str, family: str) -> tuple[Part, ...]:
    heads = kv_heads(fields, word, family)
    value_names = ("swa_v_head_dim", "v_head_dim") if word == "sliding" else ("v_head_dim",)
    fields.seen.add("swa_v_head_dim")
    # V2's and V3's classes have a v_head_dim for MLA; without MLA a head is hidden_size / heads wide.
    value = fields.count(value_names) if fields.has(*value_names) or not fields.defaults.get("kv_lora_rank") else None
    return keys_and_values(heads, _head_dim(fields, word, family), value)


def kv_heads(fields: Fields, word: str, family: str) -> int:
    """Return the KV heads of a layer.

    Raises:
        UsageError: They are missing, invalid, or more than the query heads or no divisor of them.
    """
    special = {"sliding": ("swa_num_key_value_heads",)}.get(word, ())
    fields.seen.update(("swa_num_key_value_heads", "num_global_key_value_heads", "attention_k_eq_v"))
    if word == "full" and fields.flag("attention_k_eq_v") is not False and fields.has("num_global_key_value_heads"):
        special = ("num_global_key_value_heads",)
    _, query = fields.find(QUERY_HEADS)
    query_heads = fields.checked(QUERY_HEADS[0], query) if query is not None and not isinstance(query, list) else None
    key, value = (special[0], fields.config[special[0]]) if special and fields.has(*special) else fields.find(KV_HEADS)
    one = _multi_query(fields, family)
    if one is not None:
        return one
    if value is None:
        if query_heads is None:
            return fields.needed(QUERY_HEADS)
        if not family:
            raise UsageError(
                f"{KV_HEADS[0]} is missing in {fields.source}, and its model_type is unknown here",
                "add it: multi-head attention isn't assumed",
            )
        return query_heads
    heads = fields.checked(key, value)
    if special == () and query_heads is not None and (heads > query_heads or query_heads % heads):
        raise UsageError(
            f"{key} of {fields.source} is {heads}, which doesn't divide its {query_heads} query heads", "correct one"
        )
    return heads


def _multi_query(fields: Fields, family: str) -> int | None:
    """Return the KV heads that a switch for multi-query attention gives; None if there is none."""
    if family == "chatglm":
        if not fields.flag("multi_query_attention"):
            return fields.needed(QUERY_HEADS)
        return None
    if family == "mpt":
        attention = fields.mapping("attn_config") or {}
        return 1 if attention.get("attn_type") == "multiquery_attention" else None
    on = fields.flag("multi_query")
    if family == "falcon" and (fields.flag("new_decoder_architecture") or fields.has("n_head_kv")):
        return None
    if on and not family and fields.has(*KV_HEADS):
        raise UsageError(f"multi_query in {fields.source} is true, but it has KV heads as well", "remove one of them")
    return 1 if on else None


def _head_dim(fields: Fields, word: str, family: str) -> int:
    fields.seen.update(("swa_head_dim", "global_head_dim"))
    special = {"sliding": ("swa_head_dim",), "full": ("global_head_dim",)}.get(word, ())
    if special and (dim := fields.count(special)):
        return dim
    if dim := fields.count(HEAD_DIM) if not fields.defaults.get("kv_lora_rank") or fields.has(*HEAD_DIM) else None:
        return dim
    heads = fields.needed(QUERY_HEADS)
    width = fields.needed(WIDTH, ", and head_dim too")
    if width % heads:
        raise UsageError(
            f"head_dim is missing in {fields.source}, and {heads} heads don't divide hidden_size {cut(width)}",
            "add head_dim",
        )
    return width // heads * (2 if family in ("zamba", "zamba2") else 1)


def _compressed(fields: Fields, word: str) -> Kind:
    """Return a layer of DeepSeek V4: K = V of one head in a window, and entries of so many tokens each."""
    rates = fields.mapping("compress_rates") or {}
    name = f"{word}_attention"
    key = {"compressed_sparse": "compress_rate_csa", "heavily_compressed": "compress_rate_hca"}[word]
    default = {"compressed_sparse": 4, "heavily_compressed": 128}[word]
    every = fields.count((key,)) or (fields.checked(name, rates[name]) if name in rates else default)
    index = fields.needed(("index_head_dim",)) if word == "compressed_sparse" else 0
    return compressed_kind(SHORT[word], _shared_vector(fields), fields.needed(WINDOW), every, _indexer_bytes(index))


def _shared_vector(fields: Fields) -> Part:
    rope = fields.count(("qk_rope_head_dim",)) or 64
    return shared_vector(fields.needed(KV_HEADS), fields.needed(HEAD_DIM), rope)


def shared_vector(heads: int, dim: int, rope: int = 0) -> Part:
    """Return heads whose K and V are the same vector, as DeepSeek V4 has it.

    Packed (vLLM's `fp8_ds_mla`), it is fp8 with a scale byte per 64 elements, the rope part bf16, in whole 8 B: 584 B
    of 512.
    """
    packed = dim + rope + -(-(dim - rope) // 64)
    return Part(heads, dim, packed_bytes=-(-packed // 8) * 8 if rope else 0)


def compressed_kind(name: str, vector: Part, window: int, every: int, indexer_bytes: int = 0) -> Kind:
    """Return a layer that keeps a window of tokens, and an entry (with an indexer's key) per `every` tokens."""
    index = (Part(1, indexer_bytes, split=False, fixed_bytes=indexer_bytes),) if indexer_bytes else ()
    return Kind(name, (vector,), window, beside=(Kind(f"{name}/{every}", (vector, *index), every=every),))
