"""KVBench's files and its arithmetic, quirks included, for `--compat kvbench`.

The quirks: in three of four families the weights' precision is used for the KV cache, layers are divided by PP without
rounding, MLA's latent is divided by TP, and one pair transfers the data of all ranks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kvdeck.engine.planning.model_numbers import checked_count, checked_layers
from kvdeck.engine.planning.models import Architecture, Kind, keys_and_values, latent, uniform
from kvdeck.sessions.errors import UsageError

_COMMON = ("model_name", "num_layers", "query_head_dimension", "num_model_params")
_FIELDS: dict[str, tuple[str, ...]] = {
    "llama3.1": (*_COMMON, "num_query_heads_with_mha", "gqa_num_queries_in_group"),
    "deepseek_r1": (
        *_COMMON,
        "num_query_heads",
        "embedding_dimension",
        "rope_mla_dimension",
        "mla_latent_vector_dimension",
    ),
    "gpt_oss": (*_COMMON, "num_query_heads", "num_kv_heads"),
    "qwen3": (*_COMMON, "num_query_heads", "num_kv_heads"),
}
"""Fields of each model family, all required; the first family contained in `model_name` applies."""

_BYTES = {"fp8": 1, "int8": 1, "fp16": 2, "bfloat16": 2}


def check_keys(data: Mapping[Any, Any], known: Sequence[str], required: Sequence[str], source: str) -> None:
    """Check that all required keys are present and none is unknown.

    Raises:
        UsageError: A key is unknown or missing; the message names the keys.
    """
    if unknown := sorted(str(key) for key in data if key not in known):
        raise UsageError(f"{source} has unknown keys: {', '.join(unknown)}", f"use only {', '.join(known)}")
    if missing := [key for key in required if data.get(key) is None]:
        raise UsageError(f"{source} lacks {', '.join(missing)}", "add it")


def check_name_key(data: Mapping[Any, Any], source: str) -> None:
    """Refuse KVBench's fields without `model_name`, for which a page of KVBench's documentation has `model`.

    Raises:
        UsageError: The data has fields of KVBench's model file; the message names the key.
    """
    fields = {field for names in _FIELDS.values() for field in names} - {"model_name"}
    if len(fields & set(data)) < 2:
        return
    if "model" in data:
        raise UsageError(
            f"{source} has KVBench's fields and the key model, but the key is model_name",
            f"write model_name: {data['model']!s:.40} for model: {data['model']!s:.40}",
        )
    raise UsageError(f"{source} has KVBench's fields but lacks model_name", f"add it, with {', '.join(_FIELDS)} in it")


def architecture(data: Mapping[str, Any], source: str) -> Architecture:
    """Return the model of KVBench's fields; null values count as absent.

    Raises:
        UsageError: The family is unknown, or a key is missing, unknown or invalid.
    """
    data = {key: value for key, value in data.items() if value is not None}
    name = str(data.get("model_name"))
    family = next((family for family in _FIELDS if family in name.lower()), None)
    if family is None:
        raise UsageError(
            f"model_name {name!r} in {source} belongs to no family known to KVBench",
            f"use a name with {', '.join(_FIELDS)}, a config.json, or kvdeck's own fields",
        )
    check_keys(data, _FIELDS[family], _FIELDS[family], source)
    n = {key: checked_count(key, value, source) for key, value in data.items() if key != "model_name"}
    checked_layers("num_layers", n["num_layers"], source)
    more = {"parameters": n["num_model_params"], "source": source, "title": name}
    if family == "deepseek_r1":
        kind = Kind("mla", latent(n["mla_latent_vector_dimension"], n["rope_mla_dimension"]))
        return uniform(name, n["num_layers"], kind, query_heads=n["num_query_heads"], **more)
    if family == "llama3.1":
        heads, group = n["num_query_heads_with_mha"], n["gqa_num_queries_in_group"]
        if heads % group:
            raise UsageError(
                f"gqa_num_queries_in_group {group} in {source} doesn't divide {heads} heads", "correct one of them"
            )
        kv_heads = heads // group
    else:
        heads, kv_heads = n["num_query_heads"], n["num_kv_heads"]
    kind = Kind("full", keys_and_values(kv_heads, n["query_head_dimension"]))
    return uniform(name, n["num_layers"], kind, query_heads=heads, **more)


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """KVBench's model configuration file (strategy, runtime, system), extended with kvdeck's fields."""

    tp_size: int = 1
    pp_size: int = 1
    dp_size: int = 1
    cp_size: int = 1
    ep_size: int = 1
    pp_rule: str = "trtllm"
    pp_layers: tuple[int, ...] = ()
    model_quant_mode: str = "fp8"
    kvcache_quant_mode: str = "fp8"
    num_requests: int = 1
    isl: int = 1
    osl: int = 1
    backend: str = "SGLANG"
    hardware: str | None = None
    page_size: int = 1
    access_pattern: str | None = None
    source: str | None = None
    destination: str | None = None
    precision_source: str = ""
    """Where the KV precision comes from; empty for KVBench's default."""

    def overridden(self, **values: Any) -> ModelConfig:
        """Return a copy with the given values; None leaves a field unchanged."""
        return replace(self, **{key: value for key, value in values.items() if value is not None})

    @property
    def access(self) -> str:
        """`block`, or `layer` for every other access pattern, as in KVBench."""
        return "block" if self.access_pattern == "block" else "layer"

    def sections(self) -> dict[str, dict[str, Any]]:
        """Return the fields as KVBench's three sections."""
        values = {**{key: getattr(self, key) for keys in SECTIONS.values() for key in keys}}
        values["pp_layers"] = ",".join(map(str, self.pp_layers)) or None
        return {name: {key: values[key] for key in keys} for name, keys in SECTIONS.items()}


SECTIONS: dict[str, tuple[str, ...]] = {
    "strategy": (
        *("tp_size", "pp_size", "dp_size", "cp_size", "ep_size", "pp_rule", "pp_layers"),
        *("model_quant_mode", "kvcache_quant_mode"),
    ),
    "runtime": ("num_requests", "isl", "osl"),
    "system": ("backend", "hardware", "page_size", "access_pattern", "source", "destination"),
}
_SAVED = ("model", "transfer")
"""Keys that kvdeck adds to the file when it saves a plan."""
_TEXTS = (
    *("pp_rule", "model_quant_mode", "kvcache_quant_mode"),
    *("backend", "hardware", "access_pattern", "source", "destination"),
)


def model_config(data: Any, source: str) -> tuple[ModelConfig, tuple[str, ...]]:
    """Return the configuration in a file's data, and its unknown keys, which KVBench ignores too.

    Raises:
        UsageError: The data or a section is not a mapping, no section is present, or a value is invalid.
    """
    data = {} if data is None else data
    if not isinstance(data, Mapping):
        raise UsageError(f"{source} is not a mapping", "write the sections strategy, runtime and system")
    if data and not set(data) & set(SECTIONS):
        raise UsageError(f"{source} has none of the sections {', '.join(SECTIONS)}", "name a model config, not a model")
    values: dict[str, Any] = {}
    ignored = [str(key) for key in data if key not in (*SECTIONS, *_SAVED)]
    for name, keys in SECTIONS.items():
        section = data.get(name)
        section = {} if section is None else section
        if not isinstance(section, Mapping):
            raise UsageError(f"{name} in {source} is not a mapping", "write one `key: value` per line below it")
        ignored += [f"{name}.{key}" for key in section if key not in keys]
        for key in keys:
            if (value := section.get(key)) is not None:
                values[key] = _value(key, value, source)
    if "kvcache_quant_mode" in values:
        values["precision_source"] = "kvcache_quant_mode in the model config"
    return ModelConfig(**values), tuple(ignored)


def _value(key: str, value: Any, source: str) -> Any:
    if key == "pp_layers":
        return parse_layers(value, source)
    return str(value) if key in _TEXTS else checked_count(key, value, source)


def parse_layers(value: Any, source: str) -> tuple[int, ...]:
    """Return the layers of each stage from `16,15,15,15` or a list; a stage may have 0.

    Raises:
        UsageError: An item is not a whole number of at most 9 digits.
    """
    parts = value if isinstance(value, (list, tuple)) else str(value).split(",")
    texts = [str(part).strip() for part in parts]
    if not all(text.isascii() and text.isdigit() and len(text) < 10 for text in texts):
        raise UsageError(f"pp_layers in {source} is {value!r}", "give each stage's layers with commas: 16,15,15,15")
    return tuple(map(int, texts))


def _precision(model: Architecture, config: ModelConfig) -> int:
    name = config.kvcache_quant_mode if model.latent else config.model_quant_mode
    if name.lower() not in _BYTES:
        raise UsageError(f"precision {name!r} is unknown to KVBench", f"use {', '.join(_BYTES)}, or omit --compat")
    return _BYTES[name.lower()]


def kv_bytes(model: Architecture, config: ModelConfig, tokens: int = 1) -> int:
    """Return the bytes of `tokens` tokens in all layers as KVBench computes them: without windows.

    Raises:
        UsageError: KVBench doesn't know the precision, or such a model.
    """
    if model.compressed:
        raise UsageError(f"KVBench has no compressed KV such as that of {model.name}", "omit --compat")
    elements = sum(
        model.order.count(index) * sum(part.heads * part.dim for part in kind.parts if not part.fixed_bytes)
        for index, kind in enumerate(model.kinds)
    )
    return elements * _precision(model, config) * tokens


def io_size(model: Architecture, config: ModelConfig, page_size: int | None = None) -> int:
    """Return KVBench's I/O size in bytes, computed in floats as KVBench does.

    Raises:
        UsageError: KVBench doesn't know the precision, or the size is below 1 byte.
    """
    layer = int(kv_bytes(model, config) / model.layers)
    page = config.page_size if page_size is None else page_size
    if model.latent:
        size: float = layer / config.tp_size
        if config.access == "block":
            size *= math.ceil(model.layers / config.pp_size)
        size = int(size * page)
    else:
        size = int(layer / config.tp_size)
        if config.access == "block":
            size = int(size * (model.layers / config.pp_size))
        size = int(size * page)
    if size < 1:
        raise UsageError(f"TP {config.tp_size} and PP {config.pp_size} leave less than one byte per I/O", "lower them")
    return size


def batch_size(model: Architecture, config: ModelConfig, size: int) -> int:
    """Return KVBench's batch: I/Os of `size` bytes for the whole model's KV of all requests."""
    return math.ceil((kv_bytes(model, config, config.isl) / size) * config.num_requests)
