"""Sessions of onnxruntime on the CPU, at a chosen optimization level."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime


def session(
    model: onnx.ModelProto,
    level: str,
    saved: Path | None = None,
    without: Collection[str] = (),
) -> onnxruntime.InferenceSession:
    """A CPU session at this level without these optimizers, which may save what it optimized."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    if saved:
        options.optimized_model_filepath = str(saved)
    return onnxruntime.InferenceSession(
        model.SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=list(without),
    )


def run(
    model: onnx.ModelProto, feeds: Mapping[str, np.ndarray], level: str
) -> tuple[np.ndarray, ...]:
    """The outputs for these inputs, bfloat16 among them."""
    values = {
        name: onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(
            array, onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        )
        for name, array in feeds.items()
    }
    found = session(model, level).run_with_ort_values(None, values)
    return tuple(value.numpy() for value in found)
