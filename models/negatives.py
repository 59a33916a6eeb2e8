"""Blocks that hold no RMS norm, but a normalization that shares nodes with one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from block import CHANNELS, NCHW, Block
from blocks import FeedForward, Image

WIDTH = 16
_LAST = {"width": WIDTH}


class HandLayerNorm(nn.Module):
    """As in the Annotated Transformer: mean subtracted, epsilon outside the deviation."""

    def __init__(self, epsilon: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(WIDTH).uniform_(0.5, 1.5))
        self.bias = nn.Parameter(torch.randn(WIDTH) / 4)
        self.epsilon = epsilon

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(x - mean) / (std + eps)."""
        centered = x - x.mean(-1, keepdim=True)
        return self.weight * centered / (x.std(-1, keepdim=True) + self.epsilon) + self.bias


class VarianceNorm(nn.Module):
    """Divides by the deviation, but does not subtract the mean from what it divides."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """X * rsqrt(var(x) + eps)."""
        return x * torch.rsqrt(x.var(-1, keepdim=True, correction=0) + 1e-5)


class MeanNorm(nn.Module):
    """Divides by the mean magnitude: the exponent is one, not two."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """X / (mean(|x|) + eps)."""
        return x / (x.abs().mean(-1, keepdim=True) + 1e-5)


class ScaleNorm(nn.Module):
    """One learned length for the unit vector (Nguyen and Salazar): a sum, not a mean."""

    def __init__(self) -> None:
        super().__init__()
        self.length = nn.Parameter(torch.tensor(3.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Length * x / max(|x|, eps)."""
        return self.length * x / x.norm(dim=-1, keepdim=True).clamp(min=1e-5)


class CosineAttention(nn.Module):
    """As in ViT-22B's rivals and CLIP: queries and keys of unit length, learned temperature."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.temperature = nn.Parameter(torch.tensor(10.0))
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Attention by cosine similarity."""
        query, key, value = self.qkv(x).chunk(3, dim=-1)
        query = functional.normalize(query, dim=-1)
        key = functional.normalize(key, dim=-1)
        weights = (query @ key.transpose(-1, -2) * self.temperature).softmax(-1)
        return x + self.out(weights @ value)


class WeightNormed(nn.Module):
    """The norm of every row of a weight is computed in the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = parametrizations.weight_norm(nn.Linear(WIDTH, WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """A layer and its activation."""
        return torch.tanh(self.layer(x))


class HandSoftmax(nn.Module):
    """Softmax, and a division by a mean: sums and quotients without squares."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Exponentials over their sum, then over their mean square's root's square."""
        powers = torch.exp(x - x.amax(-1, keepdim=True))
        chances = powers / powers.sum(-1, keepdim=True)
        return self.layer(chances / chances.pow(2).mean(-1, keepdim=True))


def _between_layers(label: str, norm: Callable[[], nn.Module]) -> Block:
    return Block(label, _LAST, lambda: FeedForward(norm, WIDTH), width=WIDTH)


def _alone(label: str, module: Callable[[], nn.Module]) -> Block:
    return Block(label, _LAST, module, width=WIDTH)


BLOCKS: dict[str, Block] = {
    "layernorm-hand": _between_layers("(x - mean) / (std + eps) * weight + bias", HandLayerNorm),
    "layernorm": _between_layers("torch.nn.LayerNorm(16)", lambda: nn.LayerNorm(WIDTH)),
    "variance-norm": _between_layers("x * rsqrt(var(x) + eps)", VarianceNorm),
    "mean-norm": _between_layers("x / (mean(|x|) + eps)", MeanNorm),
    "scalenorm": _between_layers("length * x / |x|", ScaleNorm),
    "cosine-attention": _alone("queries and keys of unit length", CosineAttention),
    "weight-norm": _alone("torch.nn.utils.parametrizations.weight_norm", WeightNormed),
    "softmax-hand": _alone("exp / sum, then / mean square", HandSoftmax),
    "groupnorm": Block(
        "torch.nn.GroupNorm(2, 8)", NCHW, lambda: Image(nn.GroupNorm(2, CHANNELS)), image=True
    ),
    "instancenorm": Block(
        "torch.nn.InstanceNorm2d(8)",
        NCHW,
        lambda: Image(nn.InstanceNorm2d(CHANNELS, affine=True)),
        image=True,
    ),
}
