"""What an exporter is given: a module, the inputs of one call and what to call its dimensions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

Inputs = dict[str, torch.Tensor]

SEED = 20260917
"""Seeds weights and inputs of every model, so that a run of make.py repeats them."""


@dataclass(frozen=True)
class Shape:
    """How many rows of how many tokens one call gets (blocks read them as leading dimensions)."""

    batch: int = 2
    sequence: int = 6


@dataclass(frozen=True)
class Source:
    """A torch module in evaluation mode, with everything an export needs to know about it."""

    label: str
    config: Mapping[str, Any]
    module: torch.nn.Module
    draw: Callable[[Shape], Inputs]
    """Random inputs by argument name, in the order of the module's arguments."""
    dynamic: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    """Dimensions that may vary: argument name -> axis -> name."""
    outputs: tuple[str, ...] = ("output",)
    variadic: bool = False
    """Whether forward is declared as `*tensors`, which torch.export counts as one argument."""
    inline: int = 0
    """RMS norms that forward spells out without a module or function to count."""


Builder = Callable[[torch.dtype], Source]
