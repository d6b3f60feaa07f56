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
        ({**DENSE, "architectures": ["MistralForCausalLM"], "sliding_window": 4096}, "mistral-7b-v0.1"),
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
        ({"num_hidden_layers": 4, "num_attention_heads": 4}, "num_key_value_heads"),
        ({"num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 4}, "hidden_size"),
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


SLIDING = [*["sliding_attention"] * 3, "full_attention"]
MIMO = {"model_type": "mimo_v2_flash", "hidden_size": 4096, "num_hidden_layers": 48, "num_attention_heads": 64,
        "num_key_value_heads": 4, "head_dim": 192, "v_head_dim": 128, "sliding_window": 128,
        "attention_chunk_size": 128,
        "swa_num_attention_heads": 64, "swa_num_key_value_heads": 8, "swa_head_dim": 192, "swa_v_head_dim": 128,
        "hybrid_layer_pattern": [0, *([1, 1, 1, 1, 0, 1] * 8)[:47]]}  # fmt: skip
NAS = {"model_type": "nemotron-nas", "hidden_size": 8192, "num_hidden_layers": 3, "num_attention_heads": 64,
       "num_key_value_heads": None}  # fmt: skip
V4 = {"model_type": "deepseek_v4", "num_hidden_layers": 4, "num_attention_heads": 64, "num_key_value_heads": 1,
      "head_dim": 512, "sliding_window": 128, "index_head_dim": 128, "hidden_size": 4096}  # fmt: skip
BLOCK = {"n_heads_in_group": 8, "no_op": False, "replace_with_linear": False, "num_sink_tokens": None}
HEADS = {"hidden_size": 2048, "num_hidden_layers": 4, "num_attention_heads": 16}


@pytest.mark.parametrize(
    ("config", "token", "long"),
    [
        # a window and nothing on its layers: every sixth (Gemma 3), every fourth (Command R7B) is full; head_dim of the
        # class; heads of the class
        ({"model_type": "gemma3", "text_config": {"hidden_size": 3840, "num_attention_heads": 16,
          "num_hidden_layers": 48, "num_key_value_heads": 8, "sliding_window": 1024}}, 393_216, 6_889_144_320),
        ({"model_type": "gemma3", "text_config": {"hidden_size": 2560, "num_hidden_layers": 34,
          "sliding_window": 1024}}, 139_264, 2_169_634_816),
        ({"model_type": "cohere2", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
          "num_key_value_heads": 8, "sliding_window": 4096, "layer_switch": 4,
          "order_of_interleaved_layers": "local_attn_first"}, 131_072, 3_679_453_184),
        ({"model_type": "exaone4", "hidden_size": 5120, "num_hidden_layers": 64, "num_attention_heads": 40,
          "num_key_value_heads": 8, "head_dim": 128, "sliding_window": 4096, "sliding_window_pattern": "LLLG"},
         262_144, 7_358_906_368),
        ({"model_type": "phi3", "hidden_size": 3072, "num_hidden_layers": 32, "num_attention_heads": 32,
          "num_key_value_heads": 32, "sliding_window": 2047}, 393_216, 804_913_152),
        # per-layer heads, nulls, lists
        (MIMO, 222_720, 9 * 4 * 320 * 2 * 100_000 + 39 * 8 * 320 * 2 * 128),
        ({**NAS, "block_configs": [{"attention": BLOCK},
          {"attention": {**BLOCK, "n_heads_in_group": None, "no_op": True}},
          {"attention": {**BLOCK, "n_heads_in_group": 16}}]}, 12 * 512, 12 * 512 * 100_000),
        ({"model_type": "openelm", "model_dim": 1280, "num_transformer_layers": 3, "head_dim": 64,
          "num_kv_heads": [3, 4, 5], "num_query_heads": [12, 16, 20]}, 3_072, 307_200_000),
        # what holds the KV heads
        ({"model_type": "falcon", "hidden_size": 4544, "num_hidden_layers": 32, "num_attention_heads": 71,
          "num_kv_heads": 71, "multi_query": True, "new_decoder_architecture": False}, 8_192, 819_200_000),
        ({"model_type": "falcon", "hidden_size": 8192, "num_hidden_layers": 60, "num_attention_heads": 128,
          "num_kv_heads": 8, "multi_query": True, "new_decoder_architecture": True}, 122_880, 12_288_000_000),
        ({"architectures": ["RWForCausalLM"], "model_type": "RefinedWeb", "hidden_size": 8192, "n_layer": 60,
          "n_head": 128, "n_head_kv": 8}, 122_880, 12_288_000_000),
        ({"model_type": "dbrx", "d_model": 6144, "n_heads": 48, "n_layers": 40, "attn_config": {"kv_n_heads": 8}},
         163_840, 16_384_000_000),
        ({"dim": 5120, "n_layers": 40, "head_dim": 128, "hidden_dim": 14336, "n_heads": 32, "n_kv_heads": 8},
         163_840, 16_384_000_000),
        ({"architectures": ["ChatGLMModel"], "model_type": "chatglm", "hidden_size": 4096, "num_layers": 28,
          "num_attention_heads": 32, "kv_channels": 128, "multi_query_attention": True, "multi_query_group_num": 2},
         28_672, 2_867_200_000),
        # hybrids by index, by block types, by class
        ({"model_type": "bamba", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
          "num_key_value_heads": 8, "attn_layer_indices": [9, 18, 27], "mamba_n_heads": 128, "mamba_d_head": 64,
          "mamba_d_state": 128}, 12_288, 1_228_800_000),
        ({"model_type": "zamba2", "hidden_size": 2048, "num_hidden_layers": 4, "num_attention_heads": 32,
          "attention_head_dim": 128, "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"],
          "mamba_headdim": 64, "n_mamba_heads": 64}, 2 * 32 * 128 * 4, 2 * 32 * 128 * 4 * 100_000),
        ({"model_type": "nemotron_h", "hidden_size": 8192, "num_attention_heads": 64, "num_key_value_heads": 2,
          "head_dim": 128, "layers_block_type": ["mamba", "moe", "attention", "moe", "linear_attention", "mlp"]},
         1_024, 102_400_000),
        # two caches in a layer; layers that share; indexers of some layers
        ({"model_type": "longcat_flash", "hidden_size": 6144, "num_layers": 28, "num_attention_heads": 64,
          "kv_lora_rank": 512, "qk_rope_head_dim": 64}, 64_512, 6_451_200_000),
        ({"model_type": "longcat_flash", "num_hidden_layers": 56, "num_attention_heads": 64}, 64_512, 6_451_200_000),
        ({"model_type": "hunyuan", **HEADS, "num_key_value_heads": 4, "use_cla": True, "cla_share_factor": 2},
         2 * 2_048, 2 * 204_800_000),
        ({"model_type": "mistral_large4_text", **HEADS, "kv_source_layers": [0, 1, 1, 1], "index_topk_freq": 2},
         2 * (1_152 + 132), 2 * 128_400_000),
        ({"model_type": "glm_moe_dsa", "num_hidden_layers": 4, "indexer_types": ["full", "full", "shared", "shared"]},
         4 * 1_152 + 2 * 132, 487_200_000),
        ({"model_type": "glm_moe_dsa", "num_hidden_layers": 4, "index_topk_pattern": "FSSF"}, 4_872, 487_200_000),
        ({"model_type": "minimax_m3", **HEADS, "num_key_value_heads": 4, "head_dim": 128, "sparse_attention_config":
          {"use_sparse_attention": True, "sparse_index_dim": 128, "sparse_attention_freq": [0, 1, 1, 1]}},
         4 * 2_048 + 3 * 256, 896_000_000),
        # zero for none; nested two deep; everything left to the class; other names
        ({"architectures": ["DeepseekOCRForCausalLM"], "model_type": "deepseek_vl_v2", "language_config": {
          "architectures": ["DeepseekV2ForCausalLM"], "hidden_size": 1280, "kv_lora_rank": None, "use_mla": False,
          "num_attention_heads": 10, "num_hidden_layers": 12, "num_key_value_heads": 10, "qk_rope_head_dim": 0,
          "v_head_dim": 0}}, 61_440, 6_144_000_000),
        ({"model_type": "qwen3_omni_moe", "thinker_config": {"model_type": "qwen3_omni_moe_thinker", "text_config": {
          "hidden_size": 2048, "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4,
          "head_dim": 128}}, "talker_config": {"text_config": {"num_hidden_layers": 20}}}, 98_304, 9_830_400_000),
        ({"architectures": ["InternVLChatModel"], "model_type": "internvl_chat", "llm_config": {
          "model_type": "internlm2", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
          "num_key_value_heads": 8}}, 131_072, 13_107_200_000),
        ({"model_type": "llava", "text_config": {"model_type": "llama", "vocab_size": 32064}}, 524_288, 52_428_800_000),
        ({"model_type": "gpt_neo", "hidden_size": 2048, "num_layers": 24, "num_heads": 16, "window_size": 256,
          "attention_types": [[["global", "local"], 12]]}, 196_608, 9_855_565_824),
        ({"model_type": "bloom", "n_layer": 24, "num_attention_heads": 16, "n_embed": 1024}, 98_304, 9_830_400_000),
        ({"model_type": "minimax", **HEADS, "num_key_value_heads": 8, "head_dim": 128,
          "layer_types": ["linear_attention"] * 3 + ["full_attention"]}, 4_096, 409_600_000),
        ({"model_type": "step3p5", "hidden_size": 4096, "num_hidden_layers": 4, "num_attention_heads": 64,
          "num_attention_groups": 8, "head_dim": 128, "sliding_window": 512, "layer_types": SLIDING,
          "attention_other_setting": {"num_attention_heads": 96, "num_attention_groups": 4, "head_dim": 64}},
         4_096 + 3 * 1_024, 409_600_000 + 3 * 1_024 * 512),
        # DeepSeek V4: K = V of one head in a window, an entry per 4 or 128 tokens, index keys of the former
        ({**V4, "compress_ratios": [0, 4, 128, 4, 4], "num_nextn_predict_layers": 1}, 4 * 1_024,
         4 * 1_024 * 128 + 2 * 25_000 * (1_024 + 132) + 781 * 1_024),
        ({**V4, "layer_types": ["heavily_compressed_attention", "compressed_sparse_attention"] * 2,
          "compress_rates": {"compressed_sparse_attention": 8, "heavily_compressed_attention": 64}}, 4 * 1_024,
         4 * 1_024 * 128 + 2 * 12_500 * (1_024 + 132) + 2 * 1_562 * 1_024),
    ],
)  # fmt: skip
def test_bytes_of_a_published_structure(read, config, token: int, long: int) -> None:
    model, bf16 = read(config), PRECISIONS["bf16"]
    assert (model.request_bytes(bf16, 1), model.request_bytes(bf16, 100_000)) == (token, long)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({**DENSE, "num_hidden_layers": 2, "layer_types": ["full_attention", "frozen_attention"]}, "frozen_attention"),
        ({**DENSE, "num_hidden_layers": 2, "layer_types": ["full_attention", "compressed_sparse_attention"]},
         "compressed_sparse_attention"),
        ({"model_type": "newest", **HEADS, "num_key_value_heads": 4, "sliding_window": 512}, "sliding_window"),
        ({"model_type": "newest", **HEADS}, "num_key_value_heads"),
        ({"model_type": "newest", **HEADS, "num_key_value_heads": 4, "kv_reuse_map": [0, 0, 2, 2]}, "kv_reuse_map"),
        ({**DENSE, "sliding_window": 4096}, "sliding_window"),
        ({**DENSE, "block_configs": [1]}, "block_configs"),
        ({**DENSE, "cross_layer_attention": True}, "cross_layer_attention"),
        ({**DENSE, "indexer_head_dim": 128}, "indexer_head_dim"),
        ({**DENSE, "num_kv_shared_layers": 40}, "num_kv_shared_layers"),
        ({**DENSE, "num_kv_shared_layers": -3}, "num_kv_shared_layers"),
        ({**DENSE, "num_key_value_heads": 33}, "num_key_value_heads"),
        ({**DENSE, "num_key_value_heads": [8, 8]}, "num_key_value_heads"),
        ({**DENSE, "n_layer": 40}, "n_layer"),
        ({**NAS, "block_configs": [{"attention": {**BLOCK, "window_length": 64}}] * 3}, "window_length"),
        ({"model_type": "mpt", "attn_config": {"attn_type": "multihead_attention", "sliding_window_size": 512}},
         "attn_config.sliding_window_size"),
        ({"model_type": "phi4flash", **HEADS, "sliding_window": [512, None] * 2}, "YOCO"),
        ({"model_type": "mllama", "text_config": {**HEADS, "cross_attention_layers": [3]}}, "cross-attention"),
        ({"model_type": "whisper", "is_encoder_decoder": True}, "encoder-decoder"),
        ({"model_type": "mamba2", **HEADS}, "no attention"),
        ({"architectures": ["BertModel"], "num_hidden_layers": 2}, "BertModel"),
        ({"model_type": "x", "decoder_stack": HEADS}, "decoder_stack"),
        # values of a wrong type
        ({**DENSE, "model_type": "gemma3_text", "sliding_window_pattern": {"a": 1}}, "sliding_window_pattern"),
        ({**DENSE, "full_attention_interval": "four"}, "full_attention_interval"),
        ({**DENSE, "attn_layer_period": [8]}, "attn_layer_period"),
        ({"model_type": "llama4_text", "no_rope_layers": "all"}, "no_rope_layers"),
        ({"model_type": "llama4_text", "no_rope_layers": [], "no_rope_layer_interval": "x"}, "no_rope_layer_interval"),
        ({**DENSE, "num_kv_shared_layers": "8"}, "num_kv_shared_layers"),
        ({"model_type": "qwen2", **HEADS, "use_sliding_window": True, "sliding_window": 8, "max_window_layers": "x"},
         "max_window_layers"),
        ({**MLA, "index_head_dim": "wide"}, "index_head_dim"),
        ({**DENSE, "architectures": "LlamaForCausalLM"}, "architectures"),
        ({**DENSE, "architectures": {"a": 1}}, "architectures"),
        ({**DENSE, "layer_types": "full"}, "layer_types"),
        ({**DENSE, "model_type": 7}, "model_type"),
        ({"model_type": "llava", "text_config": [1]}, "text_config"),
        ({**DENSE, "per_layer_config": {"99": {}}}, "per_layer_config"),
        ({"model_type": "newest", **HEADS, "num_key_value_heads": 4, "sliding_window": [512] * 4}, "sliding_window"),
    ],
)  # fmt: skip
def test_what_decides_and_is_unknown_is_refused_by_name(read, config, named: str) -> None:
    with pytest.raises(UsageError, match=named) as caught:
        read(config)
    said = str(caught.value)
    assert "\n" not in said
    assert len(said) < 300


def test_a_long_value_is_cut(read) -> None:
    with pytest.raises(UsageError) as caught:
        read({**DENSE, "model_type": "gemma3_text", "sliding_window_pattern": ["sliding"] * 500})
    assert "…" in str(caught.value)
    assert len(str(caught.value)) < 250


def test_defaults_of_the_class_are_said(read) -> None:
    (note,) = read({"model_type": "llava", "text_config": {"model_type": "llama"}}).notes
    assert "LlamaConfig" in note
    assert "num_hidden_layers 32" in note
    (note,) = read({"model_type": "newest", **HEADS, "num_key_value_heads": 4}).notes
    assert "unknown" in note
    assert read(DENSE).notes == ()
