"""Adversarial inputs: rows of very different magnitude along every axis, zeros, and values of one size."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper
from zoo.spelling import SIZES
from zoo.tape import NUMPY

from rmsnorm_onnx.spec import DType

#: How many sets of inputs there are; each shows something else.
VARIANTS = 3


def feeds(model: onnx.ModelProto, variant: int) -> dict[str, np.ndarray]:
    """Inputs of every kind the grammar makes; an overridable initializer is overridden."""
    rng = np.random.default_rng(variant)
    return {i.name: _feed(rng, i.name, i.type.tensor_type, variant) for i in model.graph.input}


def _feed(rng: np.random.Generator, name: str, kind: onnx.TypeProto.Tensor, variant: int) -> np.ndarray:
    shape = tuple(SIZES[d.dim_param] if d.dim_param else d.dim_value for d in kind.shape.dim)
    if kind.elem_type == TensorProto.BOOL:
        return np.asarray(variant % 2 == 0)
    if kind.elem_type not in NUMPY:  # axes
        return np.full(shape, -1, helper.tensor_dtype_to_np_dtype(kind.elem_type))
    if name.startswith("constant"):  # a fed exponent or epsilon
        return np.full(shape, 0.5 + variant, NUMPY[kind.elem_type])
    values = rng.standard_normal(shape)
    wide = kind.elem_type in (DType.FLOAT, DType.DOUBLE)
    if variant > 0:
        # Along each axis another magnitude per index, so that every mean over too much or too little shows.
        for axis in range(len(shape)):
            reach = (2.0 if wide else 1.0) / max(1, len(shape) - 1)
            magnitude = 10.0 ** rng.uniform(-reach, reach, shape[axis])
            values *= magnitude.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    if variant == 2:
        values *= 1e-2 if not wide else 1e-3
        values[rng.random(shape) < 0.15] = 0.0
    return values.astype(NUMPY[kind.elem_type])
