"""How a tiny model is described, and the settings that most of them share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

VOCABULARY = 64
TOKENS: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
# Two layers, grouped-query attention; weights of about 1 / sqrt(hidden_size), so that a norm's
# error is neither swallowed by a residual nor blown up.
DECODER: dict[str, Any] = {
    **TOKENS,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.15,
}
EXPERTS: dict[str, Any] = {**DECODER, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
SMALL: dict[str, Any] = {
    **DECODER,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
SINGLE: dict[str, Any] = {**SMALL, "num_hidden_layers": 1}
SMALL_EXPERTS: dict[str, Any] = {**SMALL, "num_experts_per_tok": 2, "moe_intermediate_size": 8}
MAMBA2: dict[str, Any] = {
    **TOKENS,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_heads": 4,
    "head_dim": 16,
    "expand": 2,
    "state_size": 8,
    "chunk_size": 4,
    "initializer_range": 0.15,
}


VISION: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
    "num_channels": 3,
    "initializer_range": 0.15,
}


@dataclass(frozen=True)
class Tiny:
    """A class of transformers, its config and the call that is exported."""

    model: str
    settings: Mapping[str, Any]
    arguments: tuple[str, ...] = ("input_ids", "attention_mask")
    result: str = "logits"
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Settings that transformers keeps out of the saved config (which code path runs)."""
    fixed: Mapping[str, Any] = field(default_factory=lambda: {"use_cache": False})
    """Arguments of the call that are the same in the counted run and in the export."""
    floats: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Arguments that are no tokens but numbers, with their shape after the batch."""
    inline: int = 0
    """RMS norms that forward spells out without a module, as read in its source."""
