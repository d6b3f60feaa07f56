"""The reader of `config.json` against the configuration classes of `transformers` (dependency group `models`)."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from kvdeck.engine.planning.huggingface import architecture
from kvdeck.engine.planning.model_families import INNER, REFUSED, families, published_families
from kvdeck.engine.planning.precision import PRECISIONS
from kvdeck.sessions.errors import UsageError

transformers = pytest.importorskip("transformers", reason="transformers isn't installed (dependency group models)")
from transformers.models.auto.configuration_auto import CONFIG_MAPPING, CONFIG_MAPPING_NAMES  # noqa: E402
from transformers.models.auto.modeling_auto import (  # noqa: E402
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
)

BF16 = PRECISIONS["bf16"]
LENGTHS = (1, 700, 40_000)
NOT_BUILT = {"gemma4_assistant", "nougat"}
"""Classes that can't be made without arguments."""
READ_OTHERWISE = {
    "mimo_v2_flash": "sliding_window is 129 in the class, the query included; the published 128 is what engines keep",
    "deepseek_v4": "its caches are classes that need torch; test_huggingface.py has their bytes",
}
REFUSED_BY_DEFAULT = {
    "glm4_moe": "hidden_size 4096 isn't a multiple of its 96 heads, and the class rounds down",
    "glm4v_moe_text": "as glm4_moe",
    "qwen3_omni_moe_text": "hidden_size 2048 isn't a multiple of its 28 heads, and the class rounds down",
    "bamba": "no layer has attention without attn_layer_indices, so there is no KV cache",
    "lfm2_moe": "layer_types is null, and the class takes all layers for attention",
}
"""Families whose default configuration is refused, or read otherwise than the class's attributes say, and why."""
ROWS = sorted(set(families()) - set(published_families()))
COMPARED = [name for name in ROWS if name not in {*READ_OTHERWISE, *REFUSED_BY_DEFAULT}]


@cache
def _config(model_type: str) -> Any:
    return CONFIG_MAPPING[model_type]()


def _saved(config: Any) -> dict[str, Any]:
    """Return what `save_pretrained` writes."""
    return json.loads(config.to_json_string(use_diff=False))


def _decoders() -> Iterator[str]:
    """Yield the model types of classes that generate text."""
    lists = (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
        MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
    )
    for model_type in CONFIG_MAPPING_NAMES:
        if any(model_type in names for names in lists) and model_type not in NOT_BUILT:
            yield model_type


def _text(config: Any) -> Any:
    for name in ("thinker_config", "text_config", "llm_config", "language_config"):
        if (inner := getattr(config, name, None)) is not None:
            return _text(inner)
    return config


def _layer_types(config: Any) -> list[str]:
    """Return each layer's type as `transformers.cache_utils` takes it from a configuration."""
    listed = getattr(config, "layer_types", None) or getattr(config, "layers_block_type", None)
    listed = listed or getattr(config, "attention_layers", None)
    if listed is None:
        if getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True) is not False:
            listed = ["sliding_attention"] * config.num_hidden_layers
        else:
            listed = ["full_attention"] * config.num_hidden_layers
    modes = getattr(config, "kv_sharing_modes", None) or [None] * len(listed)
    return ["moe" if mode == "reuse" else name for name, mode in zip(listed, modes, strict=True)]


@cache
def _layers(model_type: str) -> tuple[tuple[int, int | None, int | None], ...]:
    """Return each caching layer's bytes of a token in bf16, window and chunk, from the class's own attributes."""
    config = _text(_config(model_type))
    stateless = ("linear_attention", "mamba", "conv", "moe", "mlp", "recurrent")
    types, own = _layer_types(config), getattr(config, "per_layer_config", None)
    shared = getattr(config, "num_kv_shared_layers", 0) or 0
    sources = getattr(config, "kv_source_layers", None) or range(len(types))
    found = []
    for layer, name in enumerate(types):
        if name in stateless or layer >= len(types) - shared or sources[layer] != layer:
            continue
        one = config if own is None else own[layer]
        window = None
        if "sliding" in name or (config.model_type == "recurrent_gemma" and name == "attention"):
            window = one.sliding_window
        elif name == "local":
            window = one.window_size
        chunk = one.attention_chunk_size if name == "chunked_attention" else None
        found.append((_token_bytes(one, layer, name), window, chunk))
    return tuple(found)


def _expected(model_type: str, tokens: int) -> int:
    """Return the KV bytes of a request in bf16."""
    return sum(
        size * (tokens - (tokens - 1) // chunk * chunk if chunk else min(tokens, window or tokens))
        for size, window, chunk in _layers(model_type)
    )


def _token_bytes(own: Any, layer: int, name: str) -> int:
    if rank := getattr(own, "kv_lora_rank", None):
        indexers = getattr(own, "indexer_types", None)
        index = getattr(own, "index_head_dim", None) if name == "indexed_attention" else None
        keys = index + -(-index // 128) * 4 if index and (indexers is None or indexers[layer] == "full") else 0
        return 2 * (rank + own.qk_rope_head_dim) + keys
    heads = getattr(own, "num_key_value_heads", None) or own.num_attention_heads
    dim = (
        getattr(own, "attention_head_dim", None) or getattr(own, "head_dim", None) or getattr(own, "kv_channels", None)
    )
    dim = dim or getattr(own, "dim_head", None) or own.hidden_size // own.num_attention_heads
    if own.model_type == "falcon":
        heads = own.num_kv_heads if own.new_decoder_architecture or not own.multi_query else 1
    if own.model_type == "gpt_bigcode" and own.multi_query:
        heads = 1
    if own.model_type == "dbrx":
        heads = own.attn_config.kv_n_heads
    return 2 * heads * (dim + (getattr(own, "v_head_dim", None) or dim))


def _read(config: dict[str, Any]) -> Any:
    return architecture(config, "a model")


@pytest.mark.parametrize("model_type", COMPARED)
def test_the_class_s_default_configuration(model_type: str) -> None:
    found = _read(_saved(_config(model_type)))
    for tokens in LENGTHS:
        assert found.request_bytes(BF16, tokens) == _expected(model_type, tokens), tokens


@pytest.mark.parametrize("model_type", sorted(REFUSED_BY_DEFAULT))
def test_what_a_class_rounds_or_guesses_is_refused(model_type: str) -> None:
    with pytest.raises(UsageError):
        _read(_saved(_config(model_type)))


@pytest.mark.parametrize("model_type", COMPARED)
def test_a_file_that_leaves_everything_to_its_class(model_type: str) -> None:
    bare = {"model_type": model_type}
    if families()[model_type].rule in ("listed", "indices"):
        with pytest.raises(UsageError, match=r"doesn't say which|is missing"):
            _read(bare)
        return
    found = _read(bare)
    for tokens in LENGTHS:
        assert found.request_bytes(BF16, tokens) == _expected(model_type, tokens), tokens


@pytest.mark.parametrize("model_type", ROWS)
def test_a_row_has_the_class_s_name_and_defaults(model_type: str) -> None:
    row, config_class = families()[model_type], type(_config(model_type))
    assert row.config_class == config_class.__name__
    fields = {one.name: one.default for one in dataclasses.fields(config_class)}
    for key, value in row.defaults.items():
        there = fields[key]
        assert (list(there) if isinstance(there, tuple) else there) == value, key


@pytest.mark.parametrize("model_type", sorted(INNER))
def test_the_text_model_inside(model_type: str) -> None:
    if model_type not in CONFIG_MAPPING_NAMES:
        pytest.skip("not a class of this version")
    inner = _text(_config(model_type))
    assert families()[INNER[model_type]].config_class == type(inner).__name__


def test_no_class_is_read_by_guess() -> None:
    """A decoder's class without a row is refused, and the reason is in our table, or it has an encoder too."""
    known, guessed, unsaid = families(), [], []
    for model_type in _decoders():
        config = _config(model_type)
        inner = _text(config).model_type
        if model_type in known or inner in known:
            continue
        try:
            _read(_saved(config))
            guessed.append(model_type)
        except UsageError:
            if not config.is_encoder_decoder and model_type not in REFUSED and inner not in REFUSED:
                unsaid.append(model_type)
    assert guessed == []
    assert unsaid == []
