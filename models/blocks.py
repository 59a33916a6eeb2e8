"""Small blocks around one kind of norm each: what the models of transformers do not show."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers.models.deepseek_v4.modeling_deepseek_v4 import DeepseekV4UnweightedRMSNorm
from transformers.models.falcon_h1.modeling_falcon_h1 import FalconH1RMSNormGated
from transformers.models.gemma4.modeling_gemma4 import Gemma4RMSNorm
from transformers.models.kimi_linear.modeling_kimi_linear import KimiLinearRMSNormGated
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.llama4.modeling_llama4 import Llama4TextL2Norm

from block import CHANNELS, LAST, NCHW, SIDE, WIDTH, Block
from norms import (
    ChannelRMSNorm,
    FunctionalRMSNorm,
    GatedRMSNorm,
    LengthRMSNorm,
    UnitLengthRMSNorm,
)


class FeedForward(nn.Module):
    """Two pre-norm feed-forward layers (SwiGLU) with residuals, and a last norm."""

    def __init__(self, norm: Callable[[], nn.Module], width: int = WIDTH) -> None:
        super().__init__()
        self.norms = nn.ModuleList(norm() for _ in range(3))
        self.up = nn.ModuleList(nn.Linear(width, 2 * width, bias=False) for _ in range(2))
        self.down = nn.ModuleList(nn.Linear(width, width) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """X plus two feed-forward layers, normed."""
        for norm, up, down in zip(self.norms, self.up, self.down, strict=False):
            gate, value = up(norm(x)).chunk(2, dim=-1)
            x = x + down(functional.silu(gate) * value)
        return self.norms[-1](x)


class Gated(nn.Module):
    """A projection into value and gate, and the gated norm of the two."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.up = nn.Linear(WIDTH, 2 * WIDTH)
        self.norm = norm
        self.down = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Project, norm with the gate, project."""
        value, gate = self.up(x).chunk(2, dim=-1)
        return self.down(self.norm(value, gate))


class Image(nn.Module):
    """Convolution, norm, convolution on NCHW."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.first = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.norm = norm
        self.second = nn.Conv2d(CHANNELS, CHANNELS, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve, norm, activate, convolve."""
        return self.second(functional.gelu(self.norm(self.first(x))))


class Branch(nn.Module):
    """torch.cond: a norm before the branch, and one in the branch that the saved input takes."""

    def __init__(self) -> None:
        super().__init__()
        self.outer = nn.RMSNorm(WIDTH, eps=1e-6)
        self.inner = nn.RMSNorm(WIDTH, eps=1e-6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Norm, and norm again unless the values are enormous."""
        x = self.outer(x)
        return torch.cond(x.sum() > -1e6, lambda y: self.inner(y), lambda y: y * 0.5, (x,))


@torch.jit.script
def _norm_if(x: torch.Tensor, weight: torch.Tensor, enabled: torch.Tensor) -> torch.Tensor:
    if bool(enabled):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * weight
    return x * 0.5


@torch.jit.script
def _norm_repeated(x: torch.Tensor, weight: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    for _ in range(int(steps)):
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * weight
    return x


class Scripted(nn.Module):
    """A scripted function around a norm: TorchScript keeps its If or Loop."""

    def __init__(self, function: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.norm = ScriptedRMSNorm(function)
        self.down = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor, control: torch.Tensor) -> torch.Tensor:
        """The scripted norm, then a projection."""
        return self.down(self.norm(x, control))


class ScriptedRMSNorm(nn.Module):
    """Holds the weight; the saved control value makes the function norm exactly once."""

    def __init__(self, function: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x: torch.Tensor, control: torch.Tensor) -> torch.Tensor:
        """The function, given the weight."""
        return self.function(x, self.weight, control)


def _of_transformers(norm: type[nn.Module], *arguments: int) -> Block:
    label = f"transformers.{norm.__name__} in a feed-forward block"
    return Block(label, LAST, lambda: FeedForward(lambda: norm(*arguments)))


def _of_transformers_gated(norm: Callable[..., nn.Module], **options: Any) -> Block:
    label = f"transformers.{norm.__name__} in a gated block"
    return Block(label, {**LAST, **options}, lambda: Gated(norm(WIDTH, **options)))


BLOCKS: dict[str, Block] = {
    "torch-rmsnorm": Block(
        "torch.nn.RMSNorm(32, eps=1e-6)",
        LAST,
        lambda: FeedForward(lambda: nn.RMSNorm(WIDTH, eps=1e-6)),
    ),
    "torch-rmsnorm-noweight": Block(
        "torch.nn.RMSNorm(32, elementwise_affine=False)",
        LAST,
        lambda: FeedForward(lambda: nn.RMSNorm(WIDTH, elementwise_affine=False)),
    ),
    "torch-rmsnorm-axes3": Block(
        "torch.nn.RMSNorm((8, 4, 4), eps=1e-5)",
        NCHW,
        lambda: Image(nn.RMSNorm((CHANNELS, SIDE, SIDE), eps=1e-5)),
        image=True,
    ),
    "torch-rmsnorm-axes2": Block(
        "torch.nn.RMSNorm((4, 4), eps=1e-5)",
        NCHW,
        lambda: Image(nn.RMSNorm((SIDE, SIDE), eps=1e-5)),
        image=True,
    ),
    "functional": Block(
        "torch.nn.functional.rms_norm",
        LAST,
        lambda: FeedForward(lambda: FunctionalRMSNorm(WIDTH)),
    ),
    "unit-length": Block(
        "torch.nn.functional.normalize(x, dim=-1) * sqrt(width) * weight",
        LAST,
        lambda: FeedForward(lambda: UnitLengthRMSNorm(WIDTH)),
    ),
    "length": Block(
        "weight * x / (x.norm(2, -1) / sqrt(width) + eps)",
        LAST,
        lambda: FeedForward(lambda: LengthRMSNorm(WIDTH)),
    ),
    "channel": Block(
        "x / sqrt(x.square().mean(1) + eps) * weight",
        NCHW,
        lambda: Image(ChannelRMSNorm(CHANNELS)),
        image=True,
    ),
    "gated": Block(
        "norm(x) * weight * (gate * sigmoid(gate))", LAST, lambda: Gated(GatedRMSNorm(WIDTH))
    ),
    "llama-norm": _of_transformers(LlamaRMSNorm, WIDTH),
    "gemma4-norm": _of_transformers(Gemma4RMSNorm, WIDTH),
    "llama4-norm": _of_transformers(Llama4TextL2Norm),
    "deepseek-v4-norm": _of_transformers(DeepseekV4UnweightedRMSNorm),
    "kimi-gated": _of_transformers_gated(KimiLinearRMSNormGated),
    "falcon-h1-gated": _of_transformers_gated(FalconH1RMSNormGated, n_groups=2),
    "falcon-h1-pregated": _of_transformers_gated(FalconH1RMSNormGated, norm_before_gate=False),
    "cond": Block("torch.cond around torch.nn.RMSNorm", LAST, Branch),
    "script-if": Block(
        "torch.jit.script with if",
        LAST,
        lambda: Scripted(_norm_if),
        control=torch.tensor(True),
    ),
    "script-loop": Block(
        "torch.jit.script with for",
        LAST,
        lambda: Scripted(_norm_repeated),
        control=torch.tensor(1),
    ),
}
