"""The KV precision of a model's files, which of them decides, and where it is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kvdeck.engine.planning.io_plan import plan_of, precision_text, with_precision
from kvdeck.engine.planning.kvbench import ModelConfig
from kvdeck.engine.planning.model_files import find_model
from kvdeck.sessions.errors import UsageError

LLAMA = {"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2, "num_attention_heads": 8,
         "num_key_value_heads": 8, "hidden_size": 1024}  # fmt: skip
FLOAT8 = {"num_bits": 8, "type": "float", "dynamic": False}


def _model(folder: Path, config: dict[str, Any], beside: dict[str, Any] | None = None) -> Any:
    (folder / "config.json").write_text(json.dumps({**LLAMA, **config}))
    if beside is not None:
        (folder / "hf_quant_config.json").write_text(json.dumps(beside))
    return find_model(str(folder))


@pytest.mark.parametrize(
    ("config", "beside", "name", "source"),
    [
        ({"torch_dtype": "bfloat16"}, None, "bf16", "torch_dtype"),
        ({"dtype": "float16"}, None, "fp16", "dtype"),
        ({"torch_dtype": "torch.bfloat16"}, None, "bf16", "torch_dtype"),
        ({"torch_dtype": "float32", "quantization_config": {"quant_method": "fp8"}}, None, "fp32", "torch_dtype"),
        ({"torch_dtype": "bfloat16", "quantization_config": {"kv_cache_scheme": FLOAT8}}, None, "fp8",
         "kv_cache_scheme in quantization_config"),
        ({"torch_dtype": "bfloat16", "quantization_config": {"kv_cache_scheme": {"num_bits": 8, "type": "int"}}}, None,
         "int8", "kv_cache_scheme in quantization_config"),
        ({"torch_dtype": "bfloat16", "quantization_config": {"kv_cache_scheme": "FP8"}}, None, "fp8",
         "kv_cache_scheme in quantization_config"),
        ({"torch_dtype": "bfloat16", "quantization_config": {"kv_cache_quant_algo": "NVFP4"}}, None, "nvfp4",
         "kv_cache_quant_algo in quantization_config"),
        ({"torch_dtype": "bfloat16"}, {"quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}}, "fp8",
         "kv_cache_quant_algo in hf_quant_config.json"),
        ({"torch_dtype": "bfloat16"}, {"quantization": {"quant_algo": "NVFP4", "kv_cache_quant_algo": None}}, "bf16",
         "torch_dtype"),
        ({"torch_dtype": "auto"}, None, "", ""),
        ({}, None, "", ""),
    ],
)  # fmt: skip
def test_the_first_that_says_it_decides(tmp_path: Path, config, beside, name: str, source: str) -> None:
    model = _model(tmp_path, config, beside)
    assert (model.precision, model.precision_source) == (name, source)
    config = with_precision(model, ModelConfig(isl=1))
    assert config.kvcache_quant_mode == (name or "fp8")
    assert plan_of(model, ModelConfig(isl=1)).precision.name == (name or "fp8")
    assert precision_text(model, ModelConfig(isl=1)).startswith(f"{name or 'fp8'} (")


def test_the_text_model_s_type_and_the_option(tmp_path: Path) -> None:
    model = _model(tmp_path, {"model_type": "llava", "torch_dtype": "float32",
                              "text_config": {**LLAMA, "model_type": "llama", "torch_dtype": "bfloat16"}})  # fmt: skip
    assert model.precision == "bf16"
    asked = ModelConfig(isl=1, kvcache_quant_mode="int8", precision_source="--precision")
    assert plan_of(model, asked).precision.name == "int8"
    assert precision_text(model, asked) == "int8 (--precision)"
    assert "KVBench" in precision_text(model, ModelConfig(isl=1), compat=True)


def test_a_scheme_that_is_unknown_has_to_be_given(tmp_path: Path) -> None:
    model = _model(tmp_path, {"quantization_config": {"kv_cache_scheme": {"num_bits": 3, "type": "float"}}})
    with pytest.raises(UsageError, match="kv_cache_scheme"):
        plan_of(model, ModelConfig(isl=1))
    asked = ModelConfig(isl=1, kvcache_quant_mode="fp8", precision_source="--precision")
    assert plan_of(model, asked).precision.name == "fp8"
