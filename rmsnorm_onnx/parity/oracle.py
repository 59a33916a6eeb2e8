"""The float64 oracle of one operator: what a node should give on given inputs, and how far off it may be."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, Final

import ml_dtypes
import numpy as np
import numpy.typing as npt

from rmsnorm_onnx import reference, spec
from rmsnorm_onnx.reference import NUMPY_TYPES, Attributes

Array = npt.NDArray[Any]
Doubles = npt.NDArray[np.float64]

#: Absolute error of onnxruntime's Sigmoid, in roundoffs of its type: 2.8 at most over [-90, 90] (1.31, float32 and
#: float64). Its relative error has no bound: it stops falling at -18.
_SIGMOID_ROUNDOFFS: Final = 4


@dataclass(frozen=True, slots=True)
class Oracle:
    """The operator on one set of inputs.

    Attributes:
        exact: Y in float64, of the shape of X.
        faithful: Y with the roundings of the operator, in T; decides what is inf or NaN.
        total: the residual sum in T, or None.
        width: elements in one mean.
        subnormal: what roundings of numbers below the normal ones may add to the error, in ulps of T at ``exact``.
        sigmoid: likewise what the error of onnxruntime's Sigmoid may add; 0 without a gate.
        judged: where a bound holds: rows whose mean square the stash type holds as a normal number.
    """

    exact: Doubles
    faithful: Array
    total: Array | None
    width: int
    subnormal: Doubles
    sigmoid: Doubles
    judged: npt.NDArray[np.bool_]

    def ulps(self, got: Array) -> Doubles:
        """Error of ``got`` per element, in ulps of its type; inf where one is NaN or infinite and the other is not."""
        dtype = got.dtype
        regular = np.isfinite(self.faithful.astype(np.float64)) & np.isfinite(self.exact)
        # A result beyond the largest number may round to inf or to that number.
        end = float(ml_dtypes.finfo(dtype).max)  # type: ignore[no-untyped-call]
        values = got.astype(np.float64)
        clipped = np.where(np.isinf(values) & regular, np.copysign(end, values), values)
        error = reference.ulps(clipped, np.clip(self.exact, -end, end), dtype)
        return np.where(regular, error, reference.ulps(values, self.faithful, dtype))


def consult(op: spec.Op, inputs: list[Array], attributes: Attributes, *, rounds_sum: bool = True) -> Oracle:
    """What operator ``op`` gives on ``inputs`` (X, skip or gate, scale).

    Args:
        op: one of ``spec.OPS``.
        inputs: as the operator takes them.
        attributes: of the node.
        rounds_sum: whether the residual sum is rounded to T before it is normalized, as the operator defines it.
    """
    x, scale = inputs[0], np.abs(inputs[-1].astype(np.float64))
    faithful, *sums = reference.faithful(op.name, inputs, attributes)
    total = sums[0] if sums else None
    if total is None or not rounds_sum:
        exact = reference.exact(op.name, inputs, attributes)[0]
    else:
        exact = reference.exact(spec.RMS.name, [total, inputs[-1]], attributes)[0]
    with np.errstate(all="ignore"):
        z = inputs[1].astype(np.float64) if "gate" in op.inputs else np.zeros(1)
        normalized = (x if total is None else total).astype(np.float64)
        normalized = normalized * reference.silu(z) if op is spec.PRE_GATED else normalized
        squares = np.sum(np.square(normalized), axis=attributes.axes, keepdims=True)
        width = prod(x.shape[axis] for axis in attributes.axes)
        statistic = np.maximum(squares / width, attributes.floor) + attributes.epsilon + attributes.epsilon_low
        root = np.sqrt(statistic) + attributes.epsilon_outside
        limits = np.finfo(NUMPY_TYPES[attributes.stash_type])
        # Sums in the stash type are longer than the mean, and lose what is below its normal numbers.
        judged = (squares <= limits.max) & (statistic >= limits.tiny * width)
        unit = _SIGMOID_ROUNDOFFS * reference.roundoff(NUMPY_TYPES[attributes.stash_type])
        gate, off = np.ones(1), np.zeros(1)
        if op is spec.GATED:
            gate = np.abs(reference.silu(z))
            off = unit * np.abs(z * normalized / root) * scale
        elif op is spec.PRE_GATED:
            # Each element's own error, and that of the root: at most the root mean square of theirs.
            own = unit * np.abs(x.astype(np.float64) * z)
            others = np.sqrt(np.mean(np.square(own), axis=attributes.axes, keepdims=True))
            off = (own / root) * scale + np.abs(exact) * others / root
        lost = _half_subnormal(attributes.stash_type) + _half_subnormal(attributes.normalized_type)
        product = lost * scale * gate
        if op is spec.GATED:
            product = product + _half_subnormal(attributes.scaled_type) * gate
        if "gate" in op.inputs:
            # silu itself may be that small: its exponential and its product.
            product = product + 2 * _half_subnormal(attributes.stash_type) * np.abs(x.astype(np.float64)) / root * scale
        one = reference.ulp(exact, x.dtype)
        product, off = product / one, off / one
    return Oracle(
        exact,
        faithful,
        total,
        width,
        np.broadcast_to(product, exact.shape),
        np.broadcast_to(off, exact.shape),
        np.broadcast_to(judged | ~np.isfinite(squares), exact.shape),
    )


def _half_subnormal(dtype: spec.DType) -> float:
    return float(reference.ulp(0.0, NUMPY_TYPES[dtype])) / 2
