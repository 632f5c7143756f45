"""Families of models that are taught facts in benchmarks/architectures.py, and those that are refused."""

from __future__ import annotations

from typing import Any

Recipe = tuple[str, dict[str, Any]]
"""A model type of transformers, and what its configuration needs besides :data:`SIZE`."""

SIZE = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3}
ATTENTION = {"num_attention_heads": 4, "num_key_value_heads": 2}
TOKENS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "max_position_embeddings": 128}
HEADS = {"head_dim": 32}
LOCAL = {"sliding_window": 8}
PER_LAYER = {**HEADS, **LOCAL, "global_head_dim": 32, "vocab_size_per_layer_input": 128}
LATENT = {
    "q_lora_rank": 64, "kv_lora_rank": 64, "qk_nope_head_dim": 32, "qk_rope_head_dim": 16, "v_head_dim": 32,
    "num_key_value_heads": 4,
}  # fmt: skip
EXPERTS = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}

DENSE: dict[str, Recipe] = {
    "GPT": ("openai-gpt", {}),
    "GPT-2": ("gpt2", {"n_inner": 256}),
    "GPT-2, untied head": ("gpt2", {"n_inner": 256, "tie_word_embeddings": False}),
    "GPT-Neo": ("gpt_neo", {"attention_types": [[["global", "local", "global"], 1]], "window_size": 16}),
    "GPT-J": ("gptj", {"rotary_dim": 16}),
    "GPT-NeoX": ("gpt_neox", {}),
    "GPT-NeoX, sequential": ("gpt_neox", {"use_parallel_residual": False}),
    "GPT-NeoX Japanese": ("gpt_neox_japanese", {"intermediate_multiple_size": 2}),
    "GPTBigCode": ("gpt_bigcode", {"n_inner": 256}),
    "CodeGen": ("codegen", {"rotary_dim": 16}),
    "CTRL": ("ctrl", {"dff": 256}),
    "XGLM": ("xglm", {"ffn_dim": 256}),
    "BLOOM": ("bloom", {}),
    "MPT": ("mpt", {"expansion_ratio": 2}),
    "Falcon": ("falcon", {"ffn_hidden_size": 256}),
    "Falcon, sequential, ALiBi": ("falcon", {"ffn_hidden_size": 256, "alibi": True, "parallel_attn": False}),
    "Falcon, new decoder": ("falcon", {"ffn_hidden_size": 256, "new_decoder_architecture": True, "num_kv_heads": 2}),
    "BioGPT": ("biogpt", {}),
    "OPT": ("opt", {"ffn_dim": 256, "word_embed_proj_dim": 128}),
    "OPT, narrow embeddings": ("opt", {"ffn_dim": 256, "word_embed_proj_dim": 64}),
    "OPT, norm after": ("opt", {"ffn_dim": 256, "word_embed_proj_dim": 128, "do_layer_norm_before": False}),
    "BERT as decoder": ("bert", {"is_decoder": True}),
    "BART's decoder": ("bart", {"decoder_layers": 3, "decoder_ffn_dim": 256, "decoder_attention_heads": 4}),
    "Llama": ("llama", {}),
    "Llama, MLP as wide as the model": ("llama", {"intermediate_size": 128}),
    "Llama, MLP narrower than the model": ("llama", {"intermediate_size": 96}),
    "Mistral": ("mistral", LOCAL),
    "Ministral": ("ministral", {**HEADS, **LOCAL}),
    "Qwen2": ("qwen2", {}),
    "Qwen3": ("qwen3", HEADS),
    "Gemma": ("gemma", HEADS),
    "Gemma 2": ("gemma2", {**HEADS, **LOCAL}),
    "Gemma 3": ("gemma3_text", {**HEADS, **LOCAL}),
    "Gemma 4": ("gemma4_text", {**PER_LAYER, "hidden_size_per_layer_input": 16}),
    "VaultGemma": ("vaultgemma", {**HEADS, **LOCAL}),
    "Phi": ("phi", {}),
    "Phi-3": ("phi3", {}),
    "OLMo": ("olmo", {}),
    "OLMo 2": ("olmo2", {}),
    "OLMo 3": ("olmo3", LOCAL),
    "StableLM": ("stablelm", {}),
    "StableLM, parallel": ("stablelm", {"use_parallel_residual": True}),
    "SmolLM3": ("smollm3", {}),
    "Granite": ("granite", {"attention_multiplier": 0.18}),
    "Cohere": ("cohere", {}),
    "Cohere 2": ("cohere2", LOCAL),
    "Starcoder2": ("starcoder2", {}),
    "Nemotron": ("nemotron", {}),
    "GLM": ("glm", HEADS),
    "GLM-4": ("glm4", HEADS),
    "ERNIE 4.5": ("ernie4_5", HEADS),
    "Helium": ("helium", HEADS),
    "EXAONE 4": ("exaone4", LOCAL),
    "Persimmon": ("persimmon", {}),
    "Apertus": ("apertus", {}),
    "Arcee": ("arcee", {}),
    "BitNet": ("bitnet", {}),
    "DiffLlama": ("diffllama", {}),
    "Doge": ("doge", {}),
    "Hunyuan": ("hunyuan_v1_dense", HEADS),
    "Jais 2": ("jais2", {}),
    "ModernBERT decoder": ("modernbert-decoder", LOCAL),
    "nanochat": ("nanochat", {}),
    "Seed-OSS": ("seed_oss", HEADS),
    "LFM2, attention only": ("lfm2", {"layer_types": ["full_attention"] * 3, "block_auto_adjust_ff_dim": False}),
    "MiniCPM3 (latent attention)": ("minicpm3", LATENT),
    "Youtu (latent attention)": ("youtu", LATENT),
    "DeepSeek-V3, dense blocks only": ("deepseek_v3", {**LATENT, "first_k_dense_replace": 3}),
}

REFUSED: dict[str, dict[str, Recipe]] = {
    "a mixture of experts": {
        "Mixtral": ("mixtral", EXPERTS),
        "Qwen2-MoE": ("qwen2_moe", {**EXPERTS, "shared_expert_intermediate_size": 32}),
        "Qwen3-MoE": ("qwen3_moe", EXPERTS),
        "OLMoE": ("olmoe", EXPERTS),
        "GPT-OSS": ("gpt_oss", EXPERTS),
        "Granite MoE": ("granitemoe", EXPERTS),
        "JetMoE": ("jetmoe", EXPERTS),
        "PhiMoE": ("phimoe", EXPERTS),
        "DeepSeek-V3": ("deepseek_v3", {**LATENT, "first_k_dense_replace": 1, "n_routed_experts": 8, "n_group": 2}),
    },
    "expected attention in every block": {
        "Mamba": ("mamba", {}),
        "Mamba 2": ("mamba2", {"num_heads": 4, "head_dim": 64}),
        "Falcon Mamba": ("falcon_mamba", {}),
        "xLSTM": ("xlstm", {}),
        "Jamba": ("jamba", {"num_experts": 2}),
        "Bamba": ("bamba", {}),
        "RecurrentGemma": ("recurrent_gemma", {}),
        "LFM2": ("lfm2", {"layer_types": ["conv", "full_attention", "conv"]}),
        "Qwen3.5": ("qwen3_5_text", {}),
        "XLM": ("xlm", {"emb_dim": 128}),
    },
    "and nothing else": {
        "Falcon-H1": ("falcon_h1", {"mamba_d_ssm": 128, "mamba_n_heads": 4, "mamba_d_head": 32}),
        "RWKV": ("rwkv", {"intermediate_size": 512}),
    },
    "projections back to width": {
        "Gemma 4, wide per-layer inputs": ("gemma4_text", {**PER_LAYER, "hidden_size_per_layer_input": 128}),
    },
    "expected a causal model": {
        "BERT": ("bert", {}),
        "RoFormer": ("roformer", {}),
        "CPM-Ant": ("cpmant", {"dim_ff": 256, "dim_head": 32, "prompt_types": 4, "prompt_length": 4}),
    },
}
"""By what the error says."""
