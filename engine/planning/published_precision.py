"""The KV cache's element type in a model's files: `torch_dtype`, `quantization_config`, `hf_quant_config.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kvdeck.engine.planning.model_numbers import cut
from kvdeck.engine.planning.precision import parse_precision
from kvdeck.sessions.errors import UsageError

Config = Mapping[str, Any]
QUANTIZATION_FILE = "hf_quant_config.json"
"""File of NVIDIA's ModelOpt beside the `config.json`."""


def kv_precision(parts: tuple[Config, ...], beside: Config | None) -> tuple[str, str]:
    """Return the name of the KV cache's element type, and the key that says it; empty texts if none does.

    A scheme for the KV cache decides; without one an engine keeps it in the model's own type. A scheme that is unknown
    gives an empty name, and the key with its value: the type has to be given then.

    Args:
        parts: The file's content, then the nested text model's.
        beside: The content of `hf_quant_config.json`; None without one.
    """
    if beside is not None:
        inner = beside.get("quantization")
        found = _algorithm(inner if isinstance(inner, Mapping) else beside, QUANTIZATION_FILE)
        if any(found):
            return found
    for part in reversed(parts):
        quantization = part.get("quantization_config")
        if isinstance(quantization, Mapping) and any(found := _scheme(quantization)):
            return found
    for part in reversed(parts):
        for key in ("torch_dtype", "dtype"):
            if isinstance(part.get(key), str) and (name := _named(part[key])):
                return name, key
    return "", ""


def _algorithm(quantization: Config, source: str) -> tuple[str, str]:
    named = quantization.get("kv_cache_quant_algo")
    return _known(_named(named), named, f"kv_cache_quant_algo in {source}") if named else ("", "")


def _scheme(quantization: Config) -> tuple[str, str]:
    scheme = quantization.get("kv_cache_scheme")
    if not scheme:
        return _algorithm(quantization, "quantization_config")
    name = _named(scheme)
    if isinstance(scheme, Mapping):
        of_bits = {8: {"float": "fp8", "int": "int8"}, 4: {"float": "nvfp4"}}
        bits, kind = scheme.get("num_bits"), scheme.get("type")
        name = of_bits.get(bits, {}).get(str(kind), "") if isinstance(bits, int) else ""
    return _known(name, scheme, "kv_cache_scheme in quantization_config")


def _known(name: str, value: object, source: str) -> tuple[str, str]:
    return (name, source) if name else ("", f"{source} is {cut(value)}, an unknown type")


def _named(value: object) -> str:
    try:
        return parse_precision(str(value).removeprefix("torch.")).name if isinstance(value, str) else ""
    except UsageError:
        return ""
