"""The stages of a norm as ONNX nodes, each spelled as a `Spelling` says and as the opset allows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto

from rmsnorm_onnx.spec import DType

from .spelling import Spelling
from .tape import weight_values

if TYPE_CHECKING:
    from .writer import Writer

#: First opset in which the axes of a reduction are an input.
AXES_INPUT = {"ReduceSum": 13, "Squeeze": 13, "Unsqueeze": 13}


def inserted(w: Writer, value: str, s: Spelling, place: str) -> str:
    """Put the operators without effect that the spelling wants behind ``place``."""
    for entry in s.inserted:
        op_type, _, at = entry.partition("@")
        if at == place:
            value = w.op(op_type, value)
    return value


def with_axes(w: Writer, op_type: str, value: str, axes: Any, kind: str = "initializer", **attributes: Any) -> str:
    """Apply a reduction or (un)squeeze, its axes as attribute or as input by opset."""
    if axes is None:
        return w.op(op_type, value, **attributes)
    if w.opset < AXES_INPUT.get(op_type, 18):
        return w.op(op_type, value, axes=list(axes), **attributes)
    if kind == "computed":  # what dynamo leaves where nobody folds constants
        flat = w.number(list(axes), TensorProto.INT64, "constant")
        target = w.number([-1], TensorProto.INT64, "constant")
        return w.op(op_type, value, w.op("Reshape", flat, target), **attributes)
    return w.op(op_type, value, w.number(list(axes), TensorProto.INT64, kind), **attributes)


def mean_square(w: Writer, x: str, s: Spelling) -> str:
    """Square, sum and division by the number of elements."""
    squared = inserted(w, x, s, "squared")
    if s.square.startswith("abs-"):
        squared = w.op("Abs", squared)
    if s.square in ("ReduceSumSquare", "ReduceL2"):
        total = _reduce(w, s.square, squared, s)
        if s.square == "ReduceL2":
            total = w.op("Mul", total, total)
        return inserted(w, _divided(w, total, x, s), s, "mean")
    if s.square.endswith("mul"):
        square = w.op("Mul", squared, squared)
    else:
        dtype = s.power_type or s.working
        power = w.number(np.full(s.power_shape, s.power), dtype, s.power_kind, like=squared)
        square = w.op("Pow", squared, power)
    if s.mean == "ReduceMean":
        return inserted(w, _reduce(w, "ReduceMean", square, s), s, "mean")
    if s.mean == "GlobalAveragePool":  # tf2onnx: the mean over the last axis of a rank-3 tensor
        return inserted(w, w.op("GlobalAveragePool", square), s, "mean")
    return inserted(w, _divided(w, _reduce(w, "ReduceSum", square, s), x, s), s, "mean")


def _reduce(w: Writer, op_type: str, value: str, s: Spelling) -> str:
    if s.keepdims == "kept":
        return with_axes(w, op_type, value, s.axes, s.axes_kind)
    value = with_axes(w, op_type, value, s.axes, s.axes_kind, keepdims=0)
    if s.keepdims == "unsqueezed":
        return with_axes(w, "Unsqueeze", value, s.positive_axes)
    if s.keepdims == "reshaped":
        shape = [1 if a in s.positive_axes else 0 for a in range(s.rank)]
        return w.reshape(value, shape)
    if s.keepdims == "expanded":
        return w.op("Expand", value, w.number(s.concrete, TensorProto.INT64))
    return value


def _divided(w: Writer, total: str, x: str, s: Spelling) -> str:
    count = s.count or s.reduced
    if s.mean == "sum/n":
        return w.op("Div", total, w.number(count, s.working))
    if s.mean == "sum*(1/n)":
        return w.op("Mul", total, w.number(1 / count, s.working))
    if s.mean == "(1/n)*sum":
        return w.op("Mul", w.number(1 / count, s.working), total)
    if s.mean == "sum/Shape":
        sizes = w.op("Gather", w.op("Shape", x), w.number(list(s.positive_axes), TensorProto.INT64))
        size = with_axes(w, "ReduceProd", sizes, [0], keepdims=0)
        return w.op("Div", total, w.op("Cast", size, to=int(s.working)))
    return total


def root(w: Writer, mean: str, s: Spelling) -> str:
    """Floor, epsilon, root, outer epsilon; where the quotient takes the root itself, only what is under it."""
    if s.floor is not None:
        bound = w.number(s.floor, s.working)
        operands = {"Max": (mean, bound), "Max-left": (bound, mean), "Clip": (mean, bound)}[s.floor_kind]
        mean = w.op(s.floor_kind.removesuffix("-left"), *operands)
    if s.epsilon is not None:
        steps = np.arange(1, 1 + int(np.prod(s.epsilon_shape, dtype=int))).reshape(s.epsilon_shape)
        epsilon = w.number(s.epsilon * steps, s.working, s.epsilon_kind, like=mean)
        mean = w.op("Add", *((mean, epsilon) if s.epsilon_side == "right" else (epsilon, mean)))
    if s.quotient in ("pow-0.5", "1/pow"):
        return mean
    value = w.op("Sqrt", mean) if s.root == "Sqrt" else w.op("Pow", mean, w.number(s.root_power, s.working))
    value = inserted(w, value, s, "root")
    if s.epsilon_outside is not None:
        value = w.op("Add", value, w.number(s.epsilon_outside, s.working))
    return value


def _inverse(w: Writer, root: str, s: Spelling) -> str:
    dtype = s.dtype if s.quotient_in == "model" else s.working
    if s.quotient == "reciprocal":
        return w.op("Reciprocal", root)
    if s.quotient == "1/root":
        return w.op("Div", w.number(1, dtype), root)
    if s.quotient == "root^-1":
        return w.op("Pow", root, w.number(-1, dtype))
    if s.quotient == "pow-0.5":
        return w.op("Pow", root, w.number(-s.root_power, dtype))
    return w.op("Reciprocal", w.op("Pow", root, w.number(s.root_power, dtype)))


def normalized(w: Writer, x: str, root: str, s: Spelling) -> str:
    """Divide ``x`` by ``root``; a scale that is multiplied in earlier goes in here."""
    if s.scale_at == "x":
        x = w.op("Mul", x, _scale(w, s))
    if s.quotient == "div":
        value = w.op("Div", x, root)
    else:
        inverse = _inverse(w, root, s)
        if s.scale_at == "root":  # tf2onnx multiplies the scale into the root first
            inverse = w.op("Mul", inverse, _scale(w, s))
        value = w.op("Mul", *((x, inverse) if s.quotient_side == "right" else (inverse, x)))
    return inserted(w, value, s, "normalized")


def scaled(w: Writer, value: str, s: Spelling, scale: str | None) -> str:
    """Cast back, scale and bias."""
    casts = s.stash is not None and s.quotient_in == "stash"
    if casts and s.cast_out in ("before-scale", "around-scale"):
        value = w.cast(value, s.dtype)
    if casts and s.cast_out == "around-scale":
        value = w.cast(value, s.working)
    if s.scale_at == "normalized" and (s.scale is not None or scale is not None):
        factor = _scale(w, s) if scale is None else scale
        value = w.op("Mul", *((value, factor) if s.scale_side == "right" else (factor, value)))
    if casts and s.cast_out in ("after-scale", "around-scale"):
        value = w.cast(value, s.dtype)
    if s.bias:
        value = w.op("Add", value, w.weight("bias", s.concrete[-1:], s.output_type))
    return value


def _scale(w: Writer, s: Spelling) -> str:
    dtype = s.scale_type or s.scale_working
    value = _raw_scale(w, s, s.aligned_scale_shape, dtype)
    if dtype != s.scale_working:
        value = w.cast(value, s.scale_working)
    return inserted(w, value, s, "scale")


def _raw_scale(w: Writer, s: Spelling, shape: tuple[int, ...], dtype: DType) -> str:
    if s.scale in ("input", "1+input"):
        given = w.input("scale", shape, dtype)
        return given if s.scale == "input" else w.op("Add", w.number(1, dtype), given)
    values = weight_values("scale", shape, dtype)
    if s.scale == "constant":
        return w.number(values, dtype, "constant")
    if s.scale == "squeezed":
        return with_axes(w, "Squeeze", w.tensor("scale", values[None], dtype), [0])
    if s.scale == "unsqueezed":
        return with_axes(w, "Unsqueeze", w.tensor("scale", values, dtype), [0])
    if s.scale == "reshaped":
        return w.reshape(w.tensor("scale", values.ravel(), dtype), shape)
    if s.scale == "transposed":
        return w.op("Transpose", w.tensor("scale", values.T, dtype), perm=list(range(len(shape)))[::-1])
    given = w.weight("scale", shape, dtype)
    if s.scale == "overridable":
        return w.input("scale", shape, dtype)
    if s.scale == "expanded":
        return w.op("Expand", given, w.number([1, *shape], TensorProto.INT64))
    if s.scale == "identity":
        return w.op("Identity", given)
    if s.scale == "w*g":
        return w.op("Mul", given, w.weight("gain", shape, dtype))
    if s.scale in ("1+w", "w+1"):
        one = w.number(1, dtype)
        return w.op("Add", *((one, given) if s.scale == "1+w" else (given, one)))
    return given
