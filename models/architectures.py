"""The families that are exported in several ways: decoders, mixtures of experts, Mamba 2, T5."""

from __future__ import annotations

from tiny import DECODER, EXPERTS, MAMBA2, TOKENS, Tiny

MODELS: dict[str, Tiny] = {
    "llama": Tiny("LlamaForCausalLM", DECODER),
    "phi3": Tiny("Phi3ForCausalLM", DECODER),
    "olmo2": Tiny("Olmo2ForCausalLM", DECODER),
    "qwen3": Tiny("Qwen3ForCausalLM", {**DECODER, "head_dim": 8}),
    "gemma3": Tiny(
        "Gemma3ForCausalLM",
        {
            **DECODER,
            "head_dim": 8,
            "query_pre_attn_scalar": 8,
            "sliding_window": 4,
            "layer_types": ["sliding_attention", "full_attention"],
        },
    ),
    "mixtral": Tiny(
        "MixtralForCausalLM",
        {**DECODER, "num_local_experts": 4, "num_experts_per_tok": 2},
        extra={"experts_implementation": "batched_mm"},
    ),
    "qwen3-moe": Tiny(
        "Qwen3MoeForCausalLM",
        {**EXPERTS, "head_dim": 8, "num_experts": 4},
        extra={"experts_implementation": "batched_mm"},
    ),
    "deepseek-v3": Tiny(
        "DeepseekV3ForCausalLM",
        {
            **EXPERTS,
            "num_key_value_heads": 4,
            "n_routed_experts": 4,
            "n_shared_experts": 1,
            "n_group": 2,
            "topk_group": 1,
            "first_k_dense_replace": 1,
            "q_lora_rank": 16,
            "kv_lora_rank": 16,
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 8,
            "v_head_dim": 8,
        },
        extra={"experts_implementation": "batched_mm"},
    ),
    "mamba2": Tiny("Mamba2ForCausalLM", {**MAMBA2, "n_groups": 1}, ("input_ids",)),
    "mamba2-groups": Tiny("Mamba2ForCausalLM", {**MAMBA2, "n_groups": 2}, ("input_ids",)),
    "qwen3-next": Tiny(
        "Qwen3NextForCausalLM",
        {
            **EXPERTS,
            "head_dim": 8,
            "num_experts": 4,
            "shared_expert_intermediate_size": 16,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "linear_conv_kernel_dim": 4,
            "layer_types": ["linear_attention", "full_attention"],
        },
        extra={"experts_implementation": "batched_mm"},
        # The exporter unrolls one step per token of a chunk; with 64 the graph takes megabytes.
        fixed={"use_cache": False, "chunk_size": 4},
    ),
    "t5-encoder": Tiny(
        "T5EncoderModel",
        {
            **TOKENS,
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 48,
            "num_layers": 2,
            "num_heads": 4,
            "feed_forward_proj": "gated-gelu",
        },
        result="last_hidden_state",
        fixed={},
    ),
    "t5": Tiny(
        "T5ForConditionalGeneration",
        {
            **TOKENS,
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 48,
            "num_layers": 1,
            "num_decoder_layers": 2,
            "num_heads": 4,
            "decoder_start_token_id": 0,
        },
        arguments=("input_ids", "attention_mask", "decoder_input_ids"),
    ),
}
