"""Reader of Hugging Face's `config.json`: layers, KV heads, MLA ranks, windows, hybrid models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kvdeck.engine.planning.model_numbers import checked_count, checked_layers
from kvdeck.engine.planning.models import Architecture, Kind, keys_and_values, latent
from kvdeck.engine.planning.recurrent_fields import state_in
from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.units import many

Config = Mapping[str, Any]

_NESTED = ("text_config", "llm_config", "language_config", "thinker_config")
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_QUERY_HEADS = ("num_attention_heads", "n_head", "n_heads")
_KV_HEADS = ("num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num")
_WIDTH = ("hidden_size", "n_embd", "d_model")
_DECODERS = ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel", "ForCausalLMNextN")
_NO_KV = ("linear_attention", "mamba", "mamba2", "conv", "recurrent", "linear", "mlp", "moe", "ssm")
_FIX = "give a causal model's config.json"
_UNKNOWN = {
    "compress_ratios": "its layers compress their KV by ratios of their own",
    "cross_attention_layers": "it has cross-attention layers",
}


def architecture(config: Config, name: str) -> Architecture:
    """Return the architecture in a `config.json`.

    Args:
        config: The file's content; of a multimodal model, the nested text model is used.
        name: Name of the model.

    Raises:
        UsageError: The model is not a decoder, a key is missing or invalid, or its attention is not supported.
    """
    _check_decoder(config, name)
    outer = config
    for key in _NESTED:
        if isinstance(config.get(key), Mapping):
            config = config[key]
    for key, why in _UNKNOWN.items():
        if config.get(key):
            raise UsageError(f"{name} can't be planned: {why} ({key})", "describe its layers in a YAML file")
    layers = checked_layers("num_hidden_layers", _count(config, _LAYERS, name), name)
    query_heads = _count(config, _QUERY_HEADS, name)
    words = _layer_words(config, layers, name)
    kinds = _kinds(config, query_heads, words, name)
    order = bytes(tuple(kinds).index(word) for word in words)
    source = str(outer.get("_name_or_path") or name)
    return Architecture(name, tuple(kinds.values()), order, query_heads, None, source)


def _check_decoder(config: Config, name: str) -> None:
    names = [str(item) for item in config.get("architectures") or ()]
    if config.get("is_encoder_decoder") or (names and not any(item.endswith(_DECODERS) for item in names)):
        kind = ", ".join(names) or str(config.get("model_type"))
        raise UsageError(f"{name} is not a decoder: {kind} has no such KV cache", _FIX)


def _first(config: Config, keys: Sequence[str]) -> tuple[str, Any]:
    return next(((key, config[key]) for key in keys if config.get(key) is not None), ("", None))


def _count(config: Config, keys: Sequence[str], name: str) -> int:
    key, value = _first(config, keys)
    if not key:
        raise UsageError(f"{name} is not a decoder's config.json: {keys[0]} is missing", _FIX)
    return checked_count(key, value, name)


def _layer_words(config: Config, layers: int, name: str) -> list[str]:
    """Return each layer's type as a word, such as `full`, `sliding` or `mamba`."""
    words = _written_out(config, layers) or _by_rule(config, layers)
    if len(words) != layers:
        raise UsageError(f"{name} lists {many(len(words), 'layer')}, not {layers}", "correct its list of layers")
    shared = int(config.get("num_kv_shared_layers") or 0)
    return [*words[: layers - shared], *["shared"] * shared] if shared else words


def _written_out(config: Config, layers: int) -> list[str] | None:
    pattern = config.get("hybrid_override_pattern")
    if isinstance(pattern, str):
        return ["full" if letter == "*" else "mamba" if letter == "M" else "none" for letter in pattern]
    for key in ("layer_types", "layers_block_type", "attn_type_list"):
        listed = config.get(key)
        if isinstance(listed, Sequence) and not isinstance(listed, str):
            return [_word(item) for item in listed]
    linear = config.get("linear_attn_config")
    if isinstance(linear, Mapping) and linear.get("full_attn_layers"):
        return ["full" if layer + 1 in linear["full_attn_layers"] else "linear" for layer in range(layers)]
    return None


def _word(item: object) -> str:
    if isinstance(item, int):
        return "full" if item else "linear"
    text = str(item)
    if text in _NO_KV:
        return "linear" if text.startswith("linear") else text
    return "sliding" if "sliding" in text else "chunked" if "chunked" in text else "full"


def _by_rule(config: Config, layers: int) -> list[str]:
    numbers = range(layers)
    if period := config.get("attn_layer_period"):
        return ["full" if i % period == (config.get("attn_layer_offset") or 0) else "mamba" for i in numbers]
    if interval := config.get("full_attention_interval"):
        return ["full" if (i + 1) % interval == 0 else "linear" for i in numbers]
    if config.get("attention_chunk_size"):
        listed = config.get("no_rope_layers")
        step = config.get("no_rope_layer_interval") or 4
        rope = listed or [int((i + 1) % step != 0) for i in numbers]
        return ["chunked" if one else "full" for one in rope]
    if not config.get("sliding_window") or config.get("use_sliding_window") is False:
        return ["full"] * layers
    if pattern := config.get("sliding_window_pattern"):
        return ["full" if (i + 1) % pattern == 0 else "sliding" for i in numbers]
    if str(config.get("model_type")).startswith("gemma2"):
        return ["full" if i % 2 else "sliding" for i in numbers]
    whole = int(config.get("max_window_layers") or 0) if config.get("use_sliding_window") else 0
    return ["full" if i < whole else "sliding" for i in numbers]


def _kinds(config: Config, query_heads: int, words: Sequence[str], name: str) -> dict[str, Kind]:
    found: dict[str, Kind] = {}
    for word in dict.fromkeys(words):
        if word not in ("full", "sliding", "chunked"):
            found[word] = Kind(word, (), state=state_in(config, word, name))
            continue
        key = "attention_chunk_size" if word == "chunked" else "sliding_window"
        window = None if word == "full" else _count(config, (key,), name)
        beside = state_in(config, "mamba", name) if config.get("model_type") == "falcon_h1" else None
        found[word] = Kind(word, _parts(config, query_heads, word, name), window, word == "chunked", beside)
    return found


def _parts(config: Config, query_heads: int, word: str, name: str) -> tuple[Any, ...]:
    if config.get("kv_lora_rank"):
        rank, rope = (checked_count(key, config.get(key), name) for key in ("kv_lora_rank", "qk_rope_head_dim"))
        index = int(config.get("index_head_dim") or 0)
        # vLLM and SGLang store an indexer's key as fp8 with an fp32 scale per 128 elements.
        return latent(rank, rope, index + -(-index // 128) * 4 if index else 0)
    heads_key, heads = _first(config, (*_special(word, "heads"), *_KV_HEADS))
    if not heads_key:
        heads_key, heads = "num_key_value_heads", 1 if config.get("multi_query") else query_heads
    dim_key, dim = _first(config, (*_special(word, "dim"), "head_dim", "kv_channels"))
    if not dim_key:
        dim_key, dim = "hidden_size / num_attention_heads", _count(config, _WIDTH, name) // query_heads
    _, value_dim = _first(config, (*(("swa_v_head_dim",) if word == "sliding" else ()), "v_head_dim"))
    return keys_and_values(
        checked_count(heads_key, heads, name),
        checked_count(dim_key, dim, name),
        None if value_dim is None else checked_count("v_head_dim", value_dim, name),
    )


def _special(word: str, what: str) -> tuple[str, ...]:
    if word == "sliding":
        return ("swa_num_key_value_heads",) if what == "heads" else ("swa_head_dim",)
    return ("num_global_key_value_heads",) if what == "heads" else ("global_head_dim",)
