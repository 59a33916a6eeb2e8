"""Models of transformers that hold no RMS norm, but much that looks like one."""

from __future__ import annotations

from tiny import SINGLE, TOKENS, VISION, Tiny

_PIXELS: dict[str, tuple[int, ...]] = {"pixel_values": (3, 16, 16)}

MODELS: dict[str, Tiny] = {
    "starcoder2": Tiny("Starcoder2ForCausalLM", SINGLE),
    "cohere": Tiny("CohereForCausalLM", {**SINGLE, "use_qk_norm": True}),
    "olmo": Tiny("OlmoForCausalLM", SINGLE),
    "nemotron": Tiny("NemotronForCausalLM", {**SINGLE, "head_dim": 8}),
    "persimmon": Tiny("PersimmonForCausalLM", {**SINGLE, "num_key_value_heads": 2}),
    "gpt2": Tiny(
        "GPT2LMHeadModel",
        {**TOKENS, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 16},
    ),
    "whisper": Tiny(
        "WhisperModel",
        {
            **TOKENS,
            "d_model": 16,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 24,
            "decoder_ffn_dim": 24,
            "num_mel_bins": 8,
            "max_source_positions": 12,
            "max_target_positions": 16,
            "decoder_start_token_id": 1,
        },
        ("input_features", "decoder_input_ids"),
        "last_hidden_state",
        floats={"input_features": (8, 24)},
    ),
    "wav2vec2": Tiny(
        "Wav2Vec2Model",
        {
            **{k: v for k, v in SINGLE.items() if k != "num_key_value_heads"},
            "conv_dim": [16, 16],
            "conv_stride": [5, 4],
            "conv_kernel": [10, 8],
            "num_feat_extract_layers": 2,
            "num_conv_pos_embeddings": 8,
            "num_conv_pos_embedding_groups": 2,
        },
        ("input_values",),
        "last_hidden_state",
        fixed={},
        floats={"input_values": (400,)},
    ),
    "swinv2": Tiny(
        "Swinv2Model",
        {
            "image_size": 16,
            "patch_size": 2,
            "embed_dim": 16,
            "depths": [2],
            "num_heads": [2],
            "window_size": 2,
        },
        ("pixel_values",),
        "last_hidden_state",
        fixed={},
        floats=_PIXELS,
    ),
    "convnextv2": Tiny(
        "ConvNextV2Model",
        {"patch_size": 2, "num_stages": 2, "hidden_sizes": [8, 16], "depths": [1, 1]},
        ("pixel_values",),
        "last_hidden_state",
        fixed={},
        floats=_PIXELS,
    ),
    "siglip-vision": Tiny(
        "SiglipVisionModel", VISION, ("pixel_values",), "last_hidden_state", {}, {}, _PIXELS
    ),
}
