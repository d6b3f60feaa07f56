"""Recurrent states of hybrid models: bytes worked out by hand from vLLM's shapes, splits, and `config.json` fields."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvdeck.engine.planning.model_files import catalogue, find_model, from_mapping
from kvdeck.engine.planning.parallelism import Parallelism
from kvdeck.engine.planning.plan import Work, make_plan
from kvdeck.engine.planning.precision import PRECISIONS
from kvdeck.engine.planning.recurrent_state import FIELDS, State, state_of
from kvdeck.sessions.errors import UsageError

FP8 = PRECISIONS["fp8"]
QWEN_NEXT = {"num_k_heads": 16, "num_v_heads": 32, "head_k_dim": 128, "head_v_dim": 128, "conv_kernel": 4}
NANO = {"intermediate_size": 10240, "n_groups": 8, "num_heads": 128, "head_dim": 80, "state_size": 128,
        "conv_kernel": 4}  # fmt: skip
SIZES = st.sampled_from([8, 16, 32, 64])


@pytest.mark.parametrize(
    ("kind", "fields", "tp", "conv", "ssm"),
    [
        # (2·16·128 + 32·128) · 3 · 2 B, and 32·128·128 · 2 B
        ("gated_delta_net", QWEN_NEXT, 1, 49_152, 1_048_576),
        ("gated_delta_net", {**QWEN_NEXT, "ssm_dtype": "float32"}, 4, 12_288, 524_288),
        # (10240 + 2·8·128) · 3 · 2 B, and 128·80·128 · 4 B
        ("mamba2", {**NANO, "ssm_dtype": "fp32"}, 1, 73_728, 5_242_880),
        ("mamba2", NANO, 8, 9_216, 327_680),
        ("mamba2", NANO, 16, 5_376, 163_840),  # sixteen ranks, eight groups: each group stands twice
        ("mamba2", {**NANO, "n_groups": 1}, 4, (10240 + 2 * 4 * 128) // 4 * 3 * 2, 655_360),
        ("mamba1", {"intermediate_size": 8192, "state_size": 16, "conv_kernel": 4}, 1, 49_152, 262_144),
        # as vLLM's own tests have Kimi Linear on eight ranks: 9216 B, and 2^18 B in fp32
        ("kda", {"num_heads": 32, "head_dim": 128, "conv_kernel": 4}, 8, 9_216, 1 << 18),
        ("short_conv", {"conv_dim": 2048, "conv_kernel": 3}, 2, 4_096, 0),
        ("linear_attention", {"num_heads": 64, "head_dim": 128}, 8, 0, 262_144),
    ],
)
def test_bytes_of_a_layer(kind: str, fields: dict[str, Any], tp: int, conv: int, ssm: int) -> None:
    state = state_of(kind, fields, "a test")
    assert (state.conv_bytes(tp), state.ssm_bytes(tp), state.bytes(tp)) == (conv, ssm, conv + ssm)


@given(st.sampled_from([kind for kind in FIELDS if kind != "mamba2"]), SIZES, SIZES, st.sampled_from([1, 2, 4, 8]))
def test_ranks_share_a_state_exactly(kind: str, many: int, other: int, tp: int) -> None:
    fields = {key: many if "heads" in key or key.endswith(("size", "conv_dim")) else other for key in FIELDS[kind]}
    state = state_of(kind, fields, "a test")
    state.check(tp, "any")
    assert state.bytes(tp) * tp == state.bytes()


@given(SIZES, st.sampled_from([1, 2, 4, 8, 16]), st.sampled_from([1, 2, 4, 8, 16]))
def test_groups_stand_on_as_many_ranks_as_need_them(heads: int, groups: int, tp: int) -> None:
    state = State("mamba2", 3, heads * 16, groups, 16, heads * 16, 16)
    state.check(tp, "any")
    copies = max(1, tp // groups)
    more = 2 * groups * (copies - 1) * 16 * 3 * 2
    assert state.bytes(tp) * tp == state.bytes() + more


def test_a_plan_counts_states_apart_from_the_kv() -> None:
    model = find_model("qwen3-next-80b-a3b")
    short, long = (make_plan(model, FP8, Parallelism(), Work(tokens, 3)) for tokens in (10, 100_000))
    assert short.state_bytes == long.state_bytes == 36 * 1_097_728
    assert short.gpu_state_bytes() == short.all_state_bytes == 3 * short.state_bytes
    assert long.request_bytes == 12 * 2 * 2 * 256 * 100_000
    split = make_plan(model, FP8, Parallelism(tp=2, pp=5, dp=2), Work(10, 3))
    assert sum(stage.state_bytes for stage in split.stages()) * 2 == split.state_bytes
    assert split.all_state_bytes == 3 * split.state_bytes
    assert split.gpu_state_bytes() == 2 * max(stage.state_bytes for stage in split.stages())
    assert split.room_bytes() <= split.at_the_end().per_gpu().block_bytes + split.gpu_state_bytes()
    assert make_plan(find_model("qwen3-8b"), FP8, Parallelism(), Work(10)).state_bytes == 0


def test_room_is_that_of_the_stage_that_needs_most_altogether() -> None:
    layers = {"linear": {"state": {"kind": "kda", "num_heads": 32, "head_dim": 128, "conv_kernel": 4}},
              "full": {"kv_heads": 1, "head_dim": 8}}  # fmt: skip
    model = from_mapping(
        {"name": "x", "layers": 4, "kinds": layers, "pattern": ["linear", "linear", "full", "full"]}, "x"
    )
    plan = make_plan(model, FP8, Parallelism(pp=2), Work(16))
    assert plan.stage.index == 1
    assert plan.room_bytes() == model.state_bytes()


def test_every_hybrid_of_the_catalogue_has_a_state() -> None:
    hybrids = [model for model in catalogue().values() if "hybrid" in model.title]
    assert len(hybrids) >= 10
    for model in hybrids:
        assert model.state_bytes() > 0, model.name
        assert model.without_state() == ()


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"num_hidden_layers": 48, "num_attention_heads": 16, "num_key_value_heads": 2, "head_dim": 256,
          "full_attention_interval": 4, "linear_num_key_heads": 16, "linear_num_value_heads": 32,
          "linear_key_head_dim": 128, "linear_value_head_dim": 128, "linear_conv_kernel_dim": 4,
          "torch_dtype": "bfloat16"}, "qwen3-next-80b-a3b"),
        ({"text_config": {"num_hidden_layers": 64, "num_attention_heads": 24, "num_key_value_heads": 4,
          "head_dim": 256, "full_attention_interval": 4, "linear_num_key_heads": 16, "linear_num_value_heads": 48,
          "linear_key_head_dim": 128, "linear_value_head_dim": 128, "linear_conv_kernel_dim": 4,
          "mamba_ssm_dtype": "float32", "dtype": "bfloat16"}}, "qwen3.6-27b"),
        ({"model_type": "nemotron_h", "num_hidden_layers": 56, "num_attention_heads": 40, "num_key_value_heads": 8,
          "head_dim": 128, "mamba_num_heads": 128, "mamba_head_dim": 80, "n_groups": 8, "ssm_state_size": 128,
          "conv_kernel": 4, "hybrid_override_pattern": "M-M-M-MM-M-M-M*-M-M-M*-M-M-M-M*-M-M-M-M*-M-MM-M-M-M-M-M-"},
         "nemotron-nano-9b-v2"),
        ({"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4096,
          "attn_layer_period": 8, "attn_layer_offset": 4, "mamba_d_state": 16, "mamba_d_conv": 4, "mamba_expand": 2},
         "jamba-1.5-mini"),
        ({"num_hidden_layers": 40, "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4096,
          "layer_types": (["mamba"] * 5 + ["attention"] + ["mamba"] * 4) * 4, "mamba_n_heads": 128,
          "mamba_d_head": "auto", "mamba_n_groups": 1, "mamba_d_state": 128, "mamba_d_conv": 4, "mamba_expand": 2},
         "granite-4.0-h-small"),
        ({"num_hidden_layers": 27, "num_attention_heads": 32, "kv_lora_rank": 512, "qk_rope_head_dim": 64,
          "linear_attn_config": {"full_attn_layers": [4, 8, 12, 16, 20, 24, 27], "num_heads": 32, "head_dim": 128,
                                 "short_conv_kernel_size": 4}}, "kimi-linear-48b-a3b"),
    ],
)  # fmt: skip
def test_a_config_has_the_states_of_the_catalogue(tmp_path: Path, config: dict[str, Any], name: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    read, known = find_model(str(tmp_path)), find_model(name)
    assert read.layers == known.layers
    assert read.token_bytes(FP8) == known.token_bytes(FP8)
    by_layer = [[model.kinds[index].state for index in model.order] for model in (read, known)]
    assert by_layer[0] == by_layer[1]


def test_attention_and_mamba_in_one_layer(tmp_path: Path) -> None:
    config = {"model_type": "falcon_h1", "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 2,
              "head_dim": 128, "mamba_n_heads": 48, "mamba_d_head": 64, "mamba_n_groups": 1, "mamba_d_state": 256,
              "mamba_d_conv": 4, "mamba_d_ssm": 3072, "torch_dtype": "bfloat16"}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = find_model(str(tmp_path))
    assert model.token_bytes(FP8) == 2 * 2 * 2 * 128
    assert model.state_bytes() == 2 * ((3072 + 512) * 3 * 2 + 48 * 64 * 256 * 2)


def test_a_wrong_field_is_named_as_the_file_has_it(tmp_path: Path) -> None:
    config = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4, "hidden_size": 64,
              "layer_types": ["mamba", "full"],
              "mamba_d_state": "x", "mamba_d_conv": 4, "mamba_expand": 2}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="mamba_d_state"):
        find_model(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({**config, "mamba_d_state": 16, "mamba_d_conv": None}))
    assert find_model(str(tmp_path)).without_state() == ("1 mamba layer",)


def test_what_is_not_known_is_said(tmp_path: Path) -> None:
    config = {"num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 4, "hidden_size": 64,
              "layer_types": ["recurrent", "full_attention", "moe", "recurrent"]}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert find_model(str(tmp_path)).without_state() == ("2 recurrent layers",)


@pytest.mark.parametrize(
    ("state", "named"),
    [
        ({"kind": "mamba3"}, "state 'mamba3'"),
        ({"kind": "kda", "num_heads": 4}, "lacks head_dim, conv_kernel"),
        ({"kind": "kda", "num_heads": 4, "head_dim": 0, "conv_kernel": 4}, "head_dim"),
        ({"kind": "short_conv", "conv_dim": 4, "conv_kernel": 4, "heads": 2}, "unknown keys: heads"),
        ({"kind": "short_conv", "conv_dim": 4, "conv_kernel": 4, "dtype": "nvfp4"}, "be stored as nvfp4"),
        ({"num_heads": 4}, "not a mapping with a kind"),
        ([], "not a mapping with a kind"),
    ],
)
def test_a_state_that_is_wrong_is_named(state: Any, named: str) -> None:
    with pytest.raises(UsageError) as caught:
        from_mapping({"name": "x", "layers": 2, "kinds": {"a": {"state": state}}}, "a file")
    assert named in str(caught.value)


@pytest.mark.parametrize(("tp", "named"), [(3, "heads of its recurrence"), (5, "heads of its recurrence")])
def test_a_split_that_a_state_refuses(tp: int, named: str) -> None:
    layers = {"full": {"kv_heads": 15, "head_dim": 8},
              "linear": {"state": {"kind": "linear_attention", "num_heads": 32, "head_dim": 8}}}  # fmt: skip
    model = from_mapping({"name": "x", "layers": 2, "kinds": layers, "pattern": ["full", "linear"]}, "a file")
    with pytest.raises(UsageError, match=named):
        make_plan(model, FP8, Parallelism(tp=tp), Work(16))
