"""Recurrent states in Hugging Face's `config.json`: the fields of each model family that hold vLLM's numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kvdeck.engine.planning.model_numbers import checked_count
from kvdeck.engine.planning.recurrent_state import State, state_of

Config = Mapping[str, Any]
Named = tuple[str, dict[str, str]]
"""A kind of state, and the field of each of its numbers; `a*b` is a product and `a/b` a quotient of two fields."""


def state_in(config: Config, word: str, family: str, name: str) -> State | None:
    """Return the state of a type of layer; None if it has none, or its fields are missing or unknown.

    Args:
        config: The text model's configuration.
        word: Type of layer: `mamba`, `mamba2`, `ssm`, `linear` or `conv`; transformers calls Mamba `linear` too.
        family: The model's `model_type` as transformers spells it; empty if it is unknown.
        name: Name of the model in error messages.

    Raises:
        UsageError: A field is not a whole number above 0, or an element type is unknown.
    """
    kimi = config.get("linear_attn_config")
    fields = {**config, **kimi} if isinstance(kimi, Mapping) and word == "linear" else config
    found = None
    if word in ("mamba", "mamba2", "ssm"):
        found = _mamba(fields)
    elif word == "linear":
        found = _linear(fields, family) or _mamba(fields)
    elif word == "conv":
        dim = "conv_dim" if fields.get("conv_dim") is not None else "hidden_size"
        found = "short_conv", {"conv_dim": dim, "conv_kernel": "conv_L_cache"}  # LFM2
    if found is None:
        return None
    kind, keys = found
    numbers = {ours: _number(fields, theirs, name) for ours, theirs in keys.items()}
    if any(number is None for number in numbers.values()):
        return None
    types = {"dtype": config.get("torch_dtype") or config.get("dtype"), "ssm_dtype": _ssm_dtype(config)}
    return state_of(kind, {**numbers, **{key: value for key, value in types.items() if value}}, name)


def _number(config: Config, key: str, name: str) -> int | None:
    """Return the number of a field, product or quotient; None if a field is missing."""
    for sign in "/*":  # a quotient's parts may be products
        if sign in key:
            first, second = (_number(config, part, name) for part in key.split(sign))
            return None if first is None or second is None else first * second if sign == "*" else first // second
    return None if config.get(key) is None else checked_count(key, config[key], name)


def _ssm_dtype(config: Config) -> Any:
    named = config.get("mamba_ssm_cache_dtype") or config.get("mamba_ssm_dtype")
    # vLLM's NemotronHForCausalLMConfig uses fp32 if the file has no type.
    return named or ("float32" if config.get("model_type") == "nemotron_h" else None)


def _mamba(config: Config) -> Named | None:
    if "mamba_num_heads" in config:  # Nemotron-H
        return "mamba2", {
            "intermediate_size": "mamba_num_heads*mamba_head_dim",
            "n_groups": "n_groups",
            "num_heads": "mamba_num_heads",
            "head_dim": "mamba_head_dim",
            "state_size": "ssm_state_size",
            "conv_kernel": "conv_kernel",
        }
    if "mamba_n_heads" in config:  # Granite 4, Bamba, Falcon-H1
        inner = "mamba_d_ssm" if config.get("mamba_d_ssm") else "mamba_expand*hidden_size"
        heads = "mamba_n_heads"
        return "mamba2", {
            "intermediate_size": inner,
            "n_groups": "mamba_n_groups",
            "num_heads": heads,
            "head_dim": f"{inner}/{heads}" if config.get("mamba_d_head") in (None, "auto") else "mamba_d_head",
            "state_size": "mamba_d_state",
            "conv_kernel": "mamba_d_conv",
        }
    if "mamba_ngroups" in config:  # Zamba 2
        inner = "mamba_expand*hidden_size"
        return "mamba2", {
            "intermediate_size": inner,
            "n_groups": "mamba_ngroups",
            "num_heads": "n_mamba_heads",
            "head_dim": f"{inner}/n_mamba_heads",
            "state_size": "mamba_d_state",
            "conv_kernel": "mamba_d_conv",
        }
    if "mamba_d_state" in config:  # Jamba, Zamba
        return "mamba1", {
            "intermediate_size": "mamba_expand*hidden_size",
            "state_size": "mamba_d_state",
            "conv_kernel": "mamba_d_conv",
        }
    return None


def _linear(config: Config, family: str) -> Named | None:
    if "short_conv_kernel_size" in config and "num_heads" in config:  # Kimi Linear
        return "kda", {"num_heads": "num_heads", "head_dim": "head_dim", "conv_kernel": "short_conv_kernel_size"}
    if "linear_num_value_heads" in config:  # Qwen3-Next, Qwen3.5
        return "gated_delta_net", {
            "num_k_heads": "linear_num_key_heads",
            "num_v_heads": "linear_num_value_heads",
            "head_k_dim": "linear_key_head_dim",
            "head_v_dim": "linear_value_head_dim",
            "conv_kernel": "linear_conv_kernel_dim",
        }
    if family == "kimi_linear":  # as transformers saves it
        keys = {"num_heads": "linear_num_heads", "head_dim": "linear_head_dim", "conv_kernel": "linear_conv_kernel_dim"}
        return "kda", keys
    if "attn_type_list" in config or family == "minimax":  # MiniMax Text 01
        return "linear_attention", {"num_heads": "num_attention_heads", "head_dim": "head_dim"}
    return None
