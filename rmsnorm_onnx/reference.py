"""The operators in float64 on numpy arrays, errors in ulps, and the error bound of one operator.

Knows no graph and no runtime. Two readings of each operator: ``exact`` computes everything in float64 and rounds
nothing; ``faithful`` rounds where the contract rounds (normalized_type, scaled_type, T), so a kernel that computes
each step in the stash type and rounds there differs from it by the stash type's errors only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import ml_dtypes
import numpy as np
import numpy.typing as npt

from rmsnorm_onnx import spec
from rmsnorm_onnx.spec import DType

Array = npt.NDArray[Any]
Doubles = npt.NDArray[np.float64]

NUMPY_TYPES: Final[dict[DType, np.dtype[Any]]] = {
    DType.FLOAT: np.dtype(np.float32),
    DType.FLOAT16: np.dtype(np.float16),
    DType.DOUBLE: np.dtype(np.float64),
    DType.BFLOAT16: np.dtype(ml_dtypes.bfloat16),
}

#: Error of exp as math libraries deliver it, one ulp, in units of the stash type's roundoff.
_EXP_ROUNDOFFS: Final = 2
#: Additions that a term passes at most before the library's CPU kernels go on in float64 (custom_ops/src/cpu/sum.h).
KERNEL_ADDITIONS: Final = 16

#: silu(z) = z * (1 / (1 + exp(-z))): exp, the sum, the quotient, the product.
_SILU_ROUNDOFFS: Final = _EXP_ROUNDOFFS + 3


@dataclass(frozen=True, slots=True)
class Attributes:
    """The attributes of a node, with the defaults of the contract; see ``spec`` for what each means."""

    epsilon: float
    axes: tuple[int, ...] = (-1,)
    epsilon_low: float = 0.0
    epsilon_outside: float = 0.0
    floor: float = 0.0
    stash_type: DType = DType.FLOAT
    normalized_type: DType = DType.FLOAT
    scaled_type: DType = DType.FLOAT


def exact(op: str, inputs: Sequence[Array], attributes: Attributes) -> tuple[Doubles, ...]:
    """The operator in float64 without any rounding to a narrower type.

    Args:
        op: a name in ``spec.OPS``.
        inputs: X, then skip or gate (same shape as X) where the operator has one, then scale (broadcasts to X);
            any float dtype.
        attributes: the node's attributes; the types in them are ignored.

    Returns:
        Y, and for SkipRMSNormalization the sum, in float64 and of the shape of X.

    Raises:
        KeyError: ``op`` is not an operator.
    """
    return _compute(op, inputs, attributes, rounded=False)


def faithful(op: str, inputs: Sequence[Array], attributes: Attributes) -> tuple[Array, ...]:
    """The operator with the roundings of the contract: the skip sum, normalized_type, scaled_type and T.

    Arguments and errors as for ``exact``. Returns arrays of the dtype of X.
    """
    return tuple(_cast(y, inputs[0].dtype) for y in _compute(op, inputs, attributes, rounded=True))


def _compute(op: str, inputs: Sequence[Array], attributes: Attributes, *, rounded: bool) -> tuple[Doubles, ...]:
    names = spec.OPS[op].inputs
    given = dict(zip(names, (np.asarray(i).astype(np.float64) for i in inputs), strict=True))

    def round_to(values: Doubles, dtype: np.dtype[Any]) -> Doubles:
        return _cast(values, dtype).astype(np.float64) if rounded else values

    x = given["X"]
    with np.errstate(all="ignore"):
        if "skip" in given:
            x = total = round_to(x + given["skip"], inputs[0].dtype)
        if op == spec.PRE_GATED.name:
            x = x * silu(given["gate"])
        normalized = round_to(_normalize(x, attributes), _effective(attributes.normalized_type, attributes))
        y = normalized * given["scale"]
        if op == spec.GATED.name:
            y = round_to(y, _effective(attributes.scaled_type, attributes)) * silu(given["gate"])
    return (y, total) if "skip" in given else (y,)


def _normalize(x: Doubles, attributes: Attributes) -> Doubles:
    # Scaled by a power of two, so that squares of values near the ends of float64 neither overflow nor vanish;
    # vanishing squares matter only where nothing is added to them.
    largest = np.max(np.abs(x), axis=attributes.axes, keepdims=True, initial=0.0)
    epsilon = attributes.epsilon + attributes.epsilon_low
    alone = epsilon == 0 and attributes.floor == 0
    scaled = np.isfinite(largest) & ((largest > 1e150) | ((largest < 1e-150) & (largest > 0) & alone))
    shift = np.where(scaled, -np.frexp(largest)[1], 0)
    near_one = np.ldexp(x, shift)
    mean = np.mean(np.square(near_one), axis=attributes.axes, keepdims=True)
    floor = np.maximum(mean, np.ldexp(attributes.floor, 2 * shift))
    root = np.sqrt(floor + np.ldexp(epsilon, 2 * shift))
    return np.asarray(near_one / (root + np.ldexp(attributes.epsilon_outside, shift)))


def silu(z: Doubles) -> Doubles:
    """``z * sigmoid(z)`` in float64, any shape; minus infinity gives NaN, as the product of its definition does."""
    with np.errstate(all="ignore"):
        # The exponential of a negative number: that of 710 overflows, while silu(-710) is still a float64.
        power = np.exp(-np.abs(z))
        return np.asarray(z * (np.where(z < 0, power, 1.0) / (1.0 + power)))


def _effective(dtype: DType, attributes: Attributes) -> np.dtype[Any]:
    # Rounding to the stash type itself is the arithmetic of the kernel, not part of the contract.
    return NUMPY_TYPES[DType.DOUBLE] if dtype == attributes.stash_type else NUMPY_TYPES[dtype]


def _cast(values: Doubles, dtype: np.dtype[Any]) -> Array:
    with np.errstate(all="ignore"):
        return values.astype(dtype)


def roundoff(dtype: npt.DTypeLike) -> float:
    """Largest relative error of rounding to nearest in ``dtype``: 2^-24, 2^-11, 2^-8 or 2^-53."""
    return float(_finfo(dtype).eps) / 2


def is_rounded(number: float, exact: float) -> bool:
    """Whether ``number`` is ``exact`` as float16 or bfloat16 holds it, perhaps computed with in float32 since."""
    with np.errstate(over="ignore"):
        held = [float(np.asarray(exact).astype(dtype)) for dtype in (np.float16, ml_dtypes.bfloat16)]
    return any(abs(number - value) <= 2.0**-20 * abs(value) for value in held if np.isfinite(value))


def _finfo(dtype: npt.DTypeLike) -> Any:
    # numpy's own finfo does not know bfloat16.
    return ml_dtypes.finfo(np.dtype(dtype))  # type: ignore[no-untyped-call]


def ulp(values: npt.ArrayLike, dtype: npt.DTypeLike) -> Doubles:
    """Distance between neighbours in ``dtype`` at each value (any shape), in float64.

    Below the smallest normal number it is the smallest subnormal; for inf and NaN it is that of the largest number.
    """
    info = _finfo(dtype)
    largest = float(info.max)
    magnitude = np.abs(np.asarray(values).astype(np.float64))
    magnitude = np.clip(np.where(np.isnan(magnitude), largest, magnitude), float(info.smallest_normal), largest)
    exponent = np.frexp(magnitude)[1] - 1
    return np.asarray(np.ldexp(float(info.eps), exponent), dtype=np.float64)


def ulps(got: npt.ArrayLike, want: npt.ArrayLike, dtype: npt.DTypeLike) -> Doubles:
    """Error of ``got`` against ``want`` (shapes broadcast) in units in the last place of ``dtype`` at ``want``.

    NaN against NaN and inf against the same inf is 0; any other pair with a NaN or inf is infinitely wrong.
    """
    left = np.asarray(got).astype(np.float64)
    right = np.asarray(want).astype(np.float64)
    same = (left == right) | (np.isnan(left) & np.isnan(right))
    finite = np.isfinite(left) & np.isfinite(right)
    with np.errstate(all="ignore"):
        error = np.abs(left - right) / ulp(right, dtype)
    return np.where(same, 0.0, np.where(finite, error, np.inf))


@dataclass(frozen=True, slots=True)
class Bound:
    """Error bound of one operator.

    Attributes:
        relative: bound of |computed - exact| / |exact| before the last rounding (to T).
        ulps: bound of the error in ulps of T at the exact value, the last rounding included.
        roundoffs: ``relative`` in units of the stash type's roundoff (2^-24 or 2^-53).
    """

    relative: float
    ulps: float
    roundoffs: float


def bound(op: str, width: int, dtype: npt.DTypeLike, attributes: Attributes, *, additions: int | None = None) -> Bound:
    """Error bound of one operator against ``exact``, for results that are normal numbers.

    With u the roundoff of the stash type and every stash operation correctly rounded (Higham, Accuracy and Stability
    of Numerical Algorithms, 2nd edition, lemma 3.1: n factors (1 + d), |d| <= u, are one factor within
    g(n) = n u / (1 - n u)):

    - a square is 1 factor, a term passes at most ``additions`` additions, the division by N is 1 and adding
      epsilon and epsilon_low up to 2; all summands are positive, so nothing cancels and the mean square has
      additions + 4 factors (a floor adds none: the maximum of two numbers is exact);
    - the root halves the exponent of its argument's error (never enlarges it) and adds 1 of its own;
    - adding epsilon_outside is 1, the division 1, the product with scale 1;
    - silu is exp (1 ulp = 2 factors), one sum, one quotient, one product = 5, and its use another product.
      Before the norm it enters each x: once above the line, and at most once below (twice in the square, halved);
    - rounding to normalized_type or scaled_type adds the roundoff of that type;
    - a relative error r before the last rounding is at most r / u_T ulps of T at the exact value y, because
      |y| < ulp(y) / u_T; the last rounding adds half an ulp (a whole one where r / u_T exceeds 1, since the computed
      value may then lie above a power of two, where ulps are twice as long).

    Args:
        op: a name in ``spec.OPS``; a skip sum is rounded in both readings, so compare with ``faithful`` inputs.
        width: number of elements in one mean, N.
        dtype: T, the element type of the result.
        attributes: stash_type, normalized_type and scaled_type are read.
        additions: longest chain of additions a term goes through; N - 1 (any order at all) when None. A kernel with
            L lanes has about N / L + log2(L).

    Raises:
        KeyError: ``op`` is not an operator.
        ValueError: the chain is so long that first-order bounds mean nothing (n u >= 1).
    """
    names = spec.OPS[op].inputs
    stash = NUMPY_TYPES[attributes.stash_type]
    unit = roundoff(stash)
    chain = width - 1 if additions is None else additions
    factors = (chain + 4) / 2 + 1 + 3
    if "gate" in names:
        factors += 2 * (_SILU_ROUNDOFFS + 1) if op == spec.PRE_GATED.name else _SILU_ROUNDOFFS + 1
    if factors * unit >= 1:
        raise ValueError(f"{factors:.0f} roundings of {unit:.1e} have no first-order bound; use a wider stash type")
    growth = 1 + factors * unit / (1 - factors * unit)
    roundings = [attributes.normalized_type] + ([attributes.scaled_type] if op == spec.GATED.name else [])
    for rounding in roundings:
        if rounding != attributes.stash_type:
            growth *= 1 + roundoff(NUMPY_TYPES[rounding])
    relative = growth - 1
    before = relative / roundoff(dtype)
    return Bound(relative=relative, ulps=before + (1.0 if before > 1 else 0.5), roundoffs=relative / unit)
