"""Tiny models from transformers: real model code, random weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers

from source import Inputs, Shape, Source
from weights import randomize_norms

_VOCABULARY = 64
_TOKENS: dict[str, Any] = {
    "vocab_size": _VOCABULARY,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
# Two layers, grouped-query attention; weights of about 1 / sqrt(hidden_size), so that a norm's
# error is neither swallowed by a residual nor blown up.
_DECODER: dict[str, Any] = {
    **_TOKENS,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.15,
}
_EXPERTS: dict[str, Any] = {**_DECODER, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
_MAMBA2: dict[str, Any] = {
    **_TOKENS,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_heads": 4,
    "head_dim": 16,
    "expand": 2,
    "state_size": 8,
    "chunk_size": 4,
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


MODELS: dict[str, Tiny] = {
    "llama": Tiny("LlamaForCausalLM", _DECODER),
    "phi3": Tiny("Phi3ForCausalLM", _DECODER),
    "olmo2": Tiny("Olmo2ForCausalLM", _DECODER),
    "qwen3": Tiny("Qwen3ForCausalLM", {**_DECODER, "head_dim": 8}),
    "gemma3": Tiny(
        "Gemma3ForCausalLM",
        {
            **_DECODER,
            "head_dim": 8,
            "query_pre_attn_scalar": 8,
            "sliding_window": 4,
            "layer_types": ["sliding_attention", "full_attention"],
        },
    ),
    "mixtral": Tiny(
        "MixtralForCausalLM",
        {**_DECODER, "num_local_experts": 4, "num_experts_per_tok": 2},
        extra={"experts_implementation": "batched_mm"},
    ),
    "qwen3-moe": Tiny(
        "Qwen3MoeForCausalLM",
        {**_EXPERTS, "head_dim": 8, "num_experts": 4},
        extra={"experts_implementation": "batched_mm"},
    ),
    "deepseek-v3": Tiny(
        "DeepseekV3ForCausalLM",
        {
            **_EXPERTS,
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
    "mamba2": Tiny("Mamba2ForCausalLM", {**_MAMBA2, "n_groups": 1}, ("input_ids",)),
    "mamba2-groups": Tiny("Mamba2ForCausalLM", {**_MAMBA2, "n_groups": 2}, ("input_ids",)),
    "qwen3-next": Tiny(
        "Qwen3NextForCausalLM",
        {
            **_EXPERTS,
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
            **_TOKENS,
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
            **_TOKENS,
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


class _OneTensor(torch.nn.Module):
    """The model with positional arguments and one tensor as result, without a cache."""

    def __init__(self, model: torch.nn.Module, tiny: Tiny) -> None:
        super().__init__()
        self.model = model
        self._arguments = tiny.arguments
        self._result = tiny.result
        self._fixed = dict(tiny.fixed)

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        """The model's main result for these tensors."""
        named = dict(zip(self._arguments, tensors, strict=True))
        return getattr(self.model(**named, **self._fixed), self._result)


def _draw(arguments: tuple[str, ...]) -> Callable[[Shape], Inputs]:
    def draw(shape: Shape) -> Inputs:
        size = (shape.batch, shape.sequence)
        return {
            name: torch.ones(size, dtype=torch.int64)
            if name == "attention_mask"
            else torch.randint(3, _VOCABULARY, size)
            for name in arguments
        }

    return draw


def build(name: str, dtype: torch.dtype) -> Source:
    """The model of this name in this dtype, in evaluation mode."""
    tiny = MODELS[name]
    model_class = getattr(transformers, tiny.model)
    config = model_class.config_class(**tiny.settings)
    config._attn_implementation = "eager"
    for key, value in tiny.extra.items():
        setattr(config, f"_{key}", value)
    model = model_class(config)
    randomize_norms(model)
    model.to(dtype).eval()
    sequence = "decoder_sequence" if "decoder_input_ids" in tiny.arguments else "sequence"
    return Source(
        label=f"transformers.{tiny.model}",
        config={**tiny.settings, **tiny.extra},
        module=_OneTensor(model, tiny).eval(),
        draw=_draw(tiny.arguments),
        dynamic={
            argument: {0: "batch", 1: sequence if argument.startswith("decoder") else "sequence"}
            for argument in tiny.arguments
        },
        outputs=(tiny.result,),
        variadic=True,
    )
