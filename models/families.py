"""More families with RMS norms: one or two exports each."""

from __future__ import annotations

from typing import Any

from tiny import SINGLE, SMALL, SMALL_EXPERTS, TOKENS, VISION, Tiny

_T5: dict[str, Any] = {
    **TOKENS,
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 24,
    "num_layers": 1,
    "num_decoder_layers": 1,
    "num_heads": 2,
    "decoder_start_token_id": 0,
}
_PLAIN_EXPERTS = {"experts_implementation": "batched_mm"}
_HYBRID: dict[str, Any] = {
    **SMALL,
    "mamba_d_state": 8,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
    "use_mamba_kernels": False,
}
_SEQ2SEQ = ("input_ids", "attention_mask", "decoder_input_ids")

MODELS: dict[str, Tiny] = {
    "mistral": Tiny("MistralForCausalLM", {**SINGLE, "head_dim": 8, "sliding_window": 4}),
    "gemma": Tiny("GemmaForCausalLM", {**SINGLE, "head_dim": 8}),
    "gemma2": Tiny(
        "Gemma2ForCausalLM",
        {
            **SMALL,
            "head_dim": 8,
            "query_pre_attn_scalar": 8,
            "sliding_window": 4,
            "layer_types": ["sliding_attention", "full_attention"],
        },
    ),
    "gemma3n": Tiny(
        "Gemma3nForCausalLM",
        {
            **SMALL,
            "head_dim": 8,
            "num_hidden_layers": 2,
            "sliding_window": 4,
            "layer_types": ["sliding_attention", "full_attention"],
            "vocab_size_per_layer_input": 64,
            "hidden_size_per_layer_input": 8,
            "laurel_rank": 4,
            "altup_num_inputs": 2,
            "num_kv_shared_layers": 0,
            "activation_sparsity_pattern": [0.0, 0.0],
            "intermediate_size": [24, 24],
        },
        inline=2,  # AltUp gives its second stream the first one's magnitude, at both ends
    ),
    "vaultgemma": Tiny(
        "VaultGemmaForCausalLM",
        {
            **SINGLE,
            "head_dim": 8,
            "query_pre_attn_scalar": 8,
            "sliding_window": 4,
            "layer_types": ["sliding_attention"],
        },
    ),
    "qwen2": Tiny("Qwen2ForCausalLM", SINGLE),
    "qwen2-moe": Tiny(
        "Qwen2MoeForCausalLM",
        {**SMALL_EXPERTS, "num_experts": 4, "shared_expert_intermediate_size": 16},
        extra=_PLAIN_EXPERTS,
    ),
    "glm4": Tiny("Glm4ForCausalLM", {**SINGLE, "head_dim": 8}),
    "granite": Tiny(
        "GraniteForCausalLM",
        {**SMALL, "embedding_multiplier": 2.0, "residual_multiplier": 0.5, "logits_scaling": 2.0},
    ),
    "smollm3": Tiny("SmolLM3ForCausalLM", {**SINGLE, "no_rope_layers": [0]}),
    "minimax": Tiny(
        "MiniMaxForCausalLM",
        {
            **SMALL,
            "head_dim": 8,
            "block_size": 4,
            "num_local_experts": 2,
            "num_experts_per_tok": 1,
            "layer_types": ["linear_attention", "full_attention"],
        },
        extra=_PLAIN_EXPERTS,
    ),
    "minimax-m2": Tiny(
        "MiniMaxM2ForCausalLM",
        {**SINGLE, "head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 1},
        extra=_PLAIN_EXPERTS,
    ),
    "gpt-oss": Tiny(
        "GptOssForCausalLM",
        {
            **SINGLE,
            "head_dim": 8,
            "num_local_experts": 2,
            "num_experts_per_tok": 1,
            "sliding_window": 4,
            "layer_types": ["sliding_attention"],
        },
        extra=_PLAIN_EXPERTS,
    ),
    "olmo3": Tiny("Olmo3ForCausalLM", {**SINGLE, "sliding_window": 4}),
    "olmoe": Tiny(
        "OlmoeForCausalLM",
        {**SINGLE, "num_experts": 2, "num_experts_per_tok": 1},
        extra=_PLAIN_EXPERTS,
    ),
    "exaone4": Tiny("Exaone4ForCausalLM", {**SINGLE, "sliding_window": 4}),
    "helium": Tiny("HeliumForCausalLM", {**SINGLE, "head_dim": 8}),
    "bitnet": Tiny("BitNetForCausalLM", SINGLE),
    "diffllama": Tiny("DiffLlamaForCausalLM", {**SINGLE, "num_key_value_heads": 2}),
    "doge": Tiny("DogeForCausalLM", SINGLE),
    "apertus": Tiny("ApertusForCausalLM", SINGLE),
    "hunyuan": Tiny("HunYuanDenseV1ForCausalLM", {**SINGLE, "head_dim": 8}),
    "lfm2": Tiny(
        "Lfm2ForCausalLM",
        {**SMALL, "layer_types": ["conv", "full_attention"], "conv_L_cache": 3}
        | {"block_auto_adjust_ff_dim": False},
    ),
    "jamba": Tiny(
        "JambaForCausalLM",
        {
            **_HYBRID,
            "mamba_dt_rank": 4,
            "num_experts": 2,
            "num_experts_per_tok": 1,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "expert_layer_period": 2,
            "expert_layer_offset": 1,
        },
        extra=_PLAIN_EXPERTS,
    ),
    "bamba": Tiny(
        "BambaForCausalLM",
        {
            **_HYBRID,
            "mamba_n_heads": 4,
            "mamba_d_head": 8,
            "mamba_n_groups": 1,
            "mamba_chunk_size": 4,
            "attn_layer_indices": [1],
        },
    ),
    "nemotron-h": Tiny(
        "NemotronHForCausalLM",
        {
            **SMALL,
            "head_dim": 8,
            "layers_block_type": ["mamba", "attention", "mlp"],
            "num_hidden_layers": 3,
            "mamba_num_heads": 4,
            "mamba_head_dim": 8,
            "ssm_state_size": 8,
            "n_groups": 2,
            "chunk_size": 4,
        },
    ),
    "mamba": Tiny(
        "MambaForCausalLM",
        {
            **TOKENS,
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "state_size": 8,
            "time_step_rank": 4,
            "initializer_range": 0.15,
        },
        ("input_ids",),
    ),
    "mt5": Tiny(
        "MT5ForConditionalGeneration", {**_T5, "feed_forward_proj": "gated-gelu"}, _SEQ2SEQ
    ),
    "umt5-encoder": Tiny(
        "UMT5EncoderModel",
        {**_T5, "feed_forward_proj": "gated-gelu"},
        result="last_hidden_state",
        fixed={},
    ),
    "mllama-text": Tiny(
        "MllamaForCausalLM", {**SINGLE, "cross_attention_layers": [], "rope_parameters": None}
    ),
    "eurobert": Tiny("EuroBertModel", SINGLE, result="last_hidden_state", fixed={}),
    "pixtral-vision": Tiny(
        "PixtralVisionModel",
        VISION,
        ("pixel_values",),
        "last_hidden_state",
        fixed={},
        floats={"pixel_values": (3, 16, 16)},
    ),
    "aimv2-vision": Tiny(
        "Aimv2VisionModel",
        VISION,
        ("pixel_values",),
        "last_hidden_state",
        fixed={},
        floats={"pixel_values": (3, 16, 16)},
    ),
    "internvl-vision": Tiny(
        "InternVLVisionModel",
        {**VISION, "image_size": [16, 16], "patch_size": [4, 4], "norm_type": "rms_norm"}
        | {"use_qk_norm": True},
        ("pixel_values",),
        "last_hidden_state",
        fixed={},
        floats={"pixel_values": (3, 16, 16)},
    ),
}
