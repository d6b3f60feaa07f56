"""Families of models: the class of `transformers` that reads each, its rule for layers, and the defaults it fills in.

A row is `model_type class rule key=value …`: the defaults are those of the keys that decide the KV cache, under the
class's own names, and hold where a file leaves a key out. `tests/engine/planning/test_transformers.py` compares every
row with `transformers` itself. Rules: `engine/planning/layer_words.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

# ruff: noqa: E501  (one row per family)


@dataclass(frozen=True, slots=True)
class Family:
    """A family of models that share a configuration class."""

    model_type: str
    """As transformers spells it, or the published files where transformers doesn't know it."""
    config_class: str
    rule: str
    """How the class makes the layers' types where a file doesn't list them."""
    defaults: Mapping[str, int | str | bool | list[str]]


_TRANSFORMERS = """
afmoe AfmoeConfig every:4 hidden_size=2048 num_hidden_layers=32 num_attention_heads=16 head_dim=128 global_attn_every_n_layers=4 sliding_window=1024
apertus ApertusConfig full hidden_size=4096 num_hidden_layers=32 num_attention_heads=32
apertus1p5_text Apertus1p5TextConfig full hidden_size=4096 num_hidden_layers=32 num_attention_heads=32
arcee ArceeConfig full hidden_size=2560 num_hidden_layers=32 num_attention_heads=32
aria_text AriaTextConfig full hidden_size=4096 num_hidden_layers=32 num_attention_heads=32
axk1 AXK1Config full hidden_size=7168 num_hidden_layers=61 num_attention_heads=64 num_key_value_heads=64 kv_lora_rank=512 qk_rope_head_dim=64 v_head_dim=128
axk2 AXK2Config full hidden_size=2048 num_hidden_layers=48 num_attention_heads=32 num_key_value_heads=32 kv_lora_rank=128 qk_rope_head_dim=32 v_head_dim=64 index_head_dim=128 head_dim=64
bailing_hybrid BailingHybridConfig group hidden_size=2560 num_hidden_layers=42 num_attention_heads=32 num_key_value_heads=32 kv_lora_rank=512 qk_rope_head_dim=64 v_head_dim=128 head_dim=128 layer_group_size=6
bamba BambaConfig indices hidden_size=4096 num_hidden_layers=32 num_attention_heads=32 num_key_value_heads=8 mamba_n_heads=128 mamba_d_head=auto mamba_n_groups=1 mamba_d_state=256 mamba_d_conv=4 mamba_expand=2
beam BeamConfig every_last:6 hidden_size=5120 num_hidden_layers=52 num_attention_heads=48 num_key_value_heads=8 sliding_window=512 head_dim=128
biogpt BioGptConfig full hidden_size=1024 num_hidden_layers=24 num_attention_heads=16
bitnet BitNetConfig full hidden_size=2560 num_hidden_layers=30 num_attention_heads=20 num_key_value_heads=5
bloom BloomConfig full hidden_size=64 n_layer=2 n_head=8
chameleon ChameleonConfig full hidden_size=4096 num_hidden_layers=32 num_attention_heads=32 num_key_value_heads=32
codegen CodeGenConfig full n_embd=4096 n_layer=28 n_head=16
cohere CohereConfig full hidden_size=8192 num_hidden_layers=40 num_attention_heads=64
cohere2 Cohere2Config every:4 hidden_size=8192 num_hidden_layers=40 num_attention_heads=64 sliding_window=4096
cohere2_moe Cohere2MoeConfig every:4 hidden_size=8192 num_hidden_layers=40 num_attention_heads=64 head_dim=128 sliding_window=4096
cohere_compass_text CohereCompassTextConfig full hidden_size=8192 num_hidden_layers=40 num_attention_heads=64 sliding_window=4096
cosmos3_edge_text Cosmos3EdgeTextConfig full hidden_size=2048 num_hidden_layers=28 num_attention_heads=16 num_key_value_heads=8 head_dim=128
cpmant CpmAntConfig full hidden_size=4096 num_attention_heads=32 dim_head=128 num_hidden_layers=48
ctrl CTRLConfig full n_embd=1280 n_layer=48 n_head=16
cwm CwmConfig first:4 hidden_size=6144 num_hidden_layers=64 num_attention_heads=48 num_key_value_heads=8 head_dim=128 sliding_window=8192
dbrx DbrxConfig full d_model=2048 n_heads=16 n_layers=24
deepseek_ocr2_text DeepseekOcr2TextConfig full hidden_size=4096 num_hidden_layers=32 num_attention_heads=32
deepseek_v2 DeepseekV2Config full hidden_size=4096 num_hidden_layers=32 num_attention_heads=32 kv_lora_rank=512 qk_rope_head_dim=64 v_head_dim=128
deepseek_v3 DeepseekV3Config full hidden_size=7168 num_hidden_layers=61 num_attention_heads=128 num_key_value_heads=128 kv_lora_rank=512 qk_rope_head_dim=64 v_head_dim=128
deepseek_v32 DeepseekV32Config full hidden_size=7168 num_hidden_layers=61 num_attention_heads=128 num_key_value_heads=128 kv_lora_rank=512 qk_rope_head_dim=64 v_head_dim=128 index_head_dim=128 head_dim=64
deepseek_v4 DeepseekV4Config deepseek_v4 hidden_size=4096 num_hidden_layers=43 num_attention_heads=64 num_key_value_heads=1 head_dim=512 sliding_window=128 index_head_dim=128
diffllama DiffLlamaConfig full hidden_size=2048 num_hidden_layers=16 num_attention_heads=32
doge DogeConfig full hidden_size=1024 num_hidden_layers=32 num_attention_heads=8
dots1 Dots1Config dots1 hidden_size=4608 num_hidden_layers=62 num_attention_heads=32 num_key_value_heads=32 sliding_window=4096 max_window_layers=62
emu3_text_model Emu3TextConfig full hidden_size=4096 num_hidden_layers=32 num_attention_heads=32 num_key_value_heads=8
ernie4_5 Ernie4_5Config full hidden_size=1024 num_hidden_layers=18 num_attention_heads=16 num_key_value_heads=2 head_dim=128
ernie4_5_moe Ernie4_5_MoeConfig full hidden_size=2560 num_hidden_layers=28 num_attention_heads=20 num_key_value_heads=4
ernie4_5_vl_moe_text Ernie4_5_VLMoeTextConfig full hidden_size=2560 num_hidden_layers=28 num_attention_heads=20 num_key_value_heads=4
exaone ExaoneConfig full hidden_size=4096 num_hidden_layers=32 num_attention_heads=32 num_key_value_heads=8
exaone4 Exaone4Config every:4 hidden_size=4096 num_hidden_layers=32 num_attention_heads=32 num_key_value_heads=32 sliding_window=4096
exaone_moe ExaoneMoeConfig every:4 hidden_size=4096 num_hidden_layers=32 num_attention_heads=32 num_key_value_heads=32 sliding_window=4096
falcon FalconConfig falcon hidden_size=4544 num_hidden_layers=32 num_attention_heads=71 multi_query=true
falcon_h1 FalconH1Config hybrid hidden_size=4096 num_hidden_layers=32 num_attention_heads=32 num_key_value_heads=8 mamba_d_ssm=1024 mamba_n_heads=128 mamba_d_head=auto mamba_n_groups=1 mamba_d_state=256 mamba_d_conv=4 mamba_expand=2
flex_olmo FlexOlmoConfig full hidden_size=4096 num_hidden_layers=32 num_attention_heads=32
flint FlintConfig listed hidden_size=2048 num_hidden_layers=49 num_attention_heads=32 num_key_value_heads=4 sliding_window=513 head_dim=128
gemma GemmaConfig full hidden_size=3072 num_hidden_layers=28 num_attention_heads=16 num_key_value_heads=16 head_dim=256
gemma2 Gemma2Config every:2 hidden_size=2304 num_hidden_layers=26 num_attention_heads=8 num_key_value_heads=4 head_dim=256 sliding_window=4096
gemma3_text Gemma3TextConfig every:6 hidden_size=2304 num_hidden_layers=26 num_attention_heads=8 num_key_value_heads=4 head_dim=256 sliding_window=4096
gemma3n_text Gemma3nTextConfig every:5 hidden_size=2048 num_hidden_layers=35 num_attention_heads=8 num_key_value_heads=2 head_dim=256 sliding_window=512 num_kv_shared_layers=15
gemma4_text Gemma4TextConfig every_last:6 hidden_size=2304 num_hidden_layers=30 num_attention_heads=8 num_key_value_heads=4 head_dim=256 sliding_window=512 num_kv_shared_layers=0
gemma4_unified_text Gemma4UnifiedTextConfig every_last:6 hidden_size=2304 num_hidden_layers=30 num_attention_heads=8 num_key_value_heads=4 head_dim=256 sliding_window=1024 num_kv_shared_layers=0
glm GlmConfig full hidden_size=4096 num_hidden_layers=40 num_attention_heads=32 num_key_value_heads=2 head_dim=128
glm4 Glm4Config full hidden_size=4096 num_hidden_layers=40 num_attention_heads=32 num_key_value_heads=2 head_dim=128
glm4_moe Glm4MoeConfig full hidden_size=4096 num_hidden_layers=46 num_attention_heads=96 num_key_value_heads=8
glm4_moe_lite Glm4MoeLiteConfig full hidden_size=2048 num_hidden_layers=47 num_attention_heads=20 num_key_value_heads=20 kv_lora_rank=512 qk_rope_head_dim=64 v_head_dim=256
glm4v_moe_text Glm4vMoeTextConfig full hidden_size=4096 num_hidden_layers=46 num_attention_heads=96 num_key_value_heads=8
glm4v_text Glm4vTextConfig full hidden_size=4096 num_hidden_layers=40 num_attention_heads=32 num_key_value_heads=2
glm_image_text GlmImageTextConfig full hidden_size=4096 num_hidden_layers=40 num_attention_heads=32 num_key_value_heads=2
glm_moe_dsa GlmMoeDsaConfig full hidden_size=6144 num_hidden_layers=78 num_attention_heads=64 num_key_value_heads=64 kv_lora_rank=512 qk_rope_head_dim=64 v_head_dim=256 index_head_dim=128 head_dim=64
glm_ocr_text GlmOcrTextConfig full hidden_size=1024 num_hidden_layers=16 num_attention_heads=16 num_key_value_heads=8
gpt-sw3 GPT2Config full n_embd=768 n_layer=12 n_head=12
gpt2 GPT2Config full n_embd=768 n_layer=12 n_head=12
gpt_bigcode GPTBigCodeConfig bigcode n_embd=768 n_layer=12 n_head=12 multi_query=true
gpt_neo GPTNeoConfig gpt_neo hidden_size=2048 num_layers=24 num_heads=16 window_size=256
gpt_neox GPTNeoXConfig full hidden_size=6144 num_hidden_layers=44 num_attention_heads=64
gpt_neox_japanese GPTNeoXJapaneseConfig full hidden_size=2560 num_hidden_layers=32 num_attention_heads=32
gpt_oss GptOssConfig every:2 num_hidden_layers=36 hidden_size=2880 head_dim=64 num_attention_heads=64 num_key_value_heads=8 sliding_window=128
gptj GPTJConfig full n_embd=4096 n_layer=28 n_head=16
granite GraniteConfig full hidden_size=4096 num_hidden_layers=32 num_attention_heads=32
granite4_vision_text Granite4VisionTextConfig full hidden_size=4096 num_hidden_layers=32 num_attention_heads=32
granite_docling_text GraniteDoclingTextConfig full hidden_size=1024 num_hidden_layers=28 num_attention_heads=16 num_key_value_heads=4
granite_swa GraniteSWAConfig first:4 hidden_size=2560 num_hidden_layers=24 num_attention_heads=20 num_key_value_heads=4 sliding_window=128
granitemoe GraniteMoeConfig full hidden_size=4096 num_hidden_layers=32 num_attention_heads=32
granitemoe_swa GraniteMoeSWAConfig first:4 hidden_size=4096 num_hidden_layers=32 num_attention_heads=32 sliding_window=128
granitemoehybrid GraniteMoeHybridConfig mamba hidden_size=4096 num_hidden_layers=32 num_attention_heads=32 mamba_n_heads=128 mamba_n_groups=1 mamba_d_state=256 mamba_d_head=auto mamba_d_conv=4 mamba_expand=2
granitemoeshared GraniteMoeSharedConfig full hidden_size=4096 num_hidden_layers=32 num_attention_heads=32
helium HeliumConfig full hidden_size=2560 num_hidden_layers=24 num_attention_heads=20 num_key_value_heads=20 head_dim=128
hunyuan_v1_dense HunYuanDenseV1Config full hidden_size=4096 num_hidden_layers=32 num_attention_heads=32
hunyuan_v1_moe HunYuanMoEV1Config full hidden_size=4096 num_hidden_layers=32 num_attention_heads=32
hunyuan_vl_text HunYuanVLTextConfig full hidden_size=4096 num_hidden_layers=32 num_attention_heads=32
hy_v3 HYV3Config full hidden_size=4096 num_hidden_layers=80 num_attention_heads=64 num_key_value_heads=8 head_dim=128
hy_v4 HYV4Config full hidden_size=2816 num_hidden_layers=34 num_attention_heads=32 num_key_value_heads=32 head_dim=256 kv_lora_rank=512 qk_rope_head_dim=64 v_head_dim=256 index_head_dim=128
hy_v4_vl_text HYV4VLTextConfig full hidden_size=6144 num_hidden_layers=78 num_attention_heads=64 num_key_value_heads=32 head_dim=256 kv_lora_rank=512 qk_rope_head_dim=64 v_head_dim=256 index_head_dim=128
hyperclovax HyperCLOVAXConfig full hidden_size=4096 num_hidden_layers=32 num_attention_heads=32
internlm3 InternLM3Config full hidden_size=4096 num_hidden_layers=48 num_attention_heads=32 num_key_value_heads=2 head_dim=128
iquestcoder IQuestCoderConfig full hidden_size=5120 num_hidden_layers=80 num_attention_heads=40 num_key_value_heads=8 head_dim=128
jais2 Jais2Config full hidden_size=3328 num_hidden_layers=32 num_attention_heads=26
jamba JambaConfig period hidden_size=4096 num_hidden_layers=32 num_attention_heads=32 num_key_value_heads=8 attn_layer_period=8 attn_layer_offset=4 mamba_d_state=16 mamba_d_conv=4 mamba_expand=2
jetmoe JetMoeConfig full hidden_size=2048 num_hidden_layers=12 num_key_value_heads=16 kv_channels=128
kimi_linear KimiLinearConfig kimi hidden_size=2304 num_hidden_layers=27 num_attention_heads=32 num_key_value_heads=32 kv_lora_rank=512 qk_rope_head_dim=64 v_head_dim=128 linear_head_dim=128 linear_num_heads=32 linear_conv_kernel_dim=4
kolibri1 Kolibri1Config every:5 hidden_size=2560 num_hidden_layers=50 num_attention_heads=48 num_key_value_heads=4 sliding_window=513 head_dim=128
laguna LagunaConfig full hidden_size=2048 num_hidden_layers=40 num_attention_heads=48 num_key_value_heads=8 sliding_window=512 head_dim=128
lara_mini LaraMiniConfig listed hidden_size=1024 num_hidden_layers=34 num_attention_heads=16 num_key_value_heads=4 head_dim=128 linear_conv_kernel_dim=4 linear_key_head_dim=128 linear_value_head_dim=128 linear_num_key_heads=8 linear_num_value_heads=16 sliding_window=512
lfm2 Lfm2Config lfm2 hidden_size=2560 num_hidden_layers=32 num_attention_heads=32 num_key_value_heads=8 conv_L_cache=3
lfm2_moe Lfm2MoeConfig listed hidden_size=2048 num_hidden_layers=32 num_attention_heads=32 num_key_value_heads=8 conv_L_cache=3
lfm3 Lfm3Config listed hidden_size=2048 num_hidden_layers=24 num_attention_heads=16 num_key_value_heads=4 conv_L_cache=7 head_dim=128 sliding_window=256
llama LlamaConfig full hidden_size=4096 num_hidden_layers=32 num_attention_heads=32
llama4_text Llama4TextConfig llama4 hidden_size=5120 num_hidden_layers=48 num_attention_heads=40 num_key_value_heads=8 head_dim=128 attention_chunk_size=8192
longcat_flash LongcatFlashConfig double hidden_size=6144 num_layers=28 num_attention_heads=64 kv_lora_rank=512 qk_rope_head_dim=64 head_dim=64 v_head_dim=128
mellum MellumConfig full hidden_size=2304 num_hidden_layers=28 num_attention_heads=32 num_key_value_heads=4 sliding_window=1024 head_dim=128
mimo_v2_flash MiMoV2FlashConfig mimo hidden_size=4096 num_hidden_layers=48 num_attention_heads=64 num_key_value_heads=4 head_dim=192 v_head_dim=128 sliding_window=129
minicpm3 MiniCPM3Config full hidden_size=2560 num_hidden_layers=62 num_attention_heads=40 num_key_value_heads=40 kv_lora_rank=256 qk_rope_head_dim=32
minimax MiniMaxConfig minimax hidden_size=4096 num_hidden_layers=32 num_attention_heads=32 num_key_value_heads=8
minimax_m2 MiniMaxM2Config full hidden_size=3072 num_hidden_layers=62 num_attention_heads=48 num_key_value_heads=8 head_dim=128
minimax_m3_vl_text MiniMaxM3VLTextConfig full hidden_size=6144 num_hidden_layers=60 num_attention_heads=64 num_key_value_heads=4 head_dim=128 index_head_dim=128
ministral MinistralConfig window hidden_size=4096 num_hidden_layers=32 num_attention_heads=32 num_key_value_heads=8 sliding_window=4096
ministral3 Ministral3Config window hidden_size=4096 num_hidden_layers=34 num_attention_heads=32 num_key_value_heads=8 head_dim=128
mistral MistralConfig window hidden_size=4096 num_hidden_layers=32 num_attention_heads=32 num_key_value_heads=8 sliding_window=4096
mistral4 Mistral4Config full hidden_size=4096 num_hidden_layers=36 num_attention_heads=32 num_key_value_heads=32 kv_lora_rank=256 qk_rope_head_dim=64 v_head_dim=128
mistral_large4_text MistralLarge4TextConfig full hidden_size=6144 num_hidden_layers=72 num_attention_heads=64 num_key_value_heads=64 kv_lora_rank=512 qk_rope_head_dim=64 v_head_dim=128 index_head_dim=128 head_dim=64
mixtral MixtralConfig window hidden_size=4096 num_hidden_layers=32 num_attention_heads=32 num_key_value_heads=8
modernbert-decoder ModernBertDecoderConfig first:3 local_attention=128 hidden_size=768 num_hidden_layers=22 num_attention_heads=12
molmo2_text Molmo2TextConfig full hidden_size=4096 num_attention_heads=32 num_key_value_heads=8 head_dim=128 num_hidden_layers=36
mpt MptConfig full d_model=2048 n_heads=16 n_layers=24
muse_glimmer_text MuseGlimmerTextConfig every:4 hidden_size=6656 num_hidden_layers=52 num_attention_heads=32 num_key_value_heads=2 head_dim=128 sliding_window=2048
muse_spark_text MuseSparkTextConfig listed hidden_size=8192 num_hidden_layers=62 num_attention_heads=128 num_key_value_heads=16 head_dim=64 sliding_window=2048
nanochat NanoChatConfig full hidden_size=768 num_hidden_layers=12 num_attention_heads=6
nemotron NemotronConfig full hidden_size=6144 num_hidden_layers=32 num_attention_heads=48
nemotron_h NemotronHConfig listed hidden_size=4096 num_attention_heads=32 num_key_value_heads=8 head_dim=128 ssm_state_size=128 mamba_num_heads=128 mamba_head_dim=64 n_groups=8 conv_kernel=4 mamba_ssm_cache_dtype=float32
olmo OlmoConfig full hidden_size=4096 num_hidden_layers=32 num_attention_heads=32
olmo2 Olmo2Config full hidden_size=4096 num_hidden_layers=32 num_attention_heads=32
olmo3 Olmo3Config every:4 hidden_size=4096 num_hidden_layers=32 num_attention_heads=32 sliding_window=4096
olmo_hybrid OlmoHybridConfig interval:4 hidden_size=3840 num_hidden_layers=32 num_attention_heads=30 linear_conv_kernel_dim=4
olmoe OlmoeConfig full hidden_size=2048 num_hidden_layers=16 num_attention_heads=16
openai-gpt OpenAIGPTConfig full n_embd=768 n_layer=12 n_head=12
opt OPTConfig full hidden_size=768 num_hidden_layers=12 num_attention_heads=12
paddleocr_vl_text PaddleOCRTextConfig full hidden_size=1024 num_hidden_layers=18 num_attention_heads=16 num_key_value_heads=2 head_dim=128
persimmon PersimmonConfig full hidden_size=4096 num_hidden_layers=36 num_attention_heads=64
phi PhiConfig full hidden_size=2048 num_hidden_layers=24 num_attention_heads=32
phi3 Phi3Config window hidden_size=3072 num_hidden_layers=32 num_attention_heads=32
phi4_multimodal Phi4MultimodalConfig window hidden_size=3072 num_hidden_layers=32 num_attention_heads=32 num_key_value_heads=8
phimoe PhimoeConfig window hidden_size=4096 num_hidden_layers=32 num_attention_heads=32 num_key_value_heads=8
qwen2 Qwen2Config qwen2 hidden_size=4096 num_hidden_layers=32 num_attention_heads=32 num_key_value_heads=32 sliding_window=4096 max_window_layers=28
qwen2_5_omni_text Qwen2_5OmniTextConfig qwen2 hidden_size=3584 num_hidden_layers=28 num_attention_heads=28 num_key_value_heads=4 sliding_window=32768 max_window_layers=28
qwen2_5_vl_text Qwen2_5_VLTextConfig qwen2 hidden_size=8192 num_hidden_layers=80 num_attention_heads=64 num_key_value_heads=8 sliding_window=4096 max_window_layers=80
qwen2_moe Qwen2MoeConfig qwen2 hidden_size=2048 num_hidden_layers=24 num_attention_heads=16 num_key_value_heads=16 sliding_window=4096 max_window_layers=28
qwen2_vl_text Qwen2VLTextConfig qwen2 hidden_size=8192 num_hidden_layers=80 num_attention_heads=64 num_key_value_heads=8 sliding_window=4096 max_window_layers=80
qwen3 Qwen3Config qwen2 hidden_size=4096 num_hidden_layers=32 num_attention_heads=32 num_key_value_heads=32 head_dim=128 sliding_window=4096 max_window_layers=28
qwen3_5_moe_text Qwen3_5MoeTextConfig interval:4 hidden_size=2048 num_hidden_layers=40 num_attention_heads=16 num_key_value_heads=2 head_dim=256 linear_conv_kernel_dim=4 linear_key_head_dim=128 linear_value_head_dim=128 linear_num_key_heads=16 linear_num_value_heads=32
qwen3_5_text Qwen3_5TextConfig interval:4 hidden_size=4096 num_hidden_layers=32 num_attention_heads=16 num_key_value_heads=4 head_dim=256 linear_conv_kernel_dim=4 linear_key_head_dim=128 linear_value_head_dim=128 linear_num_key_heads=16 linear_num_value_heads=32
qwen3_moe Qwen3MoeConfig window_if hidden_size=2048 num_hidden_layers=24 num_attention_heads=32 num_key_value_heads=4 sliding_window=4096
qwen3_next Qwen3NextConfig interval:4 hidden_size=2048 num_hidden_layers=48 num_attention_heads=16 num_key_value_heads=2 head_dim=256 linear_conv_kernel_dim=4 linear_key_head_dim=128 linear_value_head_dim=128 linear_num_key_heads=16 linear_num_value_heads=32
qwen3_omni_moe_text Qwen3OmniMoeTextConfig window_if hidden_size=2048 num_hidden_layers=28 num_attention_heads=28 num_key_value_heads=4
qwen3_vl_moe_text Qwen3VLMoeTextConfig full hidden_size=2048 num_hidden_layers=24 num_attention_heads=16 num_key_value_heads=16
qwen3_vl_text Qwen3VLTextConfig full hidden_size=4096 num_hidden_layers=32 num_attention_heads=32 num_key_value_heads=32 head_dim=128
qwen4_exp_text Qwen4ExpTextConfig interval:4 hidden_size=2048 num_hidden_layers=40 num_attention_heads=16 num_key_value_heads=2 head_dim=256 linear_conv_kernel_dim=4 linear_key_head_dim=128 linear_value_head_dim=128 linear_num_key_heads=16 linear_num_value_heads=32
recurrent_gemma RecurrentGemmaConfig cycle block_types=recurrent,recurrent,attention num_hidden_layers=26 hidden_size=2560 num_attention_heads=10 attention_window_size=2048
sarvam_mla SarvamMLAConfig full hidden_size=4096 num_hidden_layers=32 num_attention_heads=64 kv_lora_rank=512 qk_rope_head_dim=64 v_head_dim=128
sarvam_moe SarvamMoEConfig full hidden_size=4096 num_hidden_layers=19 num_attention_heads=64 num_key_value_heads=4 head_dim=64
seed_oss SeedOssConfig full hidden_size=4096 num_hidden_layers=64 num_attention_heads=80 num_key_value_heads=8 head_dim=128
smollm3 SmolLM3Config smollm3 hidden_size=2048 num_hidden_layers=36 num_attention_heads=16 num_key_value_heads=4
solar_open SolarOpenConfig full hidden_size=4096 num_hidden_layers=48 num_attention_heads=64 num_key_value_heads=8 head_dim=128
stablelm StableLmConfig full hidden_size=2560 num_hidden_layers=32 num_attention_heads=32 num_key_value_heads=32
starcoder2 Starcoder2Config window hidden_size=3072 num_hidden_layers=30 num_attention_heads=24 num_key_value_heads=2
step3p5 Step3p7TextConfig full hidden_size=4096 num_hidden_layers=45 num_attention_heads=64 num_key_value_heads=8 head_dim=128
vaultgemma VaultGemmaConfig every:2 hidden_size=2304 num_hidden_layers=26 num_attention_heads=8 num_key_value_heads=4 head_dim=256 sliding_window=4096
voxtral_realtime_text VoxtralRealtimeTextConfig window hidden_size=4096 num_hidden_layers=32 num_attention_heads=32 num_key_value_heads=8 sliding_window=4096
xglm XGLMConfig full d_model=1024 num_layers=24 attention_heads=16
youtu YoutuConfig full hidden_size=2048 num_hidden_layers=32 num_attention_heads=16 num_key_value_heads=16 kv_lora_rank=512 qk_rope_head_dim=64 v_head_dim=128
zamba ZambaConfig zamba hidden_size=3712 num_hidden_layers=76 num_attention_heads=16 num_key_value_heads=16 n_mamba_heads=2 attn_layer_period=6 attn_layer_offset=4 mamba_d_state=16 mamba_d_conv=4 mamba_expand=2
zamba2 Zamba2Config zamba2 hidden_size=2560 num_hidden_layers=54 mamba_d_state=64 mamba_d_conv=4 mamba_expand=2 mamba_ngroups=1 n_mamba_heads=8 num_attention_heads=32
"""
"""Rows of transformers' classes."""
_OTHERS = """
baichuan BaichuanConfig full hidden_size=4096 num_hidden_layers=32 num_attention_heads=32
chatglm ChatGLMConfig full num_layers=28 hidden_size=4096 kv_channels=128 num_attention_heads=32 multi_query_group_num=1
internlm2 InternLM2Config full hidden_size=4096 num_hidden_layers=32 num_attention_heads=32
nemotron-nas DeciLMConfig full hidden_size=4096 num_hidden_layers=32 num_attention_heads=32
deepseek DeepseekConfig full hidden_size=4096 num_hidden_layers=30 num_attention_heads=32
mistral-params MistralParams window
openelm OpenELMConfig full head_dim=128
qwen QWenConfig full hidden_size=4096 num_hidden_layers=32 num_attention_heads=32
"""
"""Rows of classes that models bring along in their own repositories."""
ADDED = {
    "gemma4_text": {"global_head_dim": 512},
    "gemma4_unified_text": {"global_head_dim": 512},
    "hy_v4": {"index_topk_freq": 4},
    "hy_v4_vl_text": {"index_topk_freq": 4},
    "dbrx": {"kv_n_heads": 1},
}
"""Defaults that are no attributes of a class: its `__post_init__`, or a nested class, has them."""
SPELLINGS = {
    **dict.fromkeys(("RefinedWeb", "RefinedWebModel"), "falcon"),
    "kimi_k2": "deepseek_v3",
    **dict.fromkeys(("internlm", "aquila", "Yi", "xverse", "orion"), "internlm2"),
    "deepseek_ref": "deepseek_v4",
    "mimo": "qwen2",
    "minimax_m3": "minimax_m3_vl_text",
    **dict.fromkeys(("minimax_text_01", "MiniMaxText01", "minimax_m1", "MiniMaxM1"), "minimax"),
    "step3p7_text": "step3p5",
}
"""Other names of families in published files."""
INNER = {
    "apertus1p5": "apertus1p5_text",
    "aria": "aria_text",
    "audioflamingo3": "qwen2",
    "aya_vision": "cohere2",
    "blip-2": "opt",
    "cohere2_vision": "cohere2",
    "cohere_compass": "cohere_compass_text",
    "cosmos3_edge": "cosmos3_edge_text",
    "cosmos3_omni": "qwen3_vl_text",
    "deepseek_ocr2": "deepseek_ocr2_text",
    "deepseek_vl": "llama",
    "deepseek_vl_hybrid": "llama",
    "emu3": "emu3_text_model",
    "ernie4_5_vl_moe": "ernie4_5_vl_moe_text",
    "exaone4_5": "exaone4",
    "fast_vlm": "qwen2",
    "fun_asr_nano": "qwen3",
    "fuyu": "persimmon",
    "gemma3": "gemma3_text",
    "gemma3n": "gemma3n_text",
    "gemma4": "gemma4_text",
    "gemma4_unified": "gemma4_unified_text",
    "glm46v": "glm4v_text",
    "glm4v": "glm4v_text",
    "glm4v_moe": "glm4v_moe_text",
    "glm_image": "glm_image_text",
    "glm_ocr": "glm_ocr_text",
    "glmasr": "llama",
    "glmga": "glm4v_text",
    "got_ocr2": "qwen2",
    "granite4_vision": "granite4_vision_text",
    "granite_docling": "granite_docling_text",
    "granite_speech": "granite",
    "granite_speech_plus": "granite",
    "hunyuan_vl": "hunyuan_vl_text",
    "hy_v4_vl": "hy_v4_vl_text",
    "hyperclovax_vision_v2": "hyperclovax",
    "idefics2": "mistral",
    "idefics3": "llama",
    "internvl": "qwen2",
    "janus": "llama",
    "jev": "qwen3_5_text",
    "kimi_k25": "deepseek_v3",
    "lfm2_vl": "lfm2",
    "lfm3_vl": "lfm3",
    "lighton_ocr": "qwen3",
    "llama4": "llama4_text",
    "llava": "llama",
    "llava_next": "llama",
    "llava_next_video": "llama",
    "llava_onevision": "qwen2",
    "minicpm_ocr": "qwen3_5_text",
    "minicpmv4_6": "qwen3_5_text",
    "minicpmv4_7": "qwen3_5_text",
    "minimax_m3_vl": "minimax_m3_vl_text",
    "mistral3": "mistral",
    "mistral_large4": "mistral_large4_text",
    "molmo2": "molmo2_text",
    "moss_transcribe_diarize": "qwen3",
    "muse_glimmer": "muse_glimmer_text",
    "muse_spark": "muse_spark_text",
    "musicflamingo": "qwen2",
    "nemo_speechlm": "nemotron_h",
    "nemotron_h_omni": "nemotron_h",
    "ovis2": "qwen2",
    "paddleocr_vl": "paddleocr_vl_text",
    "paligemma": "gemma",
    "perception_lm": "llama",
    "pp_chart2table": "qwen2",
    "qianfan_ocr": "qwen3",
    "qwen2_5_omni": "qwen2_5_omni_text",
    "qwen2_5_omni_thinker": "qwen2_5_omni_text",
    "qwen2_5_vl": "qwen2_5_vl_text",
    "qwen2_audio": "qwen2",
    "qwen2_vl": "qwen2_vl_text",
    "qwen3_5": "qwen3_5_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
    "qwen3_asr": "qwen3",
    "qwen3_omni_moe": "qwen3_omni_moe_text",
    "qwen3_omni_moe_thinker": "qwen3_omni_moe_text",
    "qwen3_vl": "qwen3_vl_text",
    "qwen3_vl_moe": "qwen3_vl_moe_text",
    "qwen4_exp": "qwen4_exp_text",
    "shieldgemma2": "gemma3_text",
    "smolvlm": "llama",
    "step3p7": "step3p5",
    "vibevoice": "qwen2",
    "vibevoice_asr": "qwen2",
    "video_llama_3": "qwen2",
    "video_llava": "llama",
    "vipllava": "llama",
    "voxtral": "llama",
    "voxtral_realtime": "voxtral_realtime_text",
}
"""Multimodal models, and the family of the text model inside if it doesn't name its own: the class's default."""
_WHY = {
    "it has no attention: a recurrent state and no KV cache": "mamba mamba2 falcon_mamba rwkv rwkv6 rwkv7 xlstm",
    "it is an encoder and keeps no KV cache": (
        "albert bert bert-generation big_bird camembert data2vec-text deberta deberta-v2 distilbert electra ernie "
        "megatron-bert modernbert nomic_bert rembert roberta roberta-prelayernorm roc_bert roformer xlm-roberta "
        "xlm-roberta-xl xmod"
    ),
    "it generates no text": "clip siglip siglip2 vit dinov2 dinov3_vit sam",
    "its cross-attention layers keep KV of images, as many as there are tiles": "mllama mllama_text_model",
    "it also attends to an encoder's output": (
        "blip blip_text_model evolla git idefics kosmos-2 kosmos-2.5 trocr vision-encoder-decoder speech-encoder-decoder"
    ),
    "its second half reads the KV of one layer of the first (YOCO), beside Mamba layers": "phi4flash",
    "it has an encoder, a decoder and a global model over patches of bytes": "blt",
    "its attention is by hashing (LSH)": "reformer",
    "it keeps a memory of segments and no KV cache": "xlnet xlm transfo-xl",
    "its windows have an MLA of their own": "dots3_note dots3_note_text",
    "its indexer keeps pooled keys": "glm5_next glm5_next_text",
    "its layers run several times, each with a KV cache": "dory hrm_text inkling2_loop inkling2_loop_text",
    "its layers keep states of convolutions beside the KV, whose size isn't known here": (
        "inkling_mm_model inkling_text inkling2 inkling2_text zaya"
    ),
    "its windows hold generated tokens only": "unlimited_ocr unlimited_ocr_text",
    "it generates by diffusion over blocks": "diffusion_gemma diffusion_gemma_text",
    "it drafts on another model's KV cache": "gemma4_assistant gemma4_unified_assistant",
    "it speaks: depth and codec decoders keep KV of their own": (
        "csm kyutai_speech_to_text moshi musicgen_decoder musicgen_melody_decoder"
    ),
    "it acts: an action expert reads the KV of the text model": "pi0",
}
REFUSED = {name: why for why, names in _WHY.items() for name in names.split()}
"""Families whose cache isn't planned, and why."""


@lru_cache(maxsize=1)
def families() -> dict[str, Family]:
    """Return all families by `model_type`."""
    return {
        row.model_type: row
        for text in (_TRANSFORMERS, _OTHERS)
        for line in text.strip().splitlines()
        if (row := _row(line))
    }


def published_families() -> tuple[str, ...]:
    """Return the families that transformers has no class for."""
    return tuple(line.split()[0] for line in _OTHERS.strip().splitlines())


def _row(line: str) -> Family:
    model_type, config_class, rule, *pairs = line.split()
    return Family(
        model_type, config_class, rule, {key: _value(text) for key, text in (pair.split("=") for pair in pairs)}
    )


def _value(text: str) -> int | str | bool | list[str]:
    if "," in text:
        return text.split(",")
    return int(text) if text.isdigit() else True if text == "true" else text


@lru_cache(maxsize=1)
def by_architecture() -> dict[str, str]:
    """Return the `model_type` of each model class's name without its ending: `Llama` of `LlamaForCausalLM`."""
    found: dict[str, str] = {}
    for family in families().values():
        stem = family.config_class.removesuffix("Config")
        found.setdefault(stem.removesuffix("Text"), family.model_type)
        found[stem] = family.model_type
    return found
