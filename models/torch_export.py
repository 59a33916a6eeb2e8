"""Runs the exporters of torch on a Source."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import torch

import block
import blocks
import diffusion
import huggingface
import negatives
from case import Case, Exported, Exporter
from counting import run_counted
from source import SEED, Inputs, Shape, Source

_DTYPES = {
    "f32": torch.float32,
    "f16": torch.float16,
    "bf16": torch.bfloat16,
    "f64": torch.float64,
}
_BLOCKS = {**blocks.BLOCKS, **diffusion.BLOCKS, **negatives.BLOCKS}
_TRACED = Shape(batch=2, sequence=6)
_SAVED = Shape(batch=3, sequence=5)
"""A dynamic export is saved with another shape than it was traced with."""


def export(case: Case) -> Exported:
    """Build the source, run it once, counted, and export it."""
    torch.manual_seed(SEED)
    source = _build(case.source, _DTYPES[case.dtype])
    traced = source.draw(_TRACED)
    saved = source.draw(_SAVED) if case.dynamic else traced
    outputs, count = run_counted(source.module, saved)
    count.norms += source.inline
    describe, write = _EXPORTERS[case.exporter]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        model = write(case, source, traced)
    return Exported(
        model=model,
        inputs={name: _to_numpy(tensor) for name, tensor in saved.items()},
        outputs=tuple(_to_numpy(tensor) for tensor in outputs),
        count=count,
        label=source.label,
        config=source.config,
        exporter=describe,
    )


def _build(name: str, dtype: torch.dtype) -> Source:
    if name in huggingface.MODELS:
        return huggingface.build(name, dtype)
    return block.build(_BLOCKS[name], dtype)


def _to_numpy(tensor: torch.Tensor) -> np.ndarray:
    if tensor.dtype == torch.bfloat16:
        return tensor.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def _dynamo(case: Case, source: Source, traced: Inputs) -> onnx.ModelProto:
    shapes: tuple[Any, ...] | None = None
    if case.dynamic:
        free = torch.export.Dim.DYNAMIC
        shapes = tuple(dict.fromkeys(source.dynamic[name], free) for name in traced)
        shapes = (shapes,) if source.variadic else shapes
    program = torch.onnx.export(
        source.module,
        tuple(traced.values()),
        input_names=list(traced),
        output_names=list(source.outputs),
        opset_version=case.opset,
        dynamic_shapes=shapes,
        dynamo=True,
        optimize=case.exporter is not Exporter.DYNAMO_RAW,
        verbose=False,
    )
    assert program is not None
    return program.model_proto


def _torchscript(case: Case, source: Source, traced: Inputs, **options: Any) -> onnx.ModelProto:
    dynamic = {name: dict(axes) for name, axes in source.dynamic.items()} if case.dynamic else None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        torch.onnx.export(
            source.module,
            tuple(traced.values()),
            path,
            input_names=list(traced),
            output_names=list(source.outputs),
            opset_version=case.opset,
            dynamic_axes=dynamic,
            dynamo=False,
            **options,
        )
        return onnx.load(path)


def _torchscript_functions(case: Case, source: Source, traced: Inputs) -> onnx.ModelProto:
    return _torchscript(case, source, traced, export_modules_as_functions=True)


_Writer = Callable[[Case, Source, Inputs], onnx.ModelProto]
_EXPORTERS: dict[Exporter, tuple[str, _Writer]] = {
    Exporter.DYNAMO: ("torch.onnx (dynamo)", _dynamo),
    Exporter.DYNAMO_RAW: ("torch.onnx (dynamo, optimize=False)", _dynamo),
    Exporter.TORCHSCRIPT: ("torch.onnx (TorchScript)", _torchscript),
    Exporter.TORCHSCRIPT_FUNCTIONS: (
        "torch.onnx (TorchScript, export_modules_as_functions=True)",
        _torchscript_functions,
    ),
}
