"""Recurrent states in Hugging Face's `config.json`: which fields of which family hold vLLM's numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kvdeck.engine.kv.states import State, state_of

Config = Mapping[str, Any]


def state_in(config: Config, word: str, name: str) -> State | None:
    """The state of a layer of that word; None where the layer keeps none, or the file has no fields known here.

    Args:
        config: The text model's.
        word: `mamba`, `linear`, `conv` and the like.
        name: What to call the model in an error.

    Raises:
        UsageError: A field is no whole number above 0.
    """
    find = {"mamba": _mamba, "mamba2": _mamba, "ssm": _mamba, "linear": _linear, "conv": _short_conv}.get(word)
    found = find(config) if find else None
    if found is None or any(value is None for value in found[1].values()):
        return None
    kind, fields = found
    types = {"dtype": config.get("torch_dtype") or config.get("dtype"), "ssm_dtype": _ssm_dtype(config)}
    return state_of(kind, {**fields, **{key: value for key, value in types.items() if value}}, name)


def _ssm_dtype(config: Config) -> Any:
    named = config.get("mamba_ssm_cache_dtype") or config.get("mamba_ssm_dtype")
    # vLLM's NemotronHForCausalLMConfig keeps fp32 where the file doesn't say.
    return named or ("float32" if config.get("model_type") == "nemotron_h" else None)


def _mamba(config: Config) -> tuple[str, dict[str, Any]] | None:
    if "mamba_num_heads" in config:  # Nemotron-H
        heads, dim = config["mamba_num_heads"], config.get("mamba_head_dim")
        return "mamba2", _mamba2(config, ("n_groups", "ssm_state_size", "conv_kernel"), heads, dim, _times(heads, dim))
    expanded = _times(config.get("mamba_expand"), config.get("hidden_size"))
    if "mamba_n_heads" in config:  # Granite 4, Bamba, Falcon-H1
        heads, dim = config["mamba_n_heads"], config.get("mamba_d_head")
        inner = config.get("mamba_d_ssm") or expanded
        if not isinstance(dim, int) and inner and heads:  # "auto"
            dim = inner // heads
        return "mamba2", _mamba2(config, ("mamba_n_groups", "mamba_d_state", "mamba_d_conv"), heads, dim, inner)
    if "mamba_d_state" in config:  # Jamba
        state, kernel = config["mamba_d_state"], config.get("mamba_d_conv")
        return "mamba1", {"intermediate_size": expanded, "state_size": state, "conv_kernel": kernel}
    return None


def _mamba2(config: Config, names: tuple[str, str, str], heads: Any, dim: Any, inner: Any) -> dict[str, Any]:
    groups, state, kernel = (config.get(name) for name in names)
    return {
        "intermediate_size": inner,
        "n_groups": groups,
        "num_heads": heads,
        "head_dim": dim,
        "state_size": state,
        "conv_kernel": kernel,
    }


def _linear(config: Config) -> tuple[str, dict[str, Any]] | None:
    kimi = config.get("linear_attn_config")
    if isinstance(kimi, Mapping):  # Kimi Linear
        names = {"num_heads": "num_heads", "head_dim": "head_dim", "conv_kernel": "short_conv_kernel_size"}
        return "kda", {ours: kimi.get(theirs) for ours, theirs in names.items()}
    if "linear_num_value_heads" in config:  # Qwen3-Next, Qwen3.5
        names = {
            "num_k_heads": "linear_num_key_heads",
            "num_v_heads": "linear_num_value_heads",
            "head_k_dim": "linear_key_head_dim",
            "head_v_dim": "linear_value_head_dim",
            "conv_kernel": "linear_conv_kernel_dim",
        }
        return "gated_delta_net", {ours: config.get(theirs) for ours, theirs in names.items()}
    if "attn_type_list" in config:  # MiniMax Text 01
        return "linear_attention", {"num_heads": config.get("num_attention_heads"), "head_dim": config.get("head_dim")}
    return None


def _short_conv(config: Config) -> tuple[str, dict[str, Any]] | None:
    return "short_conv", {"conv_dim": config.get("conv_dim"), "conv_kernel": config.get("conv_L_cache")}  # LFM2


def _times(a: Any, b: Any) -> Any:
    return a * b if isinstance(a, int) and isinstance(b, int) else None
