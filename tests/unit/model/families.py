"""Two-layer random models of each family of architectures."""

from pathlib import Path

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

# Small sizes; where an architecture lacks a key, it ignores it.
SMALL = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
}
EXPERTS = {"moe_intermediate_size": 48, "num_experts_per_tok": 2}
STATE = {"mamba_d_state": 16, "mamba_n_heads": 8, "mamba_d_head": 16, "mamba_n_groups": 1, "mamba_d_conv": 4}
LATENT = EXPERTS | {
    "n_routed_experts": 4,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    "n_group": 1,
    "topk_group": 1,
    "head_dim": 8,
    "num_key_value_heads": 4,
}
SLIDING = ["sliding_attention", "full_attention"]
# Row of the page: model_type, and what its config needs beside SMALL.
FAMILIES = {
    "Qwen2, Qwen2.5": ("qwen2", {}),
    "Qwen3": ("qwen3", {}),
    "Qwen3-MoE": ("qwen3_moe", EXPERTS | {"num_experts": 4}),
    "Qwen3-Next": (
        "qwen3_next",
        EXPERTS
        | {
            "num_experts": 4,
            "shared_expert_intermediate_size": 48,
            "layer_types": ["linear_attention", "full_attention"],
            "linear_num_value_heads": 4,
            "linear_num_key_heads": 2,
            "linear_key_head_dim": 16,
            "linear_value_head_dim": 16,
        },
    ),
    "Qwen3.5": (
        "qwen3_5_text",
        {
            "layer_types": ["linear_attention", "full_attention"],
            "linear_num_value_heads": 4,
            "linear_num_key_heads": 2,
            "linear_key_head_dim": 16,
            "linear_value_head_dim": 16,
        },
    ),
    "Llama 2, 3": ("llama", {}),
    "Llama 4 (text)": (
        "llama4_text",
        {
            "num_local_experts": 2,
            "attention_chunk_size": 48,
            "intermediate_size_mlp": 96,
            "layer_types": ["chunked_attention", "full_attention"],
        },
    ),
    "Mistral": ("mistral", {"sliding_window": 48}),
    "Ministral 3": ("ministral3", {}),
    "Mixtral": ("mixtral", {"num_local_experts": 4}),
    "Gemma": ("gemma", {}),
    "Gemma 2": ("gemma2", {"sliding_window": 48, "layer_types": SLIDING}),
    "Gemma 3": ("gemma3_text", {"sliding_window": 48, "layer_types": SLIDING}),
    "Gemma 3n": (
        "gemma3n_text",
        {
            "sliding_window": 48,
            "layer_types": SLIDING,
            "vocab_size_per_layer_input": 1500,
            "hidden_size_per_layer_input": 16,
            "num_kv_shared_layers": 0,
            "laurel_rank": 8,
            "activation_sparsity_pattern": [0.0, 0.0],
        },
    ),
    "Gemma 4": (
        "gemma4_text",
        {
            "sliding_window": 48,
            "layer_types": SLIDING,
            "vocab_size_per_layer_input": 1500,
            "hidden_size_per_layer_input": 16,
            "num_kv_shared_layers": 0,
            "global_head_dim": 32,
        },
    ),
    "Phi-3, Phi-4": ("phi3", {"sliding_window": 48}),
    "PhiMoE": ("phimoe", {"num_local_experts": 4}),
    "GLM-4": ("glm4", {}),
    "GLM-4-MoE": (
        "glm4_moe",
        EXPERTS | {"n_routed_experts": 4, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1},
    ),
    "DeepSeek-V2": ("deepseek_v2", LATENT),
    "DeepSeek-V3": ("deepseek_v3", LATENT),
    "gpt-oss": ("gpt_oss", {"num_local_experts": 4, "sliding_window": 48, "layer_types": SLIDING}),
    "Granite": ("granite", {}),
    "Granite-MoE": ("granitemoe", {"num_local_experts": 4}),
    "Granite 4 (hybrid)": (
        "granitemoehybrid",
        STATE | {"layer_types": ["mamba", "attention"], "num_local_experts": 4, "shared_intermediate_size": 96},
    ),
    "LFM2": ("lfm2", {"layer_types": ["conv", "full_attention"]}),
    "Falcon": ("falcon", {"head_dim": None}),
    "Falcon (alibi)": ("falcon", {"head_dim": None, "alibi": True}),
    "Falcon-H1": ("falcon_h1", STATE | {"mamba_d_ssm": 128}),
    "Falcon-Mamba": ("falcon_mamba", {"state_size": 8}),
    "BLOOM": ("bloom", {"n_layer": 2, "n_head": 4}),
    "GPT-2": ("gpt2", {"n_embd": 64, "n_layer": 2, "n_head": 4}),
    "GPT-NeoX, Pythia": ("gpt_neox", {}),
    "OPT": ("opt", {"ffn_dim": 96, "word_embed_proj_dim": 64}),
    "OLMo": ("olmo", {}),
    "OLMo 2": ("olmo2", {}),
    "OLMo 3": ("olmo3", {"sliding_window": 48, "layer_types": SLIDING}),
    "OLMoE": ("olmoe", {"num_experts": 4, "num_experts_per_tok": 2}),
    "SmolLM3": ("smollm3", {"no_rope_layers": [1, 0]}),
    "ERNIE 4.5": ("ernie4_5", {}),
    "ERNIE 4.5 MoE": ("ernie4_5_moe", {"moe_intermediate_size": 48, "moe_num_experts": 4, "moe_k": 2}),
    "HunYuan (dense)": ("hunyuan_v1_dense", {}),
    "HunYuan (MoE)": ("hunyuan_v1_moe", {"num_experts": 4, "moe_topk": 2}),
    "Cohere": ("cohere", {}),
    "Cohere 2": ("cohere2", {"sliding_window": 48, "layer_types": SLIDING}),
    "StarCoder 2": ("starcoder2", {"sliding_window": 48}),
    "Bamba": ("bamba", STATE | {"attn_layer_indices": [1]}),
    "Mamba 2": ("mamba2", {"state_size": 16, "num_heads": 8, "head_dim": 16, "n_groups": 1}),
    "Jamba": (
        "jamba",
        {
            "attn_layer_offset": 1,
            "attn_layer_period": 2,
            "expert_layer_offset": 1,
            "expert_layer_period": 2,
            "num_experts": 4,
            "mamba_d_state": 8,
            "use_mamba_kernels": False,
        },
    ),
    "Nemotron": ("nemotron", {}),
    "InternLM 3": ("internlm3", {}),
    "MiniCPM 3": (
        "minicpm3",
        {
            "num_key_value_heads": 4,
            "q_lora_rank": 16,
            "kv_lora_rank": 16,
            "qk_nope_head_dim": 16,
            "qk_rope_head_dim": 8,
            "v_head_dim": 16,
            "head_dim": None,
        },
    ),
    "Seed-OSS": ("seed_oss", {}),
    "EXAONE 4": ("exaone4", {"sliding_window": 48, "layer_types": SLIDING}),
    "Apertus": ("apertus", {}),
    "StableLM": ("stablelm", {}),
    "MPT": ("mpt", {"d_model": 64, "n_heads": 4, "n_layers": 2}),
    "RecurrentGemma": (
        "recurrent_gemma",
        {"lru_width": 64, "block_types": ["recurrent", "attention"], "attention_window_size": 48},
    ),
    "RWKV": ("rwkv", {"attention_hidden_size": 64}),
    "MiniMax": ("minimax", {"num_local_experts": 4, "layer_types": ["linear_attention", "full_attention"]}),
}
FAST = ("Qwen2, Qwen2.5", "Mixtral", "Gemma 2", "Gemma 3", "Qwen3.5", "GPT-2", "Mamba 2")  # the others are slow tests


def tiny(family: str, tokenizer, folder: Path) -> Path:
    """A folder with a random model; its weights are four times those of an untrained one, so that attention attends."""
    kind, needed = FAMILIES[family]
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    settings = SMALL | {"vocab_size": len(tokenizer)} | needed
    config = CONFIG_MAPPING[kind](**ids, **{key: value for key, value in settings.items() if value is not None})
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.mul_(4)
    model.save_pretrained(folder)
    return folder
