"""Blocks of image and video generators, written after diffusers' norms and attention."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from block import CHANNELS, NCHW, Block

WIDTH = 16
_HEADS = 2
_HEAD = WIDTH // _HEADS
_LAST = {"width": WIDTH}


class DiffusersRMSNorm(nn.Module):
    """As in diffusers: the statistics in float32, rounded to the weight's type before scaling."""

    def __init__(self, width: int, bias: bool = False, epsilon: float = 1e-6) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.randn(width) / 4) if bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The float32 mean square; x itself is not upcast."""
        mean_square = x.to(torch.float32).pow(2).mean(-1, keepdim=True)
        x = x * torch.rsqrt(mean_square + self.epsilon)
        if self.weight.dtype in (torch.float16, torch.bfloat16):
            x = x.to(self.weight.dtype)
        x = x * self.weight
        return x if self.bias is None else x + self.bias


class WanRMSNorm(nn.Module):
    """As in Wan's autoencoder: unit length over the channels, times sqrt(channels) and gamma."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.factor = channels**0.5
        self.weight = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Axis 1 of NCHW."""
        return functional.normalize(x, dim=1) * self.factor * self.weight


class ModulatedRMSNorm(nn.Module):
    """As in Mochi: the scale is computed for every sample, and everything is in float32."""

    def __init__(self, epsilon: float = 1e-8) -> None:
        super().__init__()
        self.epsilon = epsilon

    def forward(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Norm, times a scale of its own per sample."""
        kind = x.dtype
        x = x.to(torch.float32)
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.epsilon)
        return (x * scale.to(torch.float32)).to(kind)


class HeadNormAttention(nn.Module):
    """As in Flux and Stable Diffusion 3.5: norms on the queries and keys of every head.

    A LayerNorm without weights, shifted and scaled by the conditioning, stands before them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.modulation = nn.Linear(WIDTH, 2 * WIDTH)
        self.before = nn.LayerNorm(WIDTH, elementwise_affine=False, eps=1e-6)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.norm_q = DiffusersRMSNorm(_HEAD)
        self.norm_k = DiffusersRMSNorm(_HEAD)
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Attention over the sequence, conditioned on its mean."""
        condition = functional.silu(x.mean(1, keepdim=True))
        shift, scale = self.modulation(condition).chunk(2, dim=-1)
        hidden = self.before(x) * (1 + scale) + shift
        query, key, value = (
            part.unflatten(-1, (_HEADS, _HEAD)).transpose(1, 2)
            for part in self.qkv(hidden).chunk(3, dim=-1)
        )
        weights = self.norm_q(query) @ self.norm_k(key).transpose(-1, -2) * _HEAD**-0.5
        return x + self.out((weights.softmax(-1) @ value).transpose(1, 2).flatten(2))


class WideNormAttention(nn.Module):
    """As in Wan and LTX: norms on queries and keys across all heads, LayerNorm in float32."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.LayerNorm(WIDTH, eps=1e-6)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.norm_q = nn.RMSNorm(WIDTH, eps=1e-6)
        self.norm_k = nn.RMSNorm(WIDTH, eps=1e-6)
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Attention over the sequence."""
        query, key, value = self.qkv(self.before(x)).chunk(3, dim=-1)
        query, key, value = (
            part.unflatten(-1, (_HEADS, _HEAD)).transpose(1, 2)
            for part in (self.norm_q(query), self.norm_k(key), value)
        )
        weights = query @ key.transpose(-1, -2) * _HEAD**-0.5
        return x + self.out((weights.softmax(-1) @ value).transpose(1, 2).flatten(2))


class Modulated(nn.Module):
    """As in Mochi and Lumina: norm before and after a layer, scaled and gated by conditioning."""

    def __init__(self) -> None:
        super().__init__()
        self.modulation = nn.Linear(WIDTH, 2 * WIDTH)
        self.norm = ModulatedRMSNorm()
        self.layer = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """One sublayer with a residual, conditioned on the sequence's mean."""
        condition = functional.silu(x.mean(1, keepdim=True))
        scale, gate = self.modulation(condition).chunk(2, dim=-1)
        hidden = self.layer(self.norm(x, 1 + scale))
        return x + self.norm(hidden, torch.tanh(gate))


class MovedAxis(nn.Module):
    """As in DC-AE: the channels are moved last for the norm (with bias) and back again."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.norm = DiffusersRMSNorm(CHANNELS, bias=True, epsilon=1e-5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve, norm, and add."""
        hidden = functional.silu(self.first(x))
        return x + self.norm(hidden.movedim(1, -1)).movedim(-1, 1)


class ResidualImage(nn.Module):
    """As in Wan's autoencoder: norm, activation, convolution, twice, and a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(WanRMSNorm(CHANNELS) for _ in range(2))
        self.convolutions = nn.ModuleList(
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1) for _ in range(2)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The residual block."""
        hidden = x
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            hidden = convolution(functional.silu(norm(hidden)))
        return x + hidden


BLOCKS: dict[str, Block] = {
    "flux-attention": Block(
        "after diffusers: Flux attention, RMSNorm per head", _LAST, HeadNormAttention, width=WIDTH
    ),
    "wan-attention": Block(
        "after diffusers: Wan attention, torch.nn.RMSNorm across heads",
        _LAST,
        WideNormAttention,
        width=WIDTH,
    ),
    "wan-vae": Block("after diffusers: WanRMS_norm", NCHW, ResidualImage, image=True),
    "mochi-modulated": Block(
        "after diffusers: MochiModulatedRMSNorm", _LAST, Modulated, width=WIDTH
    ),
    "dc-ae": Block("after diffusers: DC-AE's RMSNorm on moved axes", NCHW, MovedAxis, image=True),
}
