"""Typed reading of a `config.json`'s keys: aliases, class defaults, and which keys were read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from kvdeck.engine.planning.model_numbers import checked_count, cut
from kvdeck.sessions.errors import UsageError

LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_transformer_layers")
QUERY_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads", "num_query_heads")
KV_HEADS = ("num_key_value_heads", "num_kv_heads", "n_head_kv", "n_kv_heads", "kv_n_heads", "multi_query_group_num",
            "num_attention_groups", "num_query_groups")  # fmt: skip
HEAD_DIM = ("head_dim", "attention_head_dim", "kv_channels", "dim_head")
WIDTH = ("hidden_size", "n_embd", "n_embed", "d_model", "dim", "model_dim")
WINDOW = ("sliding_window", "sliding_window_size", "window_size", "attention_window_size")
SYNONYMS = (LAYERS, QUERY_HEADS, KV_HEADS, WIDTH, WINDOW)
"""Names of one number in the files of different families; two that disagree in one file are refused."""
_DECIDES = re.compile(
    r"window|sliding|swa_|_swa|swa$|chunk|compress|index(er)?_|_indexer|shared?_(kv|layer|att)"
    r"|(kv|layers?|att\w*)_shar|reuse|cross_layer|cross_att|yoco|(^|_)cla(_|$)|(^|_)kv(_|$)|key_value|multi_query"
    r"|query_group|mamba|(^|_)ssm_|conv_|_conv|linear_(num|key|value|head|att|conv)|recurr|delta_net|rwkv|lightning"
    r"|lora_rank|head_dim|head_size|layer_types|layers?_block|block_types?|layer_pattern|hybrid|block_configs"
    r"|per_layer_(config|att)|layer_configs|att(entio)?n_(types?|layer|pattern|config|other)|full_att"
    r"|global_(att|head|kv|layer)|local_(att|layer|window)|layer_(switch|group)|loop|recur|sparse_(att|config)"
    r"|blocksparse|every_n_layers|no_op|num_kv|n_kv"
)
_NEVER = re.compile(
    r"expert|moe|mlp|vision|image|video|audio|token|rope|theta|bias|drop|norm|quant|mtp|nextn|_act$|activation|scale"
    r"|multiplier|^_(name|commit|auto|from|attn_impl|remove|frame)|dtype|cross_attention_hidden|feed_forward|router|mask"
    r"|lm_head|output_gate|kernel_|_kernel$|loss|embed|use_mamba|return_|tuning|seconds_per_chunk|resampler|vocab|ffn"
    r"|^index_topk|^index_n_heads|index_share_for_mtp|indexer_rope|index_skip|^q_lora|^o_lora|position|init|^chunk_size$"
    r"|mamba_chunk_size|share_expert|proj|^use_mem|topk|alpha_factor|beta_factor|adapter"
    # Qwen's dual chunk attention and Zamba's adapters change how KV is used, not what is kept.
    r"|^dual_chunk|^lora_rank$|_lora$"
)
"""Keys whose names look as if they decided the KV, and don't."""


@dataclass(frozen=True, slots=True)
class Fields:
    """The decoder's keys of a file, over the defaults of its class; `seen` collects the keys that were read."""

    config: Mapping[str, Any]
    defaults: Mapping[str, Any]
    source: str
    seen: set[str] = field(default_factory=set)
    assumed: dict[str, Any] = field(default_factory=dict)
    """Defaults that were used because the file leaves the key out."""

    def over(self, more: Mapping[str, Any]) -> Fields:
        """Return the fields with other values of some keys, as one layer has them."""
        synonyms = {key for names in SYNONYMS for name in more if name in names for key in names}
        base = {key: value for key, value in self.config.items() if key not in synonyms}
        return replace(self, config={**base, **more})

    def find(self, names: Sequence[str]) -> tuple[str, Any]:
        """Return the first of the keys that the file has, and its value; else the class's default.

        Raises:
            UsageError: Two of the keys disagree.
        """
        self.seen.update(names)
        there = [(name, self.config[name]) for name in names if self.config.get(name) is not None]
        if there:
            (first, value), *others = there
            for other, unlike in others:
                if tuple(names) in SYNONYMS and _simple(value) and _simple(unlike) and unlike != value:
                    raise UsageError(
                        f"{first} of {self.source} is {cut(value)}, but {other} is {cut(unlike)}", "correct one of them"
                    )
            return first, value
        if any(name in self.config for name in names):
            return next(name for name in names if name in self.config), None
        for name in names:
            if (value := self.defaults.get(name)) is not None:
                self.assumed[name] = value
                return name, value
        return names[0], None

    def has(self, *names: str) -> bool:
        """Return whether the file itself has one of the keys, not null."""
        return any(self.config.get(name) is not None for name in names)

    def count(self, names: Sequence[str]) -> int | None:
        """Return a whole number above 0; None if it is absent, null or 0.

        Raises:
            UsageError: The value is anything else.
        """
        key, value = self.find(names)
        return None if value is None or (value == 0 and not isinstance(value, bool)) else self.checked(key, value)

    def checked(self, key: str, value: Any) -> int:
        return checked_count(key, value, self.source)

    def needed(self, names: Sequence[str], why: str = "") -> int:
        """Return a whole number above 0.

        Raises:
            UsageError: It is missing, or the value is anything else.
        """
        key, value = self.find(names)
        if value is None:
            raise UsageError(f"{names[0]} is missing in {self.source}{why}", "give the model's published config.json")
        return self.checked(key, value)

    def whole(self, name: str) -> int | None:
        """Return a whole number from 0 up, or None.

        Raises:
            UsageError: The value is anything else.
        """
        _, value = self.find((name,))
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self.wrong(name, value, "a whole number, 0 or more")
        return value

    def flag(self, name: str) -> bool | None:
        """Return true or false, or None.

        Raises:
            UsageError: The value is anything else.
        """
        _, value = self.find((name,))
        if value is not None and not isinstance(value, bool):
            raise self.wrong(name, value, "true or false")
        return value

    def listed(self, name: str) -> list[Any] | None:
        """Return a list, or None if it is absent, null or empty.

        Raises:
            UsageError: The value is anything else.
        """
        _, value = self.find((name,))
        if value is None or value == []:
            return None
        if not isinstance(value, (list, tuple)):
            raise self.wrong(name, value, "a list")
        return list(value)

    def numbers(self, name: str) -> list[int] | None:
        """Return a list of whole numbers from 0 up, or None.

        Raises:
            UsageError: The value is anything else.
        """
        found = self.listed(name)
        if found is not None and not all(isinstance(one, (int, bool)) and one >= 0 for one in found):
            raise self.wrong(name, found, "a list of whole numbers")
        return None if found is None else [int(one) for one in found]

    def mapping(self, name: str) -> Mapping[str, Any] | None:
        """Return a mapping, or None.

        Raises:
            UsageError: The value is anything else.
        """
        _, value = self.find((name,))
        if value is not None and not isinstance(value, Mapping):
            raise self.wrong(name, value, "a mapping")
        return value

    def wrong(self, name: str, value: Any, expected: str) -> UsageError:
        return UsageError(f"{name} in {self.source} is {cut(value)}", f"it should be {expected}")

    def unread(self, known: Sequence[str] = ()) -> str | None:
        """Return a key that looks as if it decided the KV and was not read; None if there is none."""
        return next((key for key, value in self.config.items() if key not in self.seen and key not in known
                     and value not in (None, False, 0, "", [], {}) and decides(key)), None)  # fmt: skip


def _simple(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def decides(key: str) -> bool:
    """Return whether a key's name looks as if it decided the KV."""
    text = key.lower()
    return bool(_DECIDES.search(text)) and not _NEVER.search(text)
