"""ONNX operators in numpy, in the types their operands come in; written from the operators' documentation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def _axes(x: np.ndarray, given: Any, noop: int = 0) -> tuple[int, ...] | None:
    axes = () if given is None else tuple(int(a) for a in np.ravel(given))
    if not axes:
        return () if noop else tuple(range(x.ndim))
    return axes


def _reduction(function: Callable[..., Any]) -> Callable[..., Any]:
    def run(x: Any, given: Any = None, axes: Any = None, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Any:
        over = _axes(x, given if axes is None else axes, noop_with_empty_axes)
        return function(x, over, bool(keepdims))

    return run


def _sum_of_squares(x: Any, axes: Any, keepdims: bool) -> Any:
    return np.sum(x * x, axis=axes, keepdims=keepdims)


def _reshape(x: Any, shape: Any) -> Any:
    return np.reshape(x, [int(n) or x.shape[i] for i, n in enumerate(shape)])


def _squeeze(x: Any, given: Any = None, axes: Any = None) -> Any:
    chosen = given if axes is None else axes
    return np.squeeze(x, None if chosen is None else tuple(int(a) for a in np.ravel(chosen)))


def _unsqueeze(x: Any, given: Any = None, axes: Any = None) -> Any:
    return np.expand_dims(x, tuple(int(a) for a in np.ravel(given if axes is None else axes)))


def _slice(x: Any, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Any:
    cut = [slice(None)] * x.ndim
    chosen = range(len(starts)) if axes is None else [int(a) for a in axes]
    strides = [1] * len(starts) if steps is None else [int(s) for s in steps]
    for axis, start, end, step in zip(chosen, starts, ends, strides, strict=True):
        last = None if step < 0 and end < -x.shape[axis] else int(end)
        cut[axis] = slice(int(start), last, step)
    return x[tuple(cut)]


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def _clip(x: Any, low: Any = None, high: Any = None, **limits: float) -> Any:
    # "min" and "max" are attributes below opset 11
    low, high = limits.get("min", low), limits.get("max", high)
    x = x if low is None else np.maximum(x, low)
    return x if high is None else np.minimum(x, high)


def _pow(base: Any, exponent: Any) -> Any:
    return np.power(base, np.asarray(exponent, np.float64))


def _lp_normalization(x: Any, axis: int = -1, p: int = 2) -> Any:
    length = np.linalg.norm(x, ord=p, axis=axis, keepdims=True)
    return np.where(length == 0, 0.0, x / length)


def _rms(x: Any, scale: Any, axis: int = -1, epsilon: float = 1e-5, **_: Any) -> Any:
    mean = np.mean(x * x, axis=tuple(range(axis % x.ndim, x.ndim)), keepdims=True)
    return x / np.sqrt(mean + epsilon) * scale


def _softmax(x: Any, axis: int = -1) -> Any:
    e = np.exp(x - np.max(x, axis=axis, keepdims=True))
    return e / np.sum(e, axis=axis, keepdims=True)


KERNELS: dict[str, Callable[..., Any]] = {
    "Abs": np.abs,
    "Add": np.add,
    "Clip": _clip,
    "Concat": lambda *parts, axis: np.concatenate(parts, axis),
    "Div": np.divide,
    "Dropout": lambda x, *_, **__: x,
    "Expand": lambda x, shape: np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(int(n) for n in shape))),
    "Gather": lambda x, indices, axis=0: np.take(x, indices.astype(int), axis),
    "GlobalAveragePool": lambda x: np.mean(x, axis=tuple(range(2, x.ndim)), keepdims=True),
    "Identity": lambda x: x,
    "LpNormalization": _lp_normalization,
    "MatMul": np.matmul,
    "Max": lambda first, *others: np.maximum.reduce(np.broadcast_arrays(first, *others)),
    "Min": lambda first, *others: np.minimum.reduce(np.broadcast_arrays(first, *others)),
    "Mul": np.multiply,
    "Neg": np.negative,
    "Pow": _pow,
    "RMSNormalization": _rms,
    "Reciprocal": lambda x: 1 / x,
    "ReduceL2": _reduction(lambda x, axes, keep: np.sqrt(_sum_of_squares(x, axes, keep))),
    "ReduceMax": _reduction(lambda x, axes, keep: np.max(x, axis=axes, keepdims=keep)),
    "ReduceMean": _reduction(lambda x, axes, keep: np.mean(x, axis=axes, keepdims=keep)),
    "ReduceProd": _reduction(lambda x, axes, keep: np.prod(x, axis=axes, keepdims=keep)),
    "ReduceSum": _reduction(lambda x, axes, keep: np.sum(x, axis=axes, keepdims=keep)),
    "ReduceSumSquare": _reduction(_sum_of_squares),
    "Relu": lambda x: np.maximum(x, 0),
    "Reshape": _reshape,
    "Shape": lambda x, start=0, end=None: np.asarray(x.shape[start:end], np.int64),
    "Sigmoid": _sigmoid,
    "Size": lambda x: np.asarray(x.size, np.int64),
    "Slice": _slice,
    "Softmax": _softmax,
    "Sqrt": np.sqrt,
    "Squeeze": _squeeze,
    "Sub": np.subtract,
    "Swish": lambda x, alpha=1.0: x * _sigmoid(alpha * x),
    "Tanh": np.tanh,
    "Transpose": lambda x, perm=None: np.transpose(x, perm),
    "Unsqueeze": _unsqueeze,
}
