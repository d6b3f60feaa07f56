"""Reader of `config.json` (and Mistral's `params.json`): from published keys to what each layer keeps.

A key or a word that decides the KV cache and isn't known is refused, never taken for full attention.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from kvdeck.engine.planning.layer_caches import layer_kind
from kvdeck.engine.planning.layer_words import STATELESS_WORDS, layer_words
from kvdeck.engine.planning.model_families import ADDED, INNER, REFUSED, SPELLINGS, Family, by_architecture, families
from kvdeck.engine.planning.model_fields import HEAD_DIM, KV_HEADS, LAYERS, QUERY_HEADS, WIDTH, Fields, decides
from kvdeck.engine.planning.model_numbers import cut
from kvdeck.engine.planning.models import Architecture, Kind
from kvdeck.engine.planning.published_precision import kv_precision
from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.units import many

Config = Mapping[str, Any]

_NESTED = ("thinker_config", "text_config", "llm_config", "language_config", "lm_config", "language_model_config")
_DEPTH = 4
_OWN_TOWERS = ("vision_config", "audio_config", "talker_config", "speech_config", "encoder_config")
_NO_DECODER = ("ForMaskedLM", "ForImageClassification", "ForSequenceClassification", "ForTokenClassification",
               "ForQuestionAnswering", "ForPreTraining", "ForCTC", "ForMultipleChoice",
               "ForObjectDetection")  # fmt: skip
_FIX = "give a causal model's config.json"
_SHOWN = ("num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "hidden_size")


def architecture(config: Config, name: str, beside: Config | None = None) -> Architecture:
    """Return the architecture in a `config.json`.

    Args:
        config: The file's content; of a multimodal model, the nested text model is used.
        name: Name of the model.
        beside: The content of `hf_quant_config.json` in the same folder, if there is one.

    Raises:
        UsageError: The model is not a decoder, a key is missing or invalid, or what it keeps is unknown.
    """
    _check_decoder(config, name)
    parts, inner_type = _text_part(config, name)
    part = parts[-1]
    model_type, family = _family(part, parts[:-1], inner_type, name)
    for one in (model_type, str(config.get("model_type") or "")):
        if one in REFUSED:
            said = cut(", ".join(map(str, config.get("architectures") or ())) or one)
            raise UsageError(f"{name} can't be planned: {REFUSED[one]} ({said})", _FIX)
    fields = _fields(part, family, name)
    words = layer_words(fields, family.model_type if family else "", family.rule if family else "")
    kinds, order = _kinds(fields, words, family.model_type if family else "")
    fields.seen.update(_needless(fields, words))
    fields.seen.update(("num_attention_heads_per_layer", "num_sliding_attention_heads", "swa_num_attention_heads"))
    if key := fields.unread():
        raise UsageError(
            f"{name} has the key {key} ({cut(part[key])}), which isn't known to "
            f"{family.model_type if family else 'this reader'} and may decide its KV",
            "describe its layers in a YAML file",
        )
    precision, precision_source = kv_precision(parts, beside)
    return Architecture(
        name, kinds, order, _query_heads(fields), None, str(config.get("_name_or_path") or name), "",
        precision, precision_source, _notes(fields, family, words),
    )  # fmt: skip


def _needless(fields: Fields, words: list[str]) -> set[str]:
    """Return keys of kinds of layers that the model has none of."""
    states = {key for key in fields.config if key.startswith(("mamba_", "ssm_", "linear_", "conv_", "n_mamba"))}
    attention = set() if set(words) - STATELESS_WORDS else {*KV_HEADS, *HEAD_DIM, "v_head_dim"}
    return (states if fields.defaults or not set(words) <= {"full", "sliding"} else set()) | attention | {"n_groups"}


def _check_decoder(config: Config, name: str) -> None:
    """Refuse what is no decoder, with the reason."""
    listed = config.get("architectures") or ()
    if not isinstance(listed, (list, tuple)) or not all(isinstance(one, str) for one in listed):
        raise UsageError(f"architectures in {name} is {cut(listed)}", "it should be a list of class names")
    kind = ", ".join(listed) or str(config.get("model_type"))
    if config.get("is_encoder_decoder"):
        raise UsageError(
            f"{name} is not a decoder alone: {cut(kind)} is an encoder-decoder, which also keeps KV of its encoder",
            _FIX,
        )
    if listed and all(one.endswith(_NO_DECODER) for one in listed):
        raise UsageError(f"{name} is not a decoder: {cut(kind)} generates no text", _FIX)


def _text_part(config: Config, name: str) -> tuple[tuple[Config, ...], str]:
    """Return the file's content and the nested text models in it, outermost first, and the type of the innermost."""
    parts: tuple[Config, ...] = (config,)
    inner_type = str(config.get("model_type") or "")
    for _ in range(_DEPTH):
        outer = parts[-1]
        key = next((key for key in _NESTED if outer.get(key) is not None), None)
        if key is None:
            break
        if not isinstance(outer[key], Mapping):
            raise UsageError(f"{key} in {name} is {cut(outer[key])}", "it should be a mapping")
        parts = (*parts, outer[key])
        inner_type = str(outer[key].get("model_type") or INNER.get(inner_type, ""))
    inner = parts[-1]
    if not any(inner.get(one) is not None for one in LAYERS) and len(parts) == 1:
        hidden = [key for key, value in inner.items() if isinstance(value, Mapping) and key not in _OWN_TOWERS
                  and any(isinstance(value.get(one), int) for one in LAYERS)]  # fmt: skip
        if hidden:
            raise UsageError(
                f"{name} has layers in {', '.join(map(cut, hidden[:3]))} only, which isn't known as a text model",
                f"give that part as a file of its own, or name it {_NESTED[1]}",
            )
    return parts, inner_type


def _family(part: Config, outer: tuple[Config, ...], inner_type: str, name: str) -> tuple[str, Family | None]:
    """Return the model's type as the file has it, and its family; None if neither type nor class is known."""
    model_type = part.get("model_type")
    if model_type is not None and not isinstance(model_type, str):
        raise UsageError(f"model_type in {name} is {cut(model_type)}", "it should be a name")
    known = families()
    candidates = [model_type or "", *([inner_type] if not model_type else [])]
    for source in (part, *(outer if not model_type else ())):
        listed = source.get("architectures")
        for one in listed if isinstance(listed, (list, tuple)) else ():
            stem = str(one).split("For")[0].removesuffix("LMHeadModel").removesuffix("Model")
            candidates.append(_of_class(stem))
    if "dim" in part and "n_layers" in part and "n_heads" in part and not model_type:
        candidates.append("mistral-params")
    for one in candidates:
        spelled = SPELLINGS.get(one, INNER.get(one, one))
        if spelled in REFUSED or one in REFUSED:
            return one, None
        if spelled in known:
            return one, known[spelled]
    return model_type or inner_type or "", None


def _of_class(stem: str) -> str:
    classes = {"ChatGLM": "chatglm", "DeciLM": "nemotron-nas", "RW": "falcon", "DeepseekV3": "deepseek_v3",
               "MiniMaxText01": "minimax", "MiniMaxM1": "minimax"}  # fmt: skip
    plain = stem.lower()
    return classes.get(stem) or by_architecture().get(stem, plain if plain in REFUSED else "")


def _fields(part: Config, family: Family | None, name: str) -> Fields:
    """Return the text model's keys, with those nested one level deeper that decide."""
    model_type = family.model_type if family else ""
    config = dict(part)
    for key in ("attn_config", "attention_other_setting"):
        if config.get(key) is not None and not isinstance(config[key], Mapping):
            raise UsageError(f"{key} in {name} is {cut(config[key])}", "it should be a mapping")
    if model_type in ("dbrx", "mpt") and isinstance(config.get("attn_config"), Mapping):
        for key, value in config["attn_config"].items():
            if key in KV_HEADS:
                config[key] = value
            elif decides(str(key)) and key != "attn_type" and value not in (None, False, 0, -1, "", [], {}):
                raise UsageError(
                    f"attn_config.{key} in {name} is {cut(value)}, which is unknown",
                    "describe its layers in a YAML file",
                )
    other = config.get("attention_other_setting")
    if model_type == "step3p5" and isinstance(other, Mapping):
        config |= {"swa_num_key_value_heads": other.get("num_attention_groups"), "swa_head_dim": other.get("head_dim")}
    if model_type == "minimax_m3_vl_text" and isinstance(sparse := config.get("sparse_attention_config"), Mapping):
        config |= {"index_head_dim": sparse.get("sparse_index_dim", config.get("index_head_dim"))}
    defaults = {**family.defaults, **ADDED.get(model_type, {})} if family else {}
    fields = Fields(config, defaults, name)
    fields.seen.update(_ALWAYS_READ.get(model_type, ()))
    if model_type == "longcat_flash" and (fields.has("num_layers") or not fields.has(*LAYERS)):
        # Two attentions in each of num_layers; num_hidden_layers counts both.
        layers = fields.needed(("num_layers",))
        rest = {key: value for key, value in config.items() if key not in LAYERS}
        return replace(fields, config={**rest, LAYERS[0]: 2 * layers})
    return fields


_ALWAYS_READ = {
    "dbrx": ("attn_config",),
    "mpt": ("attn_config",),
    "minimax_m3_vl_text": ("index_block_size", "index_local_blocks", "sparse_attention_config", "index_head_dim"),
    "zamba2": ("attention_hidden_size", "num_mem_blocks", "use_shared_attention_adapter", "hybrid_layer_ids"),
    "deepseek_v4": ("compress_rope_theta",),
    "doge": ("keep_window_size",),
    # Its sinks and chunks are of the kernel; sliding_window_size is what sliding layers keep.
    "mimo_v2_flash": ("attention_chunk_size",),
    "qwen4_exp_text": ("number_of_conv_states",),
    "step3p5": ("attention_other_setting",),
}
"""Keys of classes that look as if they decided, and that another key or the rule covers."""


def _kinds(fields: Fields, words: list[str], family: str) -> tuple[tuple[Kind, ...], bytes]:
    """Return the kinds of layers and each layer's index among them."""
    overrides = _overrides(fields, len(words))
    indexed = _indexed(fields, len(words))
    made: dict[tuple[Any, ...], Kind] = {}
    kinds: list[Kind] = []
    order = []
    for layer, word in enumerate(words):
        own = overrides.get(layer, {})
        word = own.get("word", word) if word != "shared" else word
        key = (word, indexed[layer], repr(sorted(own.items())))
        if key not in made:
            values = {name: value for name, value in own.items() if name != "word"}
            made[key] = layer_kind(fields.over(values) if values else fields, word, family, indexed[layer])
        kind = made[key]
        if kind not in kinds:
            kinds.append(kind)
        order.append(kinds.index(kind))
    if len(kinds) > 255:
        raise UsageError(f"{fields.source} has {many(len(kinds), 'kind')} of layers", "at most 255 can be planned")
    return tuple(_named(kinds)), bytes(order)


def _named(kinds: list[Kind]) -> list[Kind]:
    """Return the kinds with names that differ: `full`, `full 2`, …"""
    seen: dict[str, int] = {}
    named = []
    for kind in kinds:
        seen[kind.name] = number = seen.get(kind.name, 0) + 1
        named.append(kind if number == 1 else replace(kind, name=f"{kind.name} {number}"))
    return named


def _indexed(fields: Fields, layers: int) -> list[bool]:
    """Return whether each layer's indexer keeps keys of its own; a shared one uses an earlier layer's choice."""
    listed = fields.listed("indexer_types")
    if listed is None:
        _, pattern = fields.find(("index_topk_pattern",))
        if isinstance(pattern, str) and pattern:
            listed = [{"F": "full", "S": "shared"}.get(letter, letter) for letter in pattern]
        elif isinstance(pattern, list) and pattern:
            listed = pattern
    if listed is not None:
        if unknown := [one for one in listed if one not in ("full", "shared")]:
            raise fields.wrong("indexer_types", listed, f"a list of full and shared; {cut(unknown[0])} is unknown")
        more = fields.whole("num_nextn_predict_layers") or 0
        if len(listed) not in (layers, layers + more):
            raise fields.wrong("indexer_types", listed, f"one for each of the {layers} layers")
        return [one == "full" for one in listed[:layers]]
    step, offset = fields.count(("index_topk_freq",)) or 1, fields.whole("index_skip_topk_offset")
    offset = 2 if offset is None else offset
    return [max(layer - offset + 1, 0) % step == 0 for layer in range(layers)]


def _overrides(fields: Fields, layers: int) -> dict[int, dict[str, Any]]:
    """Return the values that single layers have of their own, by layer."""
    found: dict[int, dict[str, Any]] = {layer: {} for layer in range(layers)}
    for key in (*KV_HEADS, "num_key_value_heads_per_layer"):
        value = fields.config.get(key)
        if isinstance(value, (list, tuple)):
            fields.seen.add(key)
            if len(value) != layers:
                raise fields.wrong(key, value, f"a number, or one for each of the {layers} layers")
            for layer, heads in enumerate(value):
                found[layer][KV_HEADS[0]] = heads
    per_layer = fields.mapping("per_layer_config")
    for index, values in (per_layer or {}).items():
        if not str(index).isdigit() or int(index) >= layers or not isinstance(values, Mapping):
            raise fields.wrong("per_layer_config", per_layer, f"mappings by the number of a layer below {layers}")
        found[int(index)].update(values)
    for layer, values in enumerate(_blocks(fields, layers)):
        found[layer].update(values)
    windows = fields.config.get("sliding_window")
    if isinstance(windows, (list, tuple)):
        for layer, window in enumerate(windows[:layers]):
            found[layer]["sliding_window"] = window
    return found


def _blocks(fields: Fields, layers: int) -> list[dict[str, Any]]:
    """Return the values of `block_configs`, which Nemotron NAS has for each layer."""
    blocks = fields.listed("block_configs")
    if blocks is None:
        return []
    if len(blocks) != layers:
        raise fields.wrong("block_configs", blocks, f"one for each of the {layers} layers")
    found: list[dict[str, Any]] = []
    for number, block in enumerate(blocks):
        attention = block.get("attention") if isinstance(block, Mapping) else None
        if not isinstance(attention, Mapping):
            raise fields.wrong(f"block_configs[{number}]", block, "a mapping with attention")
        known = ("n_heads_in_group", "no_op", "replace_with_linear", "num_key_value_heads")
        for key, value in attention.items():
            if key not in known and value:
                raise UsageError(
                    f"block_configs[{number}].attention.{key} in {fields.source} is {cut(value)}, which is unknown",
                    "describe its layers in a YAML file",
                )
        inner = fields.over(attention)
        if inner.flag("no_op") or inner.flag("replace_with_linear"):
            found.append({"word": "none"})
        elif heads := inner.count(("num_key_value_heads",)) if "num_key_value_heads" in attention else None:
            found.append({"num_key_value_heads": heads})
        else:
            group = inner.needed(("n_heads_in_group",))
            query = fields.needed(QUERY_HEADS)
            if query % group:
                raise UsageError(
                    f"n_heads_in_group {group} in {fields.source} doesn't divide {query} heads", "correct it"
                )
            found.append({"num_key_value_heads": query // group})
    return found


def _query_heads(fields: Fields) -> int | None:
    """Return the query heads; None if layers have different numbers."""
    _, value = fields.find(QUERY_HEADS)
    return None if value is None or isinstance(value, (list, tuple)) else fields.checked(QUERY_HEADS[0], value)


def _notes(fields: Fields, family: Family | None, words: list[str]) -> tuple[str, ...]:
    """Return what was assumed where the file leaves something out."""
    found = []
    if family is None:
        found.append("its model_type is unknown here: read as grouped-query attention by its keys")
    names = (*LAYERS, *QUERY_HEADS, *KV_HEADS, *WIDTH, "head_dim", "sliding_window", "kv_lora_rank")
    assumed = [f"{key} {value}" for key, value in fields.assumed.items() if key in names and not fields.has(key)]
    if assumed and family is not None:
        found.append(f"not in the file, so {family.config_class}'s default: {', '.join(assumed)}")
    if "compressed_sparse" in words:
        found.append("indexer keys count as fp8 with scales; the compressors' fp32 state of single tokens is left out")
    return tuple(found)
