"""The ground truth: how many RMS norms one forward pass really runs, seen from the framework.

Nothing here looks at ONNX. A norm is the call of a module whose class says that it is one, or a
call of torch's functional form from outside such a module.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode

# T5LayerNorm subtracts no mean and Llama4TextL2Norm takes the mean of the squares: both are RMS
# norms under other names. (The function l2norm of Qwen3-Next takes the sum: it is none.)
_RMS_NORM = re.compile(r"RMSNorm|T5LayerNorm|Llama4TextL2Norm")
_FUNCTIONAL = (torch.nn.functional.rms_norm, torch.rms_norm)


@dataclass
class Count:
    """Norms that ran; `gated` of them multiply by silu(gate)."""

    norms: int = 0
    gated: int = 0


def is_rms_norm(module: object) -> bool:
    """Whether the name of its class says so."""
    return _RMS_NORM.search(type(module).__name__) is not None


class _Counter(TorchFunctionMode):
    """Counts module calls by hooks, and functional calls made while no counted module is open."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.count = Count()
        self._open = 0
        norms = [child for child in module.modules() if is_rms_norm(child)]
        self._handles = [child.register_forward_pre_hook(self._enter) for child in norms]
        self._handles += [child.register_forward_hook(self._leave) for child in norms]

    def _enter(self, module: torch.nn.Module, _args: Any) -> None:
        self._open += 1
        self.count.norms += 1
        silu = getattr(module, "activation", "silu") == "silu"
        self.count.gated += silu and "Gated" in type(module).__name__

    def _leave(self, _module: torch.nn.Module, _args: Any, _output: Any) -> None:
        self._open -= 1

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func not in _FUNCTIONAL or self._open:
            return func(*args, **(kwargs or {}))
        self.count.norms += 1
        self._open += 1
        try:
            return func(*args, **(kwargs or {}))
        finally:
            self._open -= 1

    def remove(self) -> None:
        """Take the hooks off again, before the module is exported."""
        for handle in self._handles:
            handle.remove()


def _plain_cond(
    choice: torch.Tensor | bool,
    yes: Callable[..., Any],
    no: Callable[..., Any],
    operands: tuple[Any, ...] = (),
) -> Any:
    """What torch.cond means, without compiling: compiled code bears no hooks."""
    return (yes if choice else no)(*operands)


def run_counted(
    module: torch.nn.Module, inputs: dict[str, torch.Tensor]
) -> tuple[tuple[torch.Tensor, ...], Count]:
    """The module's outputs for these inputs, and the norms that ran on the way."""
    counter = _Counter(module)
    try:
        with torch.no_grad(), mock.patch.object(torch, "cond", _plain_cond), counter:
            outputs = module(*inputs.values())
    finally:
        counter.remove()
    if isinstance(outputs, torch.Tensor):
        outputs = (outputs,)
    return tuple(output.detach() for output in outputs), counter.count
