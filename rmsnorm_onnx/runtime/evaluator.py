"""onnx's ReferenceEvaluator, with float64 in the operators that it computes in float32 whatever their input is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from rmsnorm_onnx import reference
from rmsnorm_onnx.errors import CannotRun
from rmsnorm_onnx.runtime.types import nodes_of

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]


def run_reference(model: ir.Model, feeds: Arrays) -> dict[str, Array]:
    """Run a model with onnx's ReferenceEvaluator.

    Raises:
        CannotRun: it lacks an operator or fails inside one.
    """
    from onnx.reference import ReferenceEvaluator

    names = [str(output.name) for output in model.graph.outputs]
    proto = ir.to_proto(_with_onnx_quantizers(model))
    try:
        with np.errstate(all="ignore"):
            results = ReferenceEvaluator(proto, new_ops=_in_double()).run(names, dict(feeds))
    except Exception as error:  # it raises whatever numpy and its operators raise
        raise CannotRun(f"onnx.reference cannot run it: {type(error).__name__}: {error}") from error
    return {name: np.asarray(result) for name, result in zip(names, results, strict=True)}


def _with_onnx_quantizers(model: ir.Model) -> ir.Model:
    """The model with onnxruntime's QuantizeLinear and DequantizeLinear as ONNX's, which compute the same."""
    if not any(_is_foreign_quantizer(node) for node in nodes_of(model)):
        return model
    copy = model.clone()
    for node in nodes_of(copy):
        if _is_foreign_quantizer(node):
            node.domain = ""
    return copy


def _is_foreign_quantizer(node: ir.Node) -> bool:
    return node.domain == "com.microsoft" and node.op_type in {"QuantizeLinear", "DequantizeLinear"}


def _in_double() -> list[Any]:
    """The operators that onnx 1.23 computes in float32 even for float64: Erf, Gelu through it, norms, and scales."""
    from onnx.reference.op_run import OpRun

    def erf(x: Array) -> Array:
        return np.asarray(np.vectorize(math.erf, otypes=[np.float64])(x))

    class Erf(OpRun):
        def _run(self, x: Array) -> tuple[Array]:
            return (erf(x).astype(x.dtype),)

    class Gelu(OpRun):
        op_schema = onnx.defs.get_schema("Gelu")

        def _run(self, x: Array, approximate: str | None = None) -> tuple[Array]:
            wide = x.astype(np.float64)
            if approximate == "tanh":
                inner = np.tanh(math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**3))
            else:
                inner = erf(wide / math.sqrt(2))
            return ((wide / 2 * (1 + inner)).astype(x.dtype),)

    class RMSNormalization(OpRun):
        op_schema = onnx.defs.get_schema("RMSNormalization")

        def _run(
            self, x: Array, scale: Array, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
        ) -> tuple[Array]:
            axes = tuple(range(axis % x.ndim, x.ndim))
            (y,) = reference.exact("RMSNormalization", [x, scale], reference.Attributes(epsilon, axes))
            return (y.astype(x.dtype),)

    class DynamicQuantizeLinear(OpRun):
        def _run(self, x: Array) -> tuple[Array, Array, Array]:
            low, high = np.min(x, initial=0.0), np.max(x, initial=0.0)
            scale = (high - low) / 255 if high > low else x.dtype.type(1)
            zero = np.clip(np.rint(-low / scale), 0, 255)
            y = np.clip(np.rint(x / scale) + zero, 0, 255)
            return y.astype(np.uint8), np.asarray(scale, x.dtype), np.asarray(zero, np.uint8)

    return [Erf, Gelu, RMSNormalization, DynamicQuantizeLinear]
