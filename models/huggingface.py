"""Tiny models from transformers: real model code, random weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
import transformers

import architectures
import families
import others
from source import Inputs, Shape, Source
from tiny import VOCABULARY, Tiny
from weights import randomize_norms

MODELS: dict[str, Tiny] = {**architectures.MODELS, **families.MODELS, **others.MODELS}


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


def _draw(tiny: Tiny, dtype: torch.dtype) -> Callable[[Shape], Inputs]:
    def one(name: str, shape: Shape) -> torch.Tensor:
        if name in tiny.floats:
            return torch.randn(shape.batch, *tiny.floats[name]).to(dtype)
        size = (shape.batch, shape.sequence)
        if name == "attention_mask":
            return torch.ones(size, dtype=torch.int64)
        return torch.randint(3, VOCABULARY, size)

    return lambda shape: {name: one(name, shape) for name in tiny.arguments}


def _varying(argument: str, tiny: Tiny) -> dict[int, str]:
    """Numbers vary in their batch only."""
    if argument in tiny.floats:
        return {0: "batch"}
    encoded = "decoder_input_ids" not in tiny.arguments or not argument.startswith("decoder")
    return {0: "batch", 1: "sequence" if encoded else "decoder_sequence"}


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
    return Source(
        label=f"transformers.{tiny.model}",
        config={**tiny.settings, **tiny.extra},
        module=_OneTensor(model, tiny).eval(),
        draw=_draw(tiny, dtype),
        dynamic={argument: _varying(argument, tiny) for argument in tiny.arguments},
        outputs=(tiny.result,),
        variadic=True,
        inline=tiny.inline,
    )
