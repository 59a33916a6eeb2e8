"""Does the written graph compute what the framework computed?"""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx.reference import ReferenceEvaluator

from case import Case, Exported
from running import run

_TOLERANCE = {"f64": 1e-9, "f32": 2e-4, "f16": 2e-2, "bf16": 1e-1}
"""Largest difference allowed, relative to the largest magnitude of the output (whole models)."""


def onnxruntime_verdict(case: Case, exported: Exported) -> str:
    """`agrees`, `differs by ...` or the first line of onnxruntime's error."""
    onnxruntime.set_default_logger_severity(4)
    try:
        found = run(exported.model, exported.inputs, "ORT_ENABLE_ALL")
    except Exception as error:  # onnxruntime raises a class per status, all below Exception
        return f"fails: {_first_line(error)}"
    return _compare(case, list(found), exported)


def reference_verdict(case: Case, exported: Exported) -> str:
    """The same by onnx's reference implementation."""
    try:
        found = ReferenceEvaluator(exported.model).run(None, dict(exported.inputs))
    except Exception as error:  # the reference raises whatever numpy raises
        return f"fails: {_first_line(error)}"
    return _compare(case, list(found), exported)


def _compare(case: Case, found: list[np.ndarray], exported: Exported) -> str:
    worst = 0.0
    for got, wanted in zip(found, exported.outputs, strict=True):
        if got.shape != wanted.shape:
            return f"differs: shape {got.shape} instead of {wanted.shape}"
        difference = np.abs(got.astype(np.float64) - wanted.astype(np.float64)).max()
        worst = max(worst, float(difference / np.abs(wanted.astype(np.float64)).max()))
    return "agrees" if worst <= _TOLERANCE[case.dtype] else f"differs by {worst:.2g}"


def checker_verdict(model: onnx.ModelProto) -> str:
    """`passes` with full checks, or the error; a model that fails the basic checks raises."""
    onnx.checker.check_model(model)
    try:
        onnx.checker.check_model(model, full_check=True)
    except onnx.shape_inference.InferenceError as error:
        return f"full check fails: {_first_line(error)}"
    return "passes"


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:300]}"
