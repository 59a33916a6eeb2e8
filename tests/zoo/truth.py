"""What a program must compute: formulas in float64 on inputs, weights and constants as the graph holds them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np

from rmsnorm_onnx.spec import DType

from .spelling import Shape, Spelling
from .tape import Tape, Value, rounded, weight_values


def _sigmoid(v: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-v))


def _onnx_norm(x: np.ndarray, scale: np.ndarray, *, epsilon: float, axis: int = -1, **_: Any) -> np.ndarray:
    axes = tuple(range(axis % x.ndim, x.ndim))
    return x / np.sqrt(np.mean(x * x, axis=axes, keepdims=True) + np.float32(epsilon)) * scale


def _axes(axes: np.ndarray | None) -> tuple[int, ...] | None:
    return None if axes is None else tuple(axes.astype(int))


def _slice(v: np.ndarray, *bounds: np.ndarray) -> np.ndarray:
    starts, ends, axes, steps = (_axes(b) or () for b in bounds)
    taken = [slice(None)] * v.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        taken[axis] = slice(start, end, step)
    return v[tuple(taken)]


_OPS: dict[str, Callable[..., Any]] = {
    "Abs": np.abs,
    "Add": np.add,
    "Cast": lambda v, **_: v,
    "Concat": lambda *parts, axis: np.concatenate(parts, axis),
    "Clip": lambda v, low, high=np.inf: np.clip(v, low, high),
    "DequantizeLinear": lambda q, scale, zero: (q - zero) * scale,
    "Div": np.divide,
    "Einsum": lambda *operands, equation: np.einsum(equation, *operands),
    "Expand": lambda v, shape: np.broadcast_to(v, np.broadcast_shapes(v.shape, tuple(shape.astype(int)))),
    "Gather": lambda v, indices, *, axis: np.take(v, indices.astype(int), axis),
    "Identity": lambda v: v,
    "LpNormalization": lambda v, *, axis, p: v / np.sqrt(np.sum(v * v, axis=axis, keepdims=True)),
    "MatMul": np.matmul,
    "Max": np.maximum,
    "Min": lambda *operands: reduce(np.minimum, operands),
    "Mul": np.multiply,
    "Neg": np.negative,
    "Pow": np.power,
    "RMSNormalization": _onnx_norm,
    "Reciprocal": np.reciprocal,
    "Relu": lambda v: np.maximum(v, 0),
    "ReduceL2": lambda v, axes: np.sqrt(np.sum(v * v, axis=_axes(axes), keepdims=True)),
    "ReduceMean": lambda v, axes=None, *, keepdims=1: np.mean(
        v, axis=_axes(np.asarray(axes) if axes is not None else None), keepdims=bool(keepdims)
    ),
    "ReduceSum": lambda v, axes=None, *, keepdims=1: np.sum(v, axis=_axes(axes), keepdims=bool(keepdims)),
    "Reshape": lambda v, shape: v.reshape([n or v.shape[i] for i, n in enumerate(shape.astype(int))]),
    "Shape": lambda v: np.asarray(v.shape, np.float64),
    "Sigmoid": _sigmoid,
    "SimplifiedLayerNormalization": _onnx_norm,
    "SkipSimplifiedLayerNormalization": lambda x, skip, scale, bias=0, *, epsilon: _onnx_norm(
        x + skip + bias, scale, epsilon=epsilon
    ),
    "Slice": _slice,
    "Sqrt": np.sqrt,
    "Squeeze": lambda v, axes=None: np.squeeze(v, _axes(axes)),
    "Sub": np.subtract,
    "Swish": lambda v: v * _sigmoid(v),
    "Tanh": np.tanh,
    "Transpose": lambda v, *, perm: np.transpose(v, perm),
    "Unsqueeze": lambda v, axes: np.expand_dims(v, tuple(axes.astype(int))),
}


class Truth(Tape):
    """Runs a program on ``feeds``; ``outputs`` then holds the float64 value of each graph output."""

    def __init__(self, feeds: Mapping[str, np.ndarray]):
        self._feeds = feeds
        self.outputs: dict[str, np.ndarray] = {}

    def input(self, name: str, shape: Shape | None, dtype: int = DType.FLOAT) -> Value:
        return np.asarray(self._feeds[name]).astype(np.float64)

    def weight(self, name: str, shape: Sequence[int], dtype: DType = DType.FLOAT) -> Value:
        return weight_values(name, shape, dtype)

    def constant(self, values: Any, dtype: int = DType.FLOAT) -> Value:
        is_float = dtype in set(DType)
        return rounded(values, DType(dtype)) if is_float else np.asarray(values, np.float64)

    def op(self, op_type: str, *inputs: Value, domain: str = "", **attributes: Any) -> Value:
        return _OPS[op_type](*inputs, **attributes)

    def output(self, value: Value, name: str, dtype: int = DType.FLOAT, shape: Shape | None = None) -> None:
        self.outputs[name] = value

    def lift(self, x: Value, s: Spelling) -> Value:
        return x

    def mean_square(self, x: Value, s: Spelling) -> Value:
        return np.mean(x * x, axis=s.axes, keepdims=True)

    def root(self, mean: Value, s: Spelling) -> Value:
        if s.floor is not None:
            mean = np.maximum(mean, rounded(s.floor, s.working))
        if s.epsilon is not None:
            source = DType.FLOAT if s.epsilon_kind == "cast-float" else s.working
            mean = mean + rounded(rounded(s.epsilon, source), s.working)
        outside = 0.0 if s.epsilon_outside is None else rounded(s.epsilon_outside, s.working)
        return np.sqrt(mean) + outside

    def normalized(self, x: Value, root: Value, s: Spelling) -> Value:
        return x / root

    def scaled(self, normalized: Value, s: Spelling, scale: Value | None = None) -> Value:
        if s.scale is not None or scale is not None:
            normalized = normalized * (self._scale(s) if scale is None else scale)
        return normalized + weight_values("bias", s.concrete[-1:], s.output_type) if s.bias else normalized

    def norm(self, x: Value, s: Spelling, scale: Value | None = None) -> Value:
        return self.scaled(self.normalized(x, self.root(self.mean_square(x, s), s), s), s, scale)

    def _scale(self, s: Spelling) -> np.ndarray:
        shape, dtype = s.aligned_scale_shape, s.scale_type or s.scale_working
        if s.scale in ("input", "1+input"):
            return self.input("scale", None) + (s.scale == "1+input")
        values = weight_values("scale", shape, dtype)
        if s.scale in ("1+w", "w+1"):
            return 1 + values
        return values * weight_values("gain", shape, dtype) if s.scale == "w*g" else values

    def branch(self, condition: Value, then: Callable[[], Value], otherwise: Callable[[], Value]) -> Value:
        return then() if condition else otherwise()

    def loop(self, trips: int, body: Callable[[Value], Value], initial: Value, shape: Shape) -> Value:
        for _ in range(trips):
            initial = body(initial)
        return initial

    def scan(self, body: Callable[[Value], Value], rows: Value) -> Value:
        return np.stack([body(row) for row in rows])

    def call(self, name: str, body: Callable[..., Value], *arguments: Value) -> Value:
        return body(*arguments)
