"""The operators as onnxscript functions: the executable definition, written at opset 18.

Nothing branches on a type: every type is the attribute of a Cast, so one body serves every mix of
float32, float16, bfloat16 and float64. ``lower.py`` expands the two helpers (those whose names
start with an underscore) and writes the bodies at other opsets.

Formula: Zhang and Sennrich, Root Mean Square Layer Normalization (2019), with the epsilon inside
the root as in every framework today; SiLU gates as in Mamba-2 (before) and Gated DeltaNet (after).
"""

# ruff: noqa: D103, N802, N803, N806, RET504
from __future__ import annotations

from typing import Final, Sequence  # noqa: UP035 (what onnxscript before 0.6 reads in annotations)

import onnxscript
from onnxscript import opset18 as op

from rmsnorm_onnx import spec

_domain: Final = onnxscript.values.Opset(spec.DOMAIN, spec.VERSION)
_DOUBLE: Final = int(spec.DType.DOUBLE)


@onnxscript.script(_domain)
def _Normalize(
    x,
    axes: Sequence[int],
    epsilon: float,
    epsilon_low: float,
    epsilon_outside: float,
    floor: float,
    stash_type: int,
    normalized_type: int,
):
    # Pow and Div, not Mul and Reciprocal: the spelling that onnxruntime's own fusion recognizes.
    square = op.Pow(x, op.Cast(op.Constant(value_float=2.0), to=stash_type))
    mean = op.ReduceMean(square, op.Constant(value_ints=axes))
    bounded = op.Max(mean, op.Cast(op.Constant(value_float=floor), to=stash_type))
    refined = op.Add(bounded, op.Cast(op.Constant(value_float=epsilon_low), to=stash_type))
    shifted = op.Add(refined, op.Cast(op.Constant(value_float=epsilon), to=stash_type))
    root = op.Add(op.Sqrt(shifted), op.Cast(op.Constant(value_float=epsilon_outside), to=stash_type))
    normalized = op.Cast(op.Cast(op.Div(x, root), to=normalized_type), to=stash_type)
    return normalized


@onnxscript.script(_domain)
def _Silu(z):
    gate = op.Mul(z, op.Sigmoid(z))
    return gate


@onnxscript.script(_domain)
def RMSNormalization(
    X,
    scale,
    axes: Sequence[int],
    epsilon: float,
    epsilon_low: float,
    epsilon_outside: float,
    floor: float,
    stash_type: int,
    normalized_type: int,
):
    x = op.Cast(X, to=stash_type)
    normalized = _Normalize(x, axes, epsilon, epsilon_low, epsilon_outside, floor, stash_type, normalized_type)
    Y = op.CastLike(op.Mul(normalized, op.Cast(scale, to=stash_type)), X)
    return Y


@onnxscript.script(_domain)
def SkipRMSNormalization(
    X,
    skip,
    scale,
    axes: Sequence[int],
    epsilon: float,
    epsilon_low: float,
    epsilon_outside: float,
    floor: float,
    stash_type: int,
    normalized_type: int,
):
    # Added in float64 and rounded once, this is the sum in T for each of the four types: 53 >= 2 * 24 + 2 bits.
    sum = op.CastLike(op.Add(op.Cast(X, to=_DOUBLE), op.Cast(skip, to=_DOUBLE)), X)  # noqa: A001
    x = op.Cast(sum, to=stash_type)
    normalized = _Normalize(x, axes, epsilon, epsilon_low, epsilon_outside, floor, stash_type, normalized_type)
    Y = op.CastLike(op.Mul(normalized, op.Cast(scale, to=stash_type)), X)
    return Y, sum


@onnxscript.script(_domain)
def GatedRMSNormalization(
    X,
    gate,
    scale,
    axes: Sequence[int],
    epsilon: float,
    epsilon_low: float,
    epsilon_outside: float,
    floor: float,
    stash_type: int,
    normalized_type: int,
    scaled_type: int,
):
    x = op.Cast(X, to=stash_type)
    normalized = _Normalize(x, axes, epsilon, epsilon_low, epsilon_outside, floor, stash_type, normalized_type)
    scaled = op.Cast(op.Cast(op.Mul(normalized, op.Cast(scale, to=stash_type)), to=scaled_type), to=stash_type)
    Y = op.CastLike(op.Mul(scaled, _Silu(op.Cast(gate, to=stash_type))), X)
    return Y


@onnxscript.script(_domain)
def PreGatedRMSNormalization(
    X,
    gate,
    scale,
    axes: Sequence[int],
    epsilon: float,
    epsilon_low: float,
    epsilon_outside: float,
    floor: float,
    stash_type: int,
    normalized_type: int,
):
    x = op.Mul(op.Cast(X, to=stash_type), _Silu(op.Cast(gate, to=stash_type)))
    normalized = _Normalize(x, axes, epsilon, epsilon_low, epsilon_outside, floor, stash_type, normalized_type)
    Y = op.CastLike(op.Mul(normalized, op.Cast(scale, to=stash_type)), X)
    return Y


HELPERS: Final[dict[str, onnxscript.OnnxFunction]] = {"_Normalize": _Normalize, "_Silu": _Silu}
DEFINITIONS: Final[dict[str, onnxscript.OnnxFunction]] = {
    "RMSNormalization": RMSNormalization,
    "SkipRMSNormalization": SkipRMSNormalization,
    "GatedRMSNormalization": GatedRMSNormalization,
    "PreGatedRMSNormalization": PreGatedRMSNormalization,
}
