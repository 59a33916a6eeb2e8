"""RMS norms as people write them by hand, where torch.nn.RMSNorm is not what they use."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class FunctionalRMSNorm(nn.Module):
    """A thin class around torch.nn.functional.rms_norm, with torch's default epsilon."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Torch's own function."""
        return functional.rms_norm(x, self.weight.shape, self.weight)


class UnitLengthRMSNorm(nn.Module):
    """Unit length times sqrt(width): epsilon bounds the length from below."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.factor = width**0.5
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Unit length, then the constant factor and the weight."""
        return functional.normalize(x, dim=-1) * self.factor * self.weight


class LengthRMSNorm(nn.Module):
    """From the vector's length, with epsilon added outside the root, as the paper's code does."""

    def __init__(self, width: int, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.factor = width**-0.5
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Divide by the root mean square plus epsilon."""
        root = x.norm(2, dim=-1, keepdim=True) * self.factor
        return self.weight * (x / (root + self.epsilon))


class ChannelRMSNorm(nn.Module):
    """Over the channels of an image (axis 1 of NCHW), with one weight per channel."""

    def __init__(self, channels: int, epsilon: float = 1e-6) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Divide by the root of the channels' mean square."""
        mean_square = x.square().mean(1, keepdim=True)
        return x / torch.sqrt(mean_square + self.epsilon) * self.weight


class GatedRMSNorm(nn.Module):
    """Norm first, gate after, everything in the input's own type (no upcast)."""

    def __init__(self, width: int, epsilon: float = 1e-6) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        """The norm of x, times silu(gate) written as a product."""
        normed = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.epsilon) * self.weight
        return normed * (gate * torch.sigmoid(gate))
