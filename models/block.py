"""A small module around one kind of norm, with its inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from source import Inputs, Shape, Source
from weights import randomize_norms

WIDTH = 32
CHANNELS = 8
SIDE = 4
LAST: Mapping[str, Any] = {"width": WIDTH}
NCHW: Mapping[str, Any] = {"channels": CHANNELS, "height": SIDE, "width": SIDE}


@dataclass(frozen=True)
class Block:
    """A block, how it is described, and its inputs besides x."""

    label: str
    config: Mapping[str, Any]
    make: Callable[[], nn.Module]
    image: bool = False
    control: torch.Tensor | None = None
    width: int = WIDTH


def build(block: Block, dtype: torch.dtype) -> Source:
    """The block in this dtype, in evaluation mode."""
    module = block.make()
    randomize_norms(module)
    module.to(dtype).eval()

    def draw(shape: Shape) -> Inputs:
        size: tuple[int, ...] = (shape.batch, shape.sequence, block.width)
        if block.image:
            size = (shape.batch, CHANNELS, SIDE, SIDE)
        inputs = {"x": torch.randn(size).to(dtype)}
        return inputs if block.control is None else {**inputs, "control": block.control}

    varies = {0: "batch"} if block.image else {0: "batch", 1: "sequence"}
    dynamic: dict[str, dict[int, str]] = {"x": varies}
    if block.control is not None:
        dynamic["control"] = {}
    return Source(block.label, block.config, module, draw, dynamic)
