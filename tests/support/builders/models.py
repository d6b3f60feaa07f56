"""KVBench's files as they are shipped, made by hand for tests."""

from __future__ import annotations

from pathlib import Path

ARCHITECTURES = {
    "DEEPSEEK_R1": "num_layers: 61\nnum_query_heads: 128\nquery_head_dimension: 128\nembedding_dimension: 7168\n"
    "rope_mla_dimension: 64\nmla_latent_vector_dimension: 512\nnum_model_params: 671e9\n",
    "LLAMA3.1_8B": "num_layers: 32\nnum_query_heads_with_mha: 32\nquery_head_dimension: 128\n"
    "gqa_num_queries_in_group: 4\nnum_model_params: 8e9\n",
    "LLAMA3.1_70B": "num_layers: 80\nnum_query_heads_with_mha: 64\nquery_head_dimension: 128\n"
    "gqa_num_queries_in_group: 8\nnum_model_params: 70e9\n",
    "GPT_OSS_120B": "num_layers: 36\nnum_query_heads: 64\n"
    "num_kv_heads: 8\nquery_head_dimension: 64\nnum_model_params: 116.8e9\n",
    "GPT_OSS_20B": "num_layers: 24\nnum_query_heads: 64\n"
    "num_kv_heads: 8\nquery_head_dimension: 64\nnum_model_params: 5.1e9\n",
    "QWEN3_235B_A22B": "num_layers: 94\nnum_query_heads: 64\n"
    "num_kv_heads: 4\nquery_head_dimension: 128\nnum_model_params: 235e9\n",
    "QWEN3_8B": "num_layers: 36\nnum_query_heads: 32\n"
    "num_kv_heads: 8\nquery_head_dimension: 128\nnum_model_params: 8.2e9\n",
}


def write_architecture(folder: Path, name: str) -> Path:
    path = folder / f"model_{name.lower()}.yaml"
    path.write_text(f"model_name: {name}\n{ARCHITECTURES[name]}")
    return path


def write_config(folder: Path, access: str = "block", tp: int = 1, pp: int = 16, *, isl: int = 10000, page: int = 256,
                 requests: int = 10, quant: str = "fp8") -> Path:  # fmt: skip
    path = folder / f"{access}-tp{tp}-pp{pp}.yaml"
    path.write_text(
        f"strategy:\n  tp_size: {tp}\n  pp_size: {pp}\n  model_quant_mode: {quant}\n  kvcache_quant_mode: {quant}\n"
        f"runtime:\n  num_requests: {requests}\n  isl: {isl}\n  osl: 100\n"
        f"system:\n  backend: SGLANG\n  hardware: H100\n  page_size: {page}\n  access_pattern: {access}\n"
        "  source: null\n  destination: null\n"
    )
    return path
