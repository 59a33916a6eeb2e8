"""Weights that make a wrong fusion visible: no norm may keep the weight it is born with."""

from __future__ import annotations

import torch

from counting import is_rms_norm


def randomize_norms(module: torch.nn.Module) -> None:
    """Move every norm weight by up to a half: 0.5 to 1.5, or around 0 where 1 is added to it."""
    for child in module.modules():
        weight = getattr(child, "weight", None)
        if is_rms_norm(child) and isinstance(weight, torch.nn.Parameter):
            with torch.no_grad():
                weight.add_(torch.empty_like(weight).uniform_(-0.5, 0.5))
