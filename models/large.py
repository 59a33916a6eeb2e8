"""Exports decoders of realistic size, for docs/benchmarks.md: python models/large.py FOLDER.

Code of transformers, random weights, today's exporter of torch, free batch and sequence; 0.1 to 0.5
billion parameters in float32.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers

_COMMON: dict[str, Any] = {
    "vocab_size": 32000,
    "max_position_embeddings": 2048,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": True,
}
_DEEP: dict[str, Any] = {"hidden_size": 1024, "num_attention_heads": 16}
# The sizes of Qwen3-0.6B and Gemma3-270M, but for the vocabulary.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": (
        "LlamaForCausalLM",
        {**_DEEP, "intermediate_size": 2816, "num_hidden_layers": 24, "num_key_value_heads": 4},
    ),
    "qwen3": (
        "Qwen3ForCausalLM",
        {
            **_DEEP,
            "intermediate_size": 3072,
            "num_hidden_layers": 28,
            "num_key_value_heads": 8,
            "head_dim": 128,
        },
    ),
    "gemma3": (
        "Gemma3ForCausalLM",
        {
            "hidden_size": 640,
            "intermediate_size": 2048,
            "num_hidden_layers": 18,
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
            "head_dim": 256,
        },
    ),
}


class _Logits(torch.nn.Module):
    """The model without a cache, one tensor as result."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self._model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Logits of every position."""
        return self._model(
            input_ids=input_ids, attention_mask=attention_mask, use_cache=False
        ).logits


def export(name: str, folder: Path) -> Path:
    """Write the model and its weights to FOLDER/NAME.onnx; returns that path."""
    torch.manual_seed(0)
    model_class, settings = MODELS[name]
    model = getattr(transformers, model_class)
    module = _Logits(model(model.config_class(**_COMMON, **settings)).eval())
    ids = torch.randint(3, _COMMON["vocab_size"], (2, 12))
    # One name for both inputs' axes, so that a benchmark sets two dimensions.
    axes = {
        0: torch.export.Dim("batch", min=1, max=64),
        1: torch.export.Dim("sequence", min=1, max=2048),
    }
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            (ids, torch.ones_like(ids)),
            input_names=["input_ids", "attention_mask"],
            output_names=["logits"],
            opset_version=18,
            dynamic_shapes=(axes, axes),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.onnx"
    program.save(str(path), external_data=True)
    return path


if __name__ == "__main__":
    for wanted in sys.argv[2:] or MODELS:
        print(export(wanted, Path(sys.argv[1])))
