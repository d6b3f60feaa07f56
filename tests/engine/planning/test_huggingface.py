"""`config.json` of many kinds, each cut down to what matters, against the catalogue."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kvdeck.engine.planning.model_files import find_model
from kvdeck.engine.planning.precision import PRECISIONS
from kvdeck.sessions.errors import UsageError

DENSE = {"architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
         "num_key_value_heads": 8}  # fmt: skip
MLA = {"architectures": ["DeepseekV3ForCausalLM"], "num_hidden_layers": 61, "num_attention_heads": 128,
       "num_key_value_heads": 128, "hidden_size": 7168, "kv_lora_rank": 512, "qk_rope_head_dim": 64,
       "v_head_dim": 128}  # fmt: skip
GEMMA3 = {"num_hidden_layers": 62, "num_attention_heads": 32, "num_key_value_heads": 16, "head_dim": 128,
          "hidden_size": 5376, "sliding_window": 1024}  # fmt: skip
SIX = [*["sliding_attention"] * 5, "full_attention"]
LLAMA4 = {"num_hidden_layers": 48, "num_attention_heads": 40, "num_key_value_heads": 8, "head_dim": 128,
          "hidden_size": 5120, "attention_chunk_size": 8192}  # fmt: skip
QWEN_NEXT = {"num_hidden_layers": 48, "num_attention_heads": 16, "num_key_value_heads": 2, "head_dim": 256,
             "hidden_size": 2048}  # fmt: skip
NEMOTRON = {"num_hidden_layers": 56, "num_attention_heads": 40, "num_key_value_heads": 8, "head_dim": 128,
            "hybrid_override_pattern": "M-M-M-MM-M-M-M*-M-M-M*-M-M-M-M*-M-M-M-M*-M-MM-M-M-M-M-M-"}  # fmt: skip


@pytest.fixture
def read(tmp_path: Path):
    def reading(config):
        (tmp_path / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
        return find_model(str(tmp_path / "config.json"))

    return reading


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (DENSE, "llama-3.1-8b"),
        (MLA, "deepseek-r1"),
        ({**MLA, "index_head_dim": 128}, "deepseek-v3.2"),
        ({"architectures": ["Gemma3ForConditionalGeneration"], "text_config": {**GEMMA3, "sliding_window_pattern": 6}},
         "gemma-3-27b"),
        ({**GEMMA3, "layer_types": SIX * 10 + SIX[:2]}, "gemma-3-27b"),
        ({**GEMMA3, "num_hidden_layers": 46, "sliding_window": 4096, "model_type": "gemma2"}, "gemma-2-27b"),
        ({"text_config": {**LLAMA4, "no_rope_layers": [1, 1, 1, 0] * 12}}, "llama-4-scout"),
        ({"text_config": {**LLAMA4, "no_rope_layers": []}}, "llama-4-scout"),
        ({**QWEN_NEXT, "full_attention_interval": 4}, "qwen3-next-80b-a3b"),
        ({**QWEN_NEXT, "layer_types": (["linear_attention"] * 3 + ["full_attention"]) * 12}, "qwen3-next-80b-a3b"),
        (NEMOTRON, "nemotron-nano-9b-v2"),
        ({**DENSE, "attn_layer_period": 8, "attn_layer_offset": 4}, "jamba-1.5-mini"),
        ({**DENSE, "sliding_window": 4096}, "mistral-7b-v0.1"),
        ({**DENSE, "sliding_window": 4096, "use_sliding_window": False}, "mistral-7b"),
        ({**DENSE, "num_key_value_heads": None}, "llama-2-7b"),
    ],
)  # fmt: skip
def test_a_config_is_the_model_of_the_catalogue(read, config, name: str) -> None:
    made, known = read(config), find_model(name)
    assert (made.layers, made.query_heads) == (known.layers, known.query_heads)
    for tokens in (1, 100, 5000, 20000):
        for precision in PRECISIONS.values():
            assert made.request_bytes(precision, tokens) == known.request_bytes(precision, tokens)
    kinds = [[model.kinds[index].parts for index in model.order] for model in (made, known)]
    assert kinds[0] == kinds[1]


def test_multi_query_and_old_names(read) -> None:
    model = read(
        {"architectures": ["GPTBigCodeForCausalLM"], "n_layer": 40, "n_head": 48, "n_embd": 6144, "multi_query": True}
    )
    assert (model.layers, model.kinds[0].parts[0].heads, model.kinds[0].parts[0].dim) == (40, 1, 128)


def test_windows_with_heads_of_their_own(read) -> None:
    model = read({"num_hidden_layers": 2, "num_attention_heads": 64, "num_key_value_heads": 4, "head_dim": 192,
                  "v_head_dim": 128,
                  "hidden_size": 4096, "swa_num_key_value_heads": 8, "swa_head_dim": 192, "swa_v_head_dim": 128,
                  "sliding_window": 128, "layer_types": ["full_attention", "sliding_attention"]})  # fmt: skip
    assert [[(part.heads, part.dim) for part in kind.parts] for kind in model.kinds] == [
        [(4, 192), (4, 128)],
        [(8, 192), (8, 128)],
    ]


def test_shared_layers_keep_nothing_of_their_own(read) -> None:
    model = read({**DENSE, "num_kv_shared_layers": 12})
    assert model.token_bytes(PRECISIONS["fp8"]) == 20 * 2048


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"architectures": ["BertForMaskedLM"], "num_hidden_layers": 12, "num_attention_heads": 12}, "BertForMaskedLM"),
        ({"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True}, "T5"),
        ({"architectures": ["ViTForImageClassification"]}, "ViT"),
        ({}, "num_hidden_layers"),
        ({"num_hidden_layers": 4}, "num_attention_heads"),
        ({"num_hidden_layers": 4, "num_attention_heads": 4}, "hidden_size"),
        ({**DENSE, "num_hidden_layers": "many"}, "num_hidden_layers"),
        ({**DENSE, "num_hidden_layers": 1 << 40}, "num_hidden_layers"),
        ({**DENSE, "num_key_value_heads": 0}, "num_key_value_heads"),
        ({**DENSE, "layer_types": ["full_attention"]}, "lists 1 layer, not 32"),
        ({**MLA, "qk_rope_head_dim": None}, "qk_rope_head_dim"),
        ({**DENSE, "compress_ratios": [4, 128]}, "compress_ratios"),
        ({**DENSE, "layer_types": ["sliding_attention"] * 32}, "sliding_window"),
        ("[1, 2]", "is not a JSON object"),
        ("{", "is not valid JSON"),
    ],
)
def test_what_is_no_decoder_is_refused(read, config, named: str) -> None:
    with pytest.raises(UsageError, match=named) as caught:
        read(config)
    assert "\n" not in str(caught.value)
